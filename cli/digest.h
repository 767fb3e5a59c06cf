// A short name for many bytes.
#pragma once

#include <string>
#include <string_view>

namespace cli {

// 40 hex digits (SHA-1): for file names and noticing changes, not for security.
std::string digest(std::string_view bytes);

}  // namespace cli
