// Bytes in our own JSON files: paths, branches and what a box says may be any bytes, JSON text may
// not. Text that is UTF-8 stands as it is, the rest as {"base64": ...}. Pure.
#pragma once

#include <boost/json/value.hpp>
#include <optional>
#include <string>

namespace cli {

boost::json::value bytes_value(const std::string& bytes);
// std::nullopt: it is neither of the two.
std::optional<std::string> bytes_of(const boost::json::value& value);

}  // namespace cli
