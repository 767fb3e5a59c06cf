#include "cli/json_bytes.h"

#include <boost/json.hpp>

#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;

json::value bytes_value(const std::string& bytes) {
  if (protocol::wire::is_utf8(bytes)) {
    return json::value(bytes);
  }
  json::object object;
  object["base64"] = protocol::wire::base64_encode(bytes);
  return object;
}

std::optional<std::string> bytes_of(const json::value& value) {
  if (value.is_string()) {
    return std::string(value.get_string());
  }
  if (!value.is_object()) {
    return std::nullopt;
  }
  std::string bytes;
  const json::value* encoded = value.get_object().if_contains("base64");
  if (encoded == nullptr || !encoded->is_string() ||
      !protocol::wire::base64_decode(std::string(encoded->get_string()), bytes)) {
    return std::nullopt;
  }
  return bytes;
}

}  // namespace cli
