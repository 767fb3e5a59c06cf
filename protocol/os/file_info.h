// What the system says of a file, as one value.
#pragma once

#include <sys/stat.h>

#include <cstdint>

namespace protocol::os {

// What lstat says.
struct FileInfo {
  enum class Kind { file, directory, link, other };
  Kind kind = Kind::other;
  std::uint32_t mode = 0;  // permission bits, set-id bits included
  std::uint32_t uid = 0, gid = 0;
  std::uint64_t device = 0, inode = 0, size = 0;
  std::int64_t modified_ns = 0, changed_ns = 0;

  // The same file with the same content, as far as the system can tell. The change time is left
  // out: a rename moves it.
  bool same_content(const FileInfo& other) const {
    return kind == other.kind && mode == other.mode && device == other.device &&
           inode == other.inode && size == other.size && modified_ns == other.modified_ns;
  }
};
FileInfo file_info(const struct stat& status);

}  // namespace protocol::os
