#include "protocol/os/file_info.h"

namespace protocol::os {

FileInfo file_info(const struct stat& status) {
  FileInfo info;
  info.kind = S_ISREG(status.st_mode)   ? FileInfo::Kind::file
              : S_ISDIR(status.st_mode) ? FileInfo::Kind::directory
              : S_ISLNK(status.st_mode) ? FileInfo::Kind::link
                                        : FileInfo::Kind::other;
  info.mode = status.st_mode & 07777;
  info.uid = status.st_uid;
  info.gid = status.st_gid;
  info.device = status.st_dev;
  info.inode = status.st_ino;
  info.size = static_cast<std::uint64_t>(status.st_size);
#ifdef __APPLE__
  const timespec& modified = status.st_mtimespec;
  const timespec& changed = status.st_ctimespec;
#else
  const timespec& modified = status.st_mtim;
  const timespec& changed = status.st_ctim;
#endif
  info.modified_ns = modified.tv_sec * std::int64_t{1'000'000'000} + modified.tv_nsec;
  info.changed_ns = changed.tv_sec * std::int64_t{1'000'000'000} + changed.tv_nsec;
  return info;
}

}  // namespace protocol::os
