#include "protocol/sync/name_fold.h"

#include <algorithm>
#include <iterator>

namespace protocol::sync {

namespace {

struct Fold {
  char16_t code;
  const char16_t* folded;
};
// In order of code.
constexpr Fold kFolds[] = {
#include "protocol/sync/name_fold_table.inc"
};

constexpr char32_t kNotUtf8 = 0xDC00;

void append(std::string& out, char32_t code) {
  if (code >= kNotUtf8 && code < kNotUtf8 + 0x100) {
    out += static_cast<char>(code - kNotUtf8);
  } else if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

void append_folded(std::string& out, char32_t code) {
  if (code >= 0xAC00 && code <= 0xD7A3) {  // a Hangul syllable is its parts
    char32_t index = code - 0xAC00;
    append(out, 0x1100 + index / (21 * 28));
    append(out, 0x1161 + index / 28 % 21);
    if (index % 28 != 0) append(out, 0x11A7 + index % 28);
    return;
  }
  if (code < 0x10000) {
    const Fold* fold =
        std::lower_bound(std::begin(kFolds), std::end(kFolds), code,
                         [](const Fold& entry, char32_t wanted) { return entry.code < wanted; });
    if (fold != std::end(kFolds) && fold->code == code) {
      for (const char16_t* part = fold->folded; *part != 0; ++part) append(out, *part);
      return;
    }
  }
  append(out, code);
}

}  // namespace

bool is_ignorable(char32_t code) {
  return (code >= 0x200C && code <= 0x200F) || (code >= 0x202A && code <= 0x202E) ||
         (code >= 0x206A && code <= 0x206F) || code == 0xFEFF;
}

char32_t take_code_point(std::string_view& bytes) {
  auto byte = [&](std::size_t at) { return static_cast<unsigned char>(bytes[at]); };
  unsigned char first = byte(0);
  std::size_t length = first < 0x80   ? 1
                       : first < 0xC2 ? 0
                       : first < 0xE0 ? 2
                       : first < 0xF0 ? 3
                       : first < 0xF5 ? 4
                                      : 0;
  char32_t code = length <= 1 ? first : first & (0xFF >> (length + 1));
  bool valid = length != 0 && length <= bytes.size();
  for (std::size_t at = 1; valid && at < length; ++at) {
    valid = (byte(at) & 0xC0) == 0x80;
    code = (code << 6) | (byte(at) & 0x3F);
  }
  if (length == 3 && (code < 0x800 || (code >= 0xD800 && code < 0xE000))) valid = false;
  if (length == 4 && (code < 0x10000 || code > 0x10FFFF)) valid = false;
  bytes.remove_prefix(valid ? length : 1);
  return valid ? code : kNotUtf8 + first;
}

std::string fold_name(std::string_view name) {
  std::string folded;
  folded.reserve(name.size());
  while (!name.empty()) {
    char c = name.front();
    if (static_cast<unsigned char>(c) < 0x80) {
      folded += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      name.remove_prefix(1);
      continue;
    }
    char32_t code = take_code_point(name);
    if (!is_ignorable(code)) append_folded(folded, code);
  }
  return folded;
}

}  // namespace protocol::sync
