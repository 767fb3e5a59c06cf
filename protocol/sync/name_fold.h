// When file systems take two names for one: letter case, composed and decomposed accents, ignorable
// code points. Pure.
#pragma once

#include <string>
#include <string_view>

namespace protocol::sync {

// The same for two names that APFS, HFS+ or NTFS would take for one; compare results, never show or
// store them. Covers Latin, Greek, Cyrillic, Armenian, kana, Hangul and full-width letters; bytes
// that are not UTF-8 stay as they are.
std::string fold_name(std::string_view name);

// Code points that HFS+ leaves out when it compares names (zero-width joiners, direction marks
// ...).
bool is_ignorable(char32_t code);

// Reads the code point at the front of `bytes` and drops it from there; a byte that is not UTF-8 is
// taken alone and comes back as 0xDC00 + byte, which no valid text contains.
char32_t take_code_point(std::string_view& bytes);

}  // namespace protocol::sync
