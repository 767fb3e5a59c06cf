#include "protocol/os/beneath.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#endif

#include <array>
#include <cerrno>
#include <cstdio>
#include <random>
#include <utility>

namespace protocol::os {

using wire::Errc;
using wire::Failure;

namespace {

#if defined(O_PATH)
constexpr int kWalk = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
#elif defined(O_SEARCH)
constexpr int kWalk = O_SEARCH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
#else
constexpr int kWalk = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
#endif
#if !defined(RENAME_NOREPLACE)
#define RENAME_NOREPLACE (1 << 0)
#define RENAME_EXCHANGE (1 << 1)
#endif

std::function<int(std::string_view)>& fault() {
  static std::function<int(std::string_view)> fault;
  return fault;
}

// True, and errno set, when a test wants this call to fail.
bool faulted(std::string_view operation) {
  if (!fault()) return false;
  int error = fault()(operation);
  errno = error;
  return error != 0;
}

Failure failure(int error, std::string_view path) {
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

std::string temporary_name() {
  static thread_local std::mt19937_64 random{
      (static_cast<std::uint64_t>(std::random_device{}()) << 32) ^ std::random_device{}()};
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(random()));
  return std::string(kTemporaryPrefix) + digits;
}

// renameat2; ENOSYS where the system or the file system does not know the flags.
int rename_flags(int parent, const char* from, const char* to, unsigned flags) {
#if defined(__linux__) && defined(SYS_renameat2)
  int outcome = static_cast<int>(::syscall(SYS_renameat2, parent, from, parent, to, flags));
  if (outcome != 0 && errno == EINVAL) errno = ENOSYS;
  return outcome;
#else
  (void)parent, (void)from, (void)to, (void)flags;
  errno = ENOSYS;
  return -1;
#endif
}

std::optional<FileInfo> info_at(int parent, const std::string& name) {
  struct stat status;
  if (::fstatat(parent, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return std::nullopt;
  return file_info(status);
}

// Moves `from` to a `to` that is not there. EEXIST when it is.
int rename_new(int parent, const std::string& from, const std::string& to) {
  if (rename_flags(parent, from.c_str(), to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != ENOSYS) return -1;
  if (::linkat(parent, from.c_str(), parent, to.c_str(), 0) == 0) {
    ::unlinkat(parent, from.c_str(), 0);
    return 0;
  }
  if (errno == EEXIST) return -1;
  if (info_at(parent, to)) {  // a file system without hard links
    errno = EEXIST;
    return -1;
  }
  return ::renameat(parent, from.c_str(), parent, to.c_str());
}

}  // namespace

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

result<void> write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno_failure(errno, "write");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

result<void> copy_bytes(int from, int to) {
  std::array<char, 128 * 1024> buffer;
  for (;;) {
    ssize_t count = ::read(from, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_failure(errno, "read");
    if (count == 0) return {};
    auto written = write_all(to, std::string_view(buffer.data(), static_cast<std::size_t>(count)));
    if (!written) return written.error();
  }
}

// ---- temporary files -------------------------------------------------------------------------

TemporaryFile::TemporaryFile(Fd parent, Fd fd, std::string name)
    : parent_(std::move(parent)), fd_(std::move(fd)), name_(std::move(name)) {}

TemporaryFile::TemporaryFile(TemporaryFile&& other) noexcept
    : parent_(std::move(other.parent_)),
      fd_(std::move(other.fd_)),
      name_(std::exchange(other.name_, {})) {}

TemporaryFile& TemporaryFile::operator=(TemporaryFile&& other) noexcept {
  if (this != &other) {
    remove();
    parent_ = std::move(other.parent_);
    fd_ = std::move(other.fd_);
    name_ = std::exchange(other.name_, {});
  }
  return *this;
}

TemporaryFile::~TemporaryFile() { remove(); }

void TemporaryFile::remove() noexcept {
  if (parent_ && !name_.empty()) ::unlinkat(parent_.get(), name_.c_str(), 0);
  name_.clear();
}

result<void> TemporaryFile::write(std::string_view bytes) {
  if (faulted("write")) return errno_failure(errno, "write");
  return write_all(fd_.get(), bytes);
}

result<void> TemporaryFile::set_mode(std::uint32_t mode) {
  if (faulted("fchmod") || ::fchmod(fd_.get(), static_cast<mode_t>(mode)) != 0)
    return errno_failure(errno, "fchmod");
  return {};
}

result<void> TemporaryFile::sync() {
  if (!fd_) return {};
  if (faulted("fsync") || ::fsync(fd_.get()) != 0) return errno_failure(errno, "fsync");
  return {};
}

// ---- resolving -------------------------------------------------------------------------------

result<Beneath> Beneath::open(const std::filesystem::path& root, Way way) {
  Fd fd(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return failure(errno, root.native());
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
    if (errno != ENOSYS && errno != EPERM) return failure(errno, path);
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
    if (!next) return failure(errno, name);
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
    if (::fstat(root_.get(), &status) != 0) return failure(errno, path);
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
    return failure(errno, path);
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
    return failure(errno, path);
  Failure not_regular(Errc::refused, std::string(path) + ": not a regular file");
  if (!S_ISREG(status.st_mode)) return not_regular;
  Fd fd(::openat(place->parent.get(), name,
                 O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd) return failure(errno, path);
  if (::fstat(fd.get(), &status) != 0) return failure(errno, path);
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
    if (count < 0) return failure(errno, path);
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
  if (count < 0) return failure(errno, path);
  return std::string(buffer.data(), static_cast<std::size_t>(count));
}

result<std::vector<std::string>> Beneath::list(std::string_view directory) const {
  auto fd = open_directory(directory);
  if (!fd) return fd.error();
  DIR* stream = ::fdopendir(fd->get());
  if (!stream) return failure(errno, directory);
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
  if (error != 0) return failure(error, directory);
  return names;
}

// ---- changing --------------------------------------------------------------------------------

result<void> Beneath::make_directories(std::string_view path) const {
  if (path.empty()) return {};
  if (auto there = resolve(path, kWalk))
    return {};
  else if (there.error().code != Errc::not_found)
    return there.error();
  std::size_t slash = path.rfind('/');
  if (slash != std::string_view::npos) {
    auto above = make_directories(path.substr(0, slash));
    if (!above) return above;
  }
  auto place = locate(path);
  if (!place) return place.error();
  if (faulted("mkdir") || ::mkdirat(place->parent.get(), place->name.c_str(), 0777) != 0) {
    if (errno != EEXIST) return failure(errno, path);
    auto info = info_at(place->parent.get(), place->name);
    if (!info || info->kind != FileInfo::Kind::directory) return failure(ENOTDIR, path);
  }
  return {};
}

result<TemporaryFile> Beneath::create(std::string_view path, std::uint32_t mode) const {
  auto place = locate(path);
  if (!place) return place.error();
  for (int attempt = 0; attempt < 16; ++attempt) {
    std::string name = temporary_name();
    int fd = faulted("create") ? -1
                               : ::openat(place->parent.get(), name.c_str(),
                                          O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                                          static_cast<mode_t>(mode));
    if (fd >= 0) return TemporaryFile(std::move(place->parent), Fd(fd), std::move(name));
    if (errno != EEXIST) break;
  }
  return failure(errno, path);
}

result<TemporaryFile> Beneath::create_link(std::string_view path, const std::string& target) const {
  auto place = locate(path);
  if (!place) return place.error();
  if (target.empty() || target.find('\0') != std::string::npos)
    return Failure(Errc::bad_input, std::string(path) + ": a link to nothing");
  for (int attempt = 0; attempt < 16; ++attempt) {
    std::string name = temporary_name();
    if (!faulted("symlink") &&
        ::symlinkat(target.c_str(), place->parent.get(), name.c_str()) == 0) {
      return TemporaryFile(std::move(place->parent), Fd(), std::move(name));
    }
    if (errno != EEXIST) break;
  }
  return failure(errno, path);
}

result<void> Beneath::place(TemporaryFile file, std::string_view path) const {
  auto place = locate(path);
  if (!place) return place.error();
  if (faulted("rename") || ::renameat(file.parent_.get(), file.name_.c_str(), place->parent.get(),
                                      place->name.c_str()) != 0) {
    if (errno == EISDIR) return errno_failure(EEXIST, std::string(path));
    return failure(errno, path);
  }
  file.name_.clear();
  return {};
}

result<bool> Beneath::place(TemporaryFile file, std::string_view path,
                            const std::optional<FileInfo>& expected) const {
  // The parent may have been swapped for another directory since the file was made.
  auto place = locate(path);
  if (!place) return place.error();
  struct stat now, then;
  if (::fstat(place->parent.get(), &now) != 0 || ::fstat(file.parent_.get(), &then) != 0)
    return failure(errno, path);
  if (now.st_ino != then.st_ino || now.st_dev != then.st_dev) return false;

  int parent = place->parent.get();
  if (faulted("rename")) return failure(errno, path);
  if (!expected) {
    if (rename_new(parent, file.name_, place->name) != 0) {
      if (errno == EEXIST) return false;
      return failure(errno, path);
    }
    file.name_.clear();
    return true;
  }
  auto found = info_at(parent, place->name);
  if (!found || !found->same_content(*expected)) return false;
  if (found->kind == FileInfo::Kind::directory) return errno_failure(EEXIST, std::string(path));
  // Swapping shows what was really replaced: a change between the look and the rename is put back,
  // not lost.
  if (rename_flags(parent, file.name_.c_str(), place->name.c_str(), RENAME_EXCHANGE) == 0) {
    auto replaced = info_at(parent, file.name_);
    if (replaced && replaced->same_content(*expected))
      return true;  // the destructor removes the old one
    if (rename_flags(parent, file.name_.c_str(), place->name.c_str(), RENAME_EXCHANGE) != 0) {
      std::string kept = std::exchange(file.name_, {});
      return failure(errno, std::string(path) + " (its newest content is in " + kept + ")");
    }
    return false;
  }
  if (errno == ENOENT) return false;
  if (errno != ENOSYS) return failure(errno, path);
  if (::renameat(parent, file.name_.c_str(), parent, place->name.c_str()) != 0)
    return failure(errno, path);
  file.name_.clear();
  return true;
}

result<void> Beneath::remove_file(std::string_view path) const {
  auto place = locate(path);
  if (!place) {
    if (place.error().code == Errc::not_found) return {};
    return place.error();
  }
  if (faulted("unlink") || ::unlinkat(place->parent.get(), place->name.c_str(), 0) != 0) {
    if (errno == ENOENT) return {};
    return failure(errno, path);
  }
  return {};
}

result<bool> Beneath::remove_file(std::string_view path, const FileInfo& expected) const {
  auto place = locate(path);
  if (!place) {
    Errc code = place.error().code;
    if (code == Errc::not_found || code == Errc::refused) return false;
    return place.error();
  }
  int parent = place->parent.get();
  auto found = info_at(parent, place->name);
  if (!found || !found->same_content(expected)) return false;
  // Moved aside first: a change between the look and the removal is put back, not lost.
  std::string aside = temporary_name();
  if (faulted("unlink") || rename_new(parent, place->name, aside) != 0) {
    if (errno == ENOENT) return false;
    return failure(errno, path);
  }
  found = info_at(parent, aside);
  if (!found || !found->same_content(expected)) {
    if (rename_new(parent, aside, place->name) != 0)
      return failure(errno, std::string(path) + " (its newest content is in " + aside + ")");
    return false;
  }
  if (::unlinkat(parent, aside.c_str(), 0) != 0) return failure(errno, path);
  return true;
}

result<bool> Beneath::remove_directory(std::string_view path) const {
  auto place = locate(path);
  if (!place) {
    if (place.error().code == Errc::not_found) return true;
    return place.error();
  }
  if (faulted("rmdir") || ::unlinkat(place->parent.get(), place->name.c_str(), AT_REMOVEDIR) != 0) {
    if (errno == ENOENT) return true;
    if (errno == ENOTEMPTY || errno == EEXIST || errno == EBUSY) return false;
    return failure(errno, path);
  }
  return true;
}

result<void> Beneath::remove_all(std::string_view path) const {
  auto info = this->info(path);
  if (!info) return info.error();
  if (!*info) return {};
  if ((*info)->kind != FileInfo::Kind::directory) return remove_file(path);
  auto names = list(path);
  if (!names) return names.error();
  for (const std::string& name : *names) {
    auto removed = remove_all(path.empty() ? name : std::string(path) + "/" + name);
    if (!removed) return removed;
  }
  if (path.empty()) return {};
  auto removed = remove_directory(path);
  if (!removed) return removed.error();
  return {};
}

result<void> Beneath::rename(std::string_view from, std::string_view to) const {
  auto source = locate(from);
  if (!source) return source.error();
  auto target = locate(to);
  if (!target) return target.error();
  if (faulted("rename") || ::renameat(source->parent.get(), source->name.c_str(),
                                      target->parent.get(), target->name.c_str()) != 0)
    return failure(errno, to);
  return {};
}

result<void> Beneath::set_mode(std::string_view path, std::uint32_t mode) const {
  auto place = locate(path);
  if (!place) return place.error();
  if (faulted("chmod")) return failure(errno, path);
  const char* name = place->name.c_str();
  if (::fchmodat(place->parent.get(), name, static_cast<mode_t>(mode), AT_SYMLINK_NOFOLLOW) == 0)
    return {};
  if (errno != EOPNOTSUPP && errno != ENOSYS) return failure(errno, path);
  // A C library that does it through /proc, where there is none.
  Fd fd(::openat(place->parent.get(), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd || ::fchmod(fd.get(), static_cast<mode_t>(mode)) != 0) return failure(errno, path);
  return {};
}

result<void> Beneath::sync_directory(std::string_view path) const {
  auto fd = open_directory(path);
  if (!fd) return fd.error();
  if (faulted("fsync") || ::fsync(fd->get()) != 0) {
    if (errno == EINVAL) return {};  // some file systems cannot
    return failure(errno, path);
  }
  return {};
}

result<void> Beneath::sync_all() const {
  if (faulted("fsync")) return failure(errno, "");
#ifdef __linux__
  if (::syncfs(root_.get()) != 0) return failure(errno, "");
#else
  ::sync();
#endif
  return {};
}

void Beneath::set_fault(std::function<int(std::string_view)> fault_function) {
  fault() = std::move(fault_function);
}

}  // namespace protocol::os
