#include "protocol/sync/directory_walk.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <system_error>

namespace protocol::sync {

namespace {

#if defined(O_PATH)
constexpr int kPass = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
#elif defined(O_SEARCH)
constexpr int kPass = O_SEARCH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
#else
constexpr int kPass = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
#endif

bool is_beneath(std::string_view path, std::string_view directory) {
  return path.size() > directory.size() && path.starts_with(directory) &&
         path[directory.size()] == '/';
}

// Its path is the caller's to tell.
wire::Failure failure(int error) {
  return wire::Failure(os::errno_failure(error, "").code, std::generic_category().message(error));
}

}  // namespace

int DirectoryWalk::directory(std::string_view path) {
  if (path.empty()) return root_;
  if (!failed_.empty() && (path == failed_ || is_beneath(path, failed_))) {
    errno = failed_errno_;
    return -1;
  }
  while (!open_.empty() && path != open_.back().path && !is_beneath(path, open_.back().path))
    open_.pop_back();
  std::size_t done = open_.empty() ? 0 : open_.back().path.size() + 1;
  while (done <= path.size()) {
    std::size_t end = std::min(path.find('/', done), path.size());
    std::string name(path.substr(done, end - done));
    int above = open_.empty() ? root_ : open_.back().fd.get();
    os::Fd fd(::openat(above, name.c_str(), kPass));
    if (!fd) {
      failed_ = path.substr(0, end);
      failed_errno_ = errno;
      return -1;
    }
    open_.push_back({std::string(path.substr(0, end)), std::move(fd)});
    done = end + 1;
  }
  return open_.back().fd.get();
}

int DirectoryWalk::parent(std::string_view path, std::string& name) {
  std::size_t slash = path.rfind('/');
  name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  return directory(slash == std::string_view::npos ? std::string_view() : path.substr(0, slash));
}

result<std::optional<os::FileInfo>> DirectoryWalk::info(std::string_view path) {
  struct stat status;
  if (path.empty()) {
    if (::fstat(root_, &status) != 0) return failure(errno);
    return std::optional(os::file_info(status));
  }
  std::string name;
  int above = parent(path, name);
  if (above >= 0 && ::fstatat(above, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0)
    return std::optional(os::file_info(status));
  if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) return std::optional<os::FileInfo>();
  return failure(errno);
}

os::Fd DirectoryWalk::open_file(std::string_view path) {
  std::string name;
  int above = parent(path, name);
  if (above < 0) return {};
  return os::Fd(
      ::openat(above, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

std::optional<std::string> DirectoryWalk::read_link(std::string_view path) {
  std::string name;
  int above = parent(path, name);
  if (above < 0) return std::nullopt;
  std::array<char, PATH_MAX + 1> target;
  ssize_t size = ::readlinkat(above, name.c_str(), target.data(), target.size());
  if (size < 0) return std::nullopt;
  return std::string(target.data(), static_cast<std::size_t>(size));
}

result<std::vector<DirectoryWalk::Child>> DirectoryWalk::list(std::string_view path) {
  int fd = directory(path);
  if (fd < 0) return failure(errno);
  int own = ::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (own < 0) return failure(errno);
  std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(own), ::closedir);
  if (!stream) {
    ::close(own);
    return failure(errno);
  }
  std::vector<Child> children;
  errno = 0;
  while (const dirent* entry = ::readdir(stream.get())) {
    std::string_view name = entry->d_name;
    if (name != "." && name != "..") children.push_back({std::string(name), entry->d_type});
    errno = 0;
  }
  if (errno != 0) return failure(errno);
  return children;
}

}  // namespace protocol::sync
