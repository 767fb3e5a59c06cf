// What git prints, field by field.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace protocol::sync {

// Takes the bytes up to `end` off the front of `text`, and `end` with them.
inline std::optional<std::string_view> take(std::string_view& text, char end) {
  std::size_t at = text.find(end);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view front = text.substr(0, at);
  text.remove_prefix(at + 1);
  return front;
}

// "100644"; 0 for what is no number.
inline std::uint32_t parse_mode(std::string_view text) {
  std::uint32_t mode = 0;
  std::from_chars(text.data(), text.data() + text.size(), mode, 8);
  return mode;
}

}  // namespace protocol::sync
