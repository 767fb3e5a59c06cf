// The half of Beneath that changes files, and the temporary files that it puts in place.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/fs.h>
#include <sys/syscall.h>
#endif

#include <cerrno>
#include <cstdio>
#include <random>
#include <utility>

#include "protocol/os/beneath.h"
#include "protocol/os/beneath_parts.h"

#if !defined(RENAME_NOREPLACE)
#define RENAME_NOREPLACE (1 << 0)
#define RENAME_EXCHANGE (1 << 1)
#endif

namespace protocol::os {

using wire::Errc;
using wire::Failure;

namespace {

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
    if (errno != EEXIST) return path_failure(errno, path);
    auto info = info_at(place->parent.get(), place->name);
    if (!info || info->kind != FileInfo::Kind::directory) return path_failure(ENOTDIR, path);
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
  return path_failure(errno, path);
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
  return path_failure(errno, path);
}

result<void> Beneath::place(TemporaryFile file, std::string_view path) const {
  auto place = locate(path);
  if (!place) return place.error();
  if (faulted("rename") || ::renameat(file.parent_.get(), file.name_.c_str(), place->parent.get(),
                                      place->name.c_str()) != 0) {
    if (errno == EISDIR) return errno_failure(EEXIST, std::string(path));
    return path_failure(errno, path);
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
    return path_failure(errno, path);
  if (now.st_ino != then.st_ino || now.st_dev != then.st_dev) return false;

  int parent = place->parent.get();
  if (faulted("rename")) return path_failure(errno, path);
  if (!expected) {
    if (rename_new(parent, file.name_, place->name) != 0) {
      if (errno == EEXIST) return false;
      return path_failure(errno, path);
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
      return path_failure(errno, std::string(path) + " (its newest content is in " + kept + ")");
    }
    return false;
  }
  if (errno == ENOENT) return false;
  if (errno != ENOSYS) return path_failure(errno, path);
  if (::renameat(parent, file.name_.c_str(), parent, place->name.c_str()) != 0)
    return path_failure(errno, path);
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
    return path_failure(errno, path);
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
    return path_failure(errno, path);
  }
  found = info_at(parent, aside);
  if (!found || !found->same_content(expected)) {
    if (rename_new(parent, aside, place->name) != 0)
      return path_failure(errno, std::string(path) + " (its newest content is in " + aside + ")");
    return false;
  }
  if (::unlinkat(parent, aside.c_str(), 0) != 0) return path_failure(errno, path);
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
    return path_failure(errno, path);
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
    return path_failure(errno, to);
  return {};
}

result<void> Beneath::set_mode(std::string_view path, std::uint32_t mode) const {
  if (path.empty()) {
    if (faulted("chmod") || ::fchmod(root_.get(), static_cast<mode_t>(mode)) != 0)
      return path_failure(errno, path);
    return {};
  }
  auto place = locate(path);
  if (!place) return place.error();
  if (faulted("chmod")) return path_failure(errno, path);
  const char* name = place->name.c_str();
  if (::fchmodat(place->parent.get(), name, static_cast<mode_t>(mode), AT_SYMLINK_NOFOLLOW) == 0)
    return {};
  if (errno != EOPNOTSUPP && errno != ENOSYS) return path_failure(errno, path);
  // A C library that does it through /proc, where there is none.
  Fd fd(::openat(place->parent.get(), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd || ::fchmod(fd.get(), static_cast<mode_t>(mode)) != 0) return path_failure(errno, path);
  return {};
}

result<void> Beneath::sync_directory(std::string_view path) const {
  auto fd = open_directory(path);
  if (!fd) return fd.error();
  if (faulted("fsync") || ::fsync(fd->get()) != 0) {
    if (errno == EINVAL) return {};  // some file systems cannot
    return path_failure(errno, path);
  }
  return {};
}

result<void> Beneath::sync_all() const {
  if (faulted("fsync")) return path_failure(errno, "");
#ifdef __linux__
  if (::syncfs(root_.get()) != 0) return path_failure(errno, "");
#else
  ::sync();
#endif
  return {};
}

void Beneath::set_fault(std::function<int(std::string_view)> fault_function) {
  fault() = std::move(fault_function);
}

}  // namespace protocol::os
