#include "agent/remove_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "protocol/os/fd.h"

namespace agent {
namespace {

using protocol::os::errno_failure;
using protocol::os::Fd;
using protocol::wire::result;

constexpr std::size_t kMaxDepth = 128;

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

// Names in a directory, or an empty list when there is none to read.
result<std::vector<std::string>> names_in(int directory, const std::string& what) {
  Fd copy(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!copy) {
    return errno_failure(errno, what);
  }
  Directory stream(::fdopendir(copy.get()));
  if (!stream) {
    return errno_failure(errno, what);
  }
  copy.release();
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(stream.get())) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") {
      names.push_back(std::move(name));
    }
  }
  return names;
}

result<Fd> open_writable_directory(int parent, const std::string& name, const std::string& what) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
  Fd fd(::openat(parent, name.c_str(), kFlags));
  if (!fd && errno == EACCES) {
    // Unreadable, but ours. Changed by descriptor, so that it cannot become a link in between.
    Fd path(::openat(parent, name.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    ::chmod(("/proc/self/fd/" + std::to_string(path.get())).c_str(), 0700);
    fd = Fd(::openat(parent, name.c_str(), kFlags));
  }
  if (!fd) {
    return errno_failure(errno, what);
  }
  ::fchmod(fd.get(), 0700);
  return fd;
}

// Depth is bounded by what the file system lets a path be made of; a stack of our own keeps ours
// out of it.
result<void> empty_directory(Fd top, const std::string& what) {
  struct Level {
    Fd fd;
    std::vector<std::string> names;
  };
  std::vector<Level> stack;
  auto names = names_in(top.get(), what);
  if (!names) {
    return names.error();
  }
  stack.push_back({std::move(top), std::move(*names)});
  std::uint64_t moved = 0;
  while (true) {
    Level& level = stack.back();
    if (level.names.empty()) {
      stack.pop_back();
      if (stack.empty()) {
        return {};
      }
      std::string done = std::move(stack.back().names.back());
      stack.back().names.pop_back();
      if (::unlinkat(stack.back().fd.get(), done.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
        return errno_failure(errno, what + ": " + done);
      }
      continue;
    }
    const std::string& name = level.names.back();
    if (::unlinkat(level.fd.get(), name.c_str(), 0) == 0 || errno == ENOENT) {
      level.names.pop_back();
      continue;
    }
    if (errno != EISDIR && errno != EPERM) {
      return errno_failure(errno, what + ": " + name);
    }
    auto below = open_writable_directory(level.fd.get(), name, what + ": " + name);
    if (!below) {
      return below.error();
    }
    if (stack.size() >= kMaxDepth) {
      std::string up = ".moved-up-" + std::to_string(++moved);
      if (::renameat(level.fd.get(), name.c_str(), stack.front().fd.get(), up.c_str()) != 0) {
        return errno_failure(errno, what + ": " + name);
      }
      level.names.pop_back();
      // Not at the back: that one is being emptied.
      stack.front().names.insert(stack.front().names.begin(), std::move(up));
      continue;
    }
    auto inside = names_in(below->get(), what);
    if (!inside) {
      return inside.error();
    }
    stack.push_back({std::move(*below), std::move(*inside)});
  }
}

}  // namespace

result<void> remove_tree(const std::filesystem::path& tree) {
  if (::unlink(tree.c_str()) == 0 || errno == ENOENT) {
    return {};
  }
  auto top = open_writable_directory(AT_FDCWD, tree.string(), tree.string());
  if (!top) {
    return top.error();
  }
  auto emptied = empty_directory(std::move(*top), tree.string());
  if (!emptied) {
    return emptied;
  }
  if (::rmdir(tree.c_str()) != 0) {
    return errno_failure(errno, tree.string());
  }
  return {};
}

}  // namespace agent
