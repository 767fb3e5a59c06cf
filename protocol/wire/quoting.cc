#include "protocol/wire/quoting.h"

#include <array>
#include <cstdint>

namespace protocol::wire {
namespace {

constexpr std::string_view kPlain =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@%+=:,./-_";
constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

// Length of the well-formed UTF-8 character at the front (RFC 3629), 0 when there is none.
std::size_t utf8_length(std::string_view bytes) {
  const auto first = static_cast<unsigned char>(bytes[0]);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || bytes.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if (!continues(bytes[i])) return 0;
  }
  const auto second = static_cast<unsigned char>(bytes[1]);
  if (first == 0xe0 && second < 0xa0) return 0;  // overlong
  if (first == 0xed && second > 0x9f) return 0;  // surrogates
  if (first == 0xf0 && second < 0x90) return 0;  // overlong
  if (first == 0xf4 && second > 0x8f) return 0;  // beyond U+10FFFF
  return length;
}

// C1 controls (U+0080 to U+009F) and the marks that reorder a line on the screen.
bool is_unsafe(std::string_view character) {
  if (character.size() == 2 && character[0] == '\xc2') {
    return static_cast<unsigned char>(character[1]) < 0xa0;
  }
  if (character.size() != 3 || character[0] != '\xe2') return false;
  const auto middle = static_cast<unsigned char>(character[1]);
  const auto last = static_cast<unsigned char>(character[2]);
  if (middle == 0x80) return last >= 0xa8 && last <= 0xae;  // U+2028 to U+202E
  return middle == 0x81 && last >= 0xa6 && last <= 0xa9;    // U+2066 to U+2069
}

void append_visible(std::string& out, char byte) {
  constexpr std::string_view kHex = "0123456789abcdef";
  const auto value = static_cast<unsigned char>(byte);
  switch (byte) {
    case '\n':
      out += "\\n";
      return;
    case '\t':
      out += "\\t";
      return;
    case '\r':
      out += "\\r";
      return;
    default:
      break;
  }
  out += "\\x";
  out += kHex[value >> 4];
  out += kHex[value & 15];
}

}  // namespace

std::string shell_quote(std::string_view word) {
  if (!word.empty() && word.find_first_not_of(kPlain) == word.npos) return std::string(word);
  std::string out = "'";
  for (const char byte : word) {
    if (byte == '\'') {
      out += "'\\''";
    } else {
      out += byte;
    }
  }
  return out + "'";
}

std::string shell_join(std::span<const std::string> argv) {
  std::string out;
  for (const auto& word : argv) {
    if (!out.empty()) out += ' ';
    // A first word with `=` would be an assignment.
    const bool assignment =
        out.empty() && word.find('=') != word.npos && word.find_first_not_of(kPlain) == word.npos;
    out += assignment ? "'" + word + "'" : shell_quote(word);
  }
  return out;
}

std::string printable(std::string_view bytes, std::size_t limit) {
  constexpr std::string_view kMore = "…";
  std::string out;
  std::size_t fits = 0;  // of `out`, with room for kMore
  while (!bytes.empty()) {
    std::size_t length = utf8_length(bytes);
    const auto first = static_cast<unsigned char>(bytes[0]);
    if (length == 0) {
      append_visible(out, bytes[0]);
      length = 1;
    } else if (first < 0x20 || first == 0x7f || is_unsafe(bytes.substr(0, length))) {
      for (std::size_t i = 0; i < length; ++i) append_visible(out, bytes[i]);
    } else {
      out.append(bytes.substr(0, length));
    }
    bytes.remove_prefix(length);
    if (out.size() > limit) {
      out.resize(fits);
      return limit < kMore.size() ? out : out.append(kMore);
    }
    if (out.size() + kMore.size() <= limit) fits = out.size();
  }
  return out;
}

bool is_utf8(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto length = utf8_length(bytes);
    if (length == 0) return false;
    bytes.remove_prefix(length);
  }
  return true;
}

std::string base64_encode(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    const std::size_t count = bytes.size() - i < 3 ? bytes.size() - i : 3;
    for (std::size_t k = 0; k < 3; ++k) {
      group = (group << 8) | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      out += k <= count ? kBase64[(group >> (18 - 6 * k)) & 63] : '=';
    }
  }
  return out;
}

bool base64_decode(std::string_view text, std::string& bytes) {
  if (text.size() % 4 != 0) return false;
  std::string out;
  out.reserve(text.size() / 4 * 3);
  for (std::size_t i = 0; i < text.size(); i += 4) {
    std::uint32_t group = 0;
    std::size_t padding = 0;
    for (std::size_t k = 0; k < 4; ++k) {
      const char c = text[i + k];
      if (c == '=' && i + 4 == text.size() && k >= 2) {
        ++padding;
        group <<= 6;
        continue;
      }
      const auto digit = kBase64.find(c);
      if (digit == kBase64.npos || padding > 0) return false;
      group = (group << 6) | static_cast<std::uint32_t>(digit);
    }
    for (std::size_t k = 0; k < 3 - padding; ++k) {
      out += static_cast<char>((group >> (16 - 8 * k)) & 0xff);
    }
  }
  bytes = std::move(out);
  return true;
}

}  // namespace protocol::wire
