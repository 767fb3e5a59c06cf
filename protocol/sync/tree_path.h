// Paths of files in a tree: bytes with '/' between the names, from the root, without one at either
// end. The root itself is the empty path.
#pragma once

#include <string_view>

namespace protocol::sync {

// The directory that it is in: a part of `path`, empty for what is in the root.
inline std::string_view parent_of(std::string_view path) {
  std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

}  // namespace protocol::sync
