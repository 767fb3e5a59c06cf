#include "agent/disk_usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <vector>

#include "protocol/os/fd.h"

namespace agent {
namespace {

constexpr std::size_t kMaxDepth = 256;
constexpr std::uint64_t kBlock = 512;  // what st_blocks counts, whatever the file system's own is

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

Directory open_directory(int parent, const char* name) {
  protocol::os::Fd fd(
      ::openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW | O_NOATIME));
  if (!fd) {
    fd = protocol::os::Fd(::openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  }
  Directory directory(fd ? ::fdopendir(fd.get()) : nullptr);
  if (directory) {
    fd.release();
  }
  return directory;
}

}  // namespace

std::uint64_t disk_usage(const std::filesystem::path& tree) {
  std::uint64_t blocks = 0;
  std::set<ino_t> counted;  // of files with several names
  std::vector<Directory> stack;
  struct stat top {};
  if (::lstat(tree.c_str(), &top) != 0) {
    return 0;
  }
  blocks += static_cast<std::uint64_t>(top.st_blocks);
  if (S_ISDIR(top.st_mode)) {
    if (auto directory = open_directory(AT_FDCWD, tree.c_str())) {
      stack.push_back(std::move(directory));
    }
  }
  while (!stack.empty()) {
    const dirent* entry = ::readdir(stack.back().get());
    if (entry == nullptr) {
      stack.pop_back();
      continue;
    }
    std::string_view name = entry->d_name;
    int parent = ::dirfd(stack.back().get());
    struct stat status {};
    if (name == "." || name == ".." ||
        ::fstatat(parent, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0 ||
        status.st_dev != top.st_dev) {
      continue;
    }
    if (!S_ISDIR(status.st_mode)) {
      if (status.st_nlink < 2 || counted.insert(status.st_ino).second) {
        blocks += static_cast<std::uint64_t>(status.st_blocks);
      }
      continue;
    }
    blocks += static_cast<std::uint64_t>(status.st_blocks);
    if (stack.size() < kMaxDepth) {
      if (auto directory = open_directory(parent, entry->d_name)) {
        stack.push_back(std::move(directory));
      }
    }
  }
  return blocks * kBlock;
}

}  // namespace agent
