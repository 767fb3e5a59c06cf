#include "protocol/os/beneath.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/openat2.h>
#include <sys/syscall.h>
#endif

#include <array>
#include <cerrno>
#include <utility>

#include "protocol/os/beneath_parts.h"

namespace protocol::os {

using wire::Errc;
using wire::Failure;

namespace {

bool valid_path(std::string_view path) {
  if (path.empty()) return true;
  if (path.find('\0') != std::string_view::npos) return false;
  for (std::size_t begin = 0; begin <= path.size();) {
    std::size_t end = std::min(path.find('/', begin), path.size());
    std::string_view component = path.substr(begin, end - begin);
    if (component.empty() || component == "." || component == "..") return false;
    begin = end + 1;
  }
  return true;
}

}  // namespace

Failure path_failure(int error, std::string_view path) {
  std::string what(path.empty() ? "." : path);
  switch (error) {
    case ELOOP:
    case ENOTDIR:
    case EXDEV:
      return Failure(Errc::refused, what + ": a link or a file stands in the way");
    default:
      return errno_failure(error, what);
  }
}

// ---- resolving -------------------------------------------------------------------------------

result<Beneath> Beneath::open(const std::filesystem::path& root, Way way) {
  Fd fd(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return path_failure(errno, root.native());
  return Beneath(std::move(fd), way == Way::portable);
}

result<Fd> Beneath::resolve(std::string_view path, int flags) const {
  if (!valid_path(path)) {
    return Failure(Errc::bad_input,
                   "the path \"" + std::string(path) + "\" is not beneath the root");
  }
  if (portable_) return resolve_portably(path, flags);
#if defined(__linux__) && defined(SYS_openat2)
  struct open_how how = {};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC | O_NOFOLLOW);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  std::string name(path.empty() ? "." : path);
  for (int attempt = 0; attempt < 64; ++attempt) {
    Fd fd(static_cast<int>(::syscall(SYS_openat2, root_.get(), name.c_str(), &how, sizeof how)));
    if (fd) return fd;
    if (errno == EINTR || errno == EAGAIN) continue;  // EAGAIN: a rename elsewhere disturbed it
    if (errno != ENOSYS && errno != EPERM) return path_failure(errno, path);
    break;  // an old kernel, or a seccomp filter that does not know it
  }
  auto resolved = resolve_portably(path, flags);
  if (resolved) portable_ = true;
  return resolved;
#else
  return resolve_portably(path, flags);
#endif
}

result<Fd> Beneath::resolve_portably(std::string_view path, int flags) const {
  Fd at;
  int from = root_.get();
  for (;;) {
    std::size_t slash = path.find('/');
    bool last = slash == std::string_view::npos;
    std::string name(path.substr(0, slash));
    if (name.empty()) name = ".";
    int how = last ? (flags | O_CLOEXEC | O_NOFOLLOW) : kWalk;
    Fd next(::openat(from, name.c_str(), how));
    if (!next) return path_failure(errno, name);
    if (last) return next;
    at = std::move(next);
    from = at.get();
    path.remove_prefix(slash + 1);
  }
}

result<Beneath::Place> Beneath::locate(std::string_view path) const {
  if (path.empty()) return Failure(Errc::bad_input, "the root itself has no place beneath it");
  if (!valid_path(path)) {
    return Failure(Errc::bad_input,
                   "the path \"" + std::string(path) + "\" is not beneath the root");
  }
  std::size_t slash = path.rfind('/');
  auto parent =
      resolve(slash == std::string_view::npos ? std::string_view{} : path.substr(0, slash), kWalk);
  if (!parent) return parent.error();
  return Place{std::move(*parent), std::string(path.substr(slash + 1))};
}

// ---- reading ---------------------------------------------------------------------------------

result<std::optional<FileInfo>> Beneath::info(std::string_view path) const {
  if (path.empty()) {
    struct stat status;
    if (::fstat(root_.get(), &status) != 0) return path_failure(errno, path);
    return std::optional(file_info(status));
  }
  auto place = locate(path);
  if (!place) {
    Errc code = place.error().code;
    if (code == Errc::not_found || code == Errc::refused) return std::optional<FileInfo>();
    return place.error();
  }
  struct stat status;
  if (::fstatat(place->parent.get(), place->name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return std::optional<FileInfo>();
    return path_failure(errno, path);
  }
  return std::optional(file_info(status));
}

result<Fd> Beneath::open_file(std::string_view path, FileInfo* info) const {
  auto place = locate(path);
  if (!place) return place.error();
  const char* name = place->name.c_str();
  struct stat status;
  // Looked at before it is opened, because opening a device can do things; and after, because it
  // may have been swapped.
  if (::fstatat(place->parent.get(), name, &status, AT_SYMLINK_NOFOLLOW) != 0)
    return path_failure(errno, path);
  Failure not_regular(Errc::refused, std::string(path) + ": not a regular file");
  if (!S_ISREG(status.st_mode)) return not_regular;
  Fd fd(::openat(place->parent.get(), name,
                 O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd) return path_failure(errno, path);
  if (::fstat(fd.get(), &status) != 0) return path_failure(errno, path);
  if (!S_ISREG(status.st_mode)) return not_regular;
  if (info) *info = file_info(status);
  return fd;
}

result<Fd> Beneath::open_directory(std::string_view path) const {
  return resolve(path, O_RDONLY | O_DIRECTORY);
}

result<std::string> Beneath::read_file(std::string_view path, std::size_t limit) const {
  auto fd = open_file(path);
  if (!fd) return fd.error();
  std::string bytes;
  std::array<char, 16 * 1024> buffer;
  for (;;) {
    ssize_t count = ::read(fd->get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return path_failure(errno, path);
    if (count == 0) return bytes;
    if (bytes.size() + static_cast<std::size_t>(count) > limit)
      return Failure(Errc::too_large, std::string(path));
    bytes.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

result<std::string> Beneath::read_link(std::string_view path) const {
  auto place = locate(path);
  if (!place) return place.error();
  std::array<char, 16 * 1024> buffer;
  ssize_t count =
      ::readlinkat(place->parent.get(), place->name.c_str(), buffer.data(), buffer.size());
  if (count < 0 && errno == EINVAL)
    return Failure(Errc::refused, std::string(path) + ": not a link");
  if (count < 0) return path_failure(errno, path);
  return std::string(buffer.data(), static_cast<std::size_t>(count));
}

result<std::vector<std::string>> Beneath::list(std::string_view directory) const {
  auto fd = open_directory(directory);
  if (!fd) return fd.error();
  DIR* stream = ::fdopendir(fd->get());
  if (!stream) return path_failure(errno, directory);
  fd->release();
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream)) {
    std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  int error = errno;
  ::closedir(stream);
  if (error != 0) return path_failure(error, directory);
  return names;
}

}  // namespace protocol::os
