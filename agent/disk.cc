#include "agent/disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

namespace agent::disk {
namespace {

using protocol::os::errno_failure;
using protocol::os::Fd;
using protocol::wire::Errc;
using protocol::wire::Failure;

constexpr std::size_t kMaxDepth = 128;

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

result<void> sync_directory(const std::filesystem::path& directory) {
  Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) {
    return errno_failure(errno, directory.string());
  }
  return {};
}

std::filesystem::path parent_of(const std::filesystem::path& file) {
  auto parent = file.parent_path();
  return parent.empty() ? "." : parent;
}

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

result<std::optional<FileLock>> FileLock::take(const std::filesystem::path& file, int operation) {
  Fd fd(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) {
    return errno_failure(errno, file.string());
  }
  int done = 0;
  do {
    done = ::flock(fd.get(), operation);
  } while (done != 0 && errno == EINTR);
  if (done != 0) {
    if (errno == EWOULDBLOCK) {
      return std::optional<FileLock>();
    }
    return errno_failure(errno, file.string());
  }
  return std::optional<FileLock>(FileLock(std::move(fd)));
}

result<FileLock> FileLock::exclusive(const std::filesystem::path& file) {
  auto lock = take(file, LOCK_EX);
  if (!lock) {
    return lock.error();
  }
  return std::move(**lock);
}

result<std::optional<FileLock>> FileLock::try_exclusive(const std::filesystem::path& file) {
  return take(file, LOCK_EX | LOCK_NB);
}

result<std::optional<FileLock>> FileLock::try_shared(const std::filesystem::path& file) {
  return take(file, LOCK_SH | LOCK_NB);
}

result<void> make_directory(const std::filesystem::path& directory) {
  if (::mkdir(directory.c_str(), 0700) == 0) {
    return {};
  }
  if (errno == ENOENT && directory.has_parent_path() && directory.parent_path() != directory) {
    auto above = make_directory(directory.parent_path());
    if (!above) {
      return above;
    }
    if (::mkdir(directory.c_str(), 0700) == 0) {
      return {};
    }
  }
  int error = errno;
  struct stat status {};
  if (error == EEXIST && ::stat(directory.c_str(), &status) == 0) {
    if (!S_ISDIR(status.st_mode)) {
      return Failure(Errc::exists, directory.string() + " is not a directory");
    }
    return {};
  }
  return errno_failure(error, directory.string());
}

result<std::string> read_file(const std::filesystem::path& file, std::size_t limit) {
  Fd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    return errno_failure(errno, file.string());
  }
  std::string content;
  char buffer[16 * 1024];
  while (true) {
    ssize_t count = ::read(fd.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return errno_failure(errno, file.string());
    }
    if (count == 0) {
      return content;
    }
    if (content.size() + static_cast<std::size_t>(count) > limit) {
      return Failure(Errc::too_large, file.string());
    }
    content.append(buffer, static_cast<std::size_t>(count));
  }
}

result<void> replace_file(const std::filesystem::path& file, std::string_view content) {
  std::string temporary = file.string() + ".XXXXXX";
  Fd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) {
    return errno_failure(errno, file.string());
  }
  auto fail = [&](int error) {
    ::unlink(temporary.c_str());
    return errno_failure(error, file.string());
  };
  while (!content.empty()) {
    ssize_t count = ::write(fd.get(), content.data(), content.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return fail(errno);
    }
    content.remove_prefix(static_cast<std::size_t>(count));
  }
  if (::fsync(fd.get()) != 0 || ::rename(temporary.c_str(), file.c_str()) != 0) {
    return fail(errno);
  }
  return sync_directory(parent_of(file));
}

result<void> rename_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    return errno_failure(errno, from.string());
  }
  if (auto synced = sync_directory(parent_of(to)); !synced) {
    return synced;
  }
  return sync_directory(parent_of(from));
}

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

std::string stamp(const std::filesystem::path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) {
    return {};
  }
  return std::to_string(status.st_dev) + " " + std::to_string(status.st_ino) + " " +
         std::to_string(status.st_size) + " " + std::to_string(status.st_mtim.tv_sec) + "." +
         std::to_string(status.st_mtim.tv_nsec) + " " + std::to_string(status.st_ctim.tv_nsec);
}

}  // namespace agent::disk
