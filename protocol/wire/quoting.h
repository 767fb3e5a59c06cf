// Text for shells and for people. Pure.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace protocol::wire {

// One word that a POSIX shell reads back as exactly these bytes; plain words stay as they are.
std::string shell_quote(std::string_view word);
// argv as one line that a shell reads back, joined by spaces.
std::string shell_join(std::span<const std::string> argv);

// For terminals and logs: control bytes, escapes and invalid UTF-8 become visible (\n, \x1b, \xff),
// so a name can neither move the cursor nor forge a line; cut to `limit` bytes on a character
// boundary with "…" at the end.
std::string printable(std::string_view bytes, std::size_t limit = 4096);

bool is_utf8(std::string_view bytes);

std::string base64_encode(std::string_view bytes);
// Empty optional on malformed input.
bool base64_decode(std::string_view text, std::string& bytes);

}  // namespace protocol::wire
