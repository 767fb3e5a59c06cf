#include "protocol/os/flock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "protocol/os/wakeup.h"

namespace protocol::os {

using wire::Errc;
using wire::Failure;

namespace {
// flock has no deadline of its own, so it is asked again and again.
constexpr std::chrono::milliseconds kFirstInterval{1}, kLongestInterval{20};

Failure timed_out(const std::filesystem::path& file) {
  return Failure(Errc::timed_out, file.native() + ": locked by another process");
}

// Is the open file the one that is at this path?
bool is_at(int fd, const std::filesystem::path& file) {
  struct stat open_file {};
  struct stat found {};
  return ::fstat(fd, &open_file) == 0 && ::lstat(file.c_str(), &found) == 0 &&
         open_file.st_dev == found.st_dev && open_file.st_ino == found.st_ino;
}
}  // namespace

result<Fd> FileLock::open(const std::filesystem::path& file) {
  Fd fd(::open(file.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600));
  if (!fd) return errno_failure(errno, file.native());
  return fd;
}

result<bool> FileLock::take(Fd& fd, Kind kind, const std::filesystem::path& file) {
  int outcome;
  do outcome = ::flock(fd.get(), (kind == Kind::shared ? LOCK_SH : LOCK_EX) | LOCK_NB);
  while (outcome != 0 && errno == EINTR);
  if (outcome != 0 && errno == EWOULDBLOCK) return false;
  if (outcome != 0) return errno_failure(errno, file.native());
  if (is_at(fd.get(), file)) return true;
  fd.reset();
  return false;
}

result<FileLock> FileLock::try_lock(const std::filesystem::path& file, Kind kind) {
  for (;;) {
    auto fd = open(file);
    if (!fd) return fd.error();
    auto taken = take(*fd, kind, file);
    if (!taken) return taken.error();
    if (*taken) return FileLock(std::move(*fd));
    if (*fd) return Failure(Errc::busy, file.native() + ": locked by another process");
  }
}

result<bool> FileLock::is_held(const std::filesystem::path& file) {
  Fd fd(::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd && errno == ENOENT) return false;
  if (!fd) return errno_failure(errno, file.native());
  auto taken = take(fd, Kind::exclusive, file);
  if (!taken) return taken.error();
  return !*taken && fd;
}

// Without a deadline the kernel wakes us.
result<FileLock> FileLock::wait(const std::filesystem::path& file, Kind kind) {
  for (;;) {
    auto fd = open(file);
    if (!fd) return fd.error();
    int outcome;
    do outcome = ::flock(fd->get(), kind == Kind::shared ? LOCK_SH : LOCK_EX);
    while (outcome != 0 && errno == EINTR);
    if (outcome != 0) return errno_failure(errno, file.native());
    if (is_at(fd->get(), file)) return FileLock(std::move(*fd));
  }
}

result<FileLock> FileLock::lock(const std::filesystem::path& file, Kind kind,
                                std::optional<time_point> deadline) {
  if (!deadline) return wait(file, kind);
  auto interval = kFirstInterval;
  for (;;) {
    auto lock = try_lock(file, kind);
    if (lock || lock.error().code != Errc::busy) return lock;
    if (std::chrono::steady_clock::now() >= *deadline) return timed_out(file);
    std::this_thread::sleep_for(interval);
    interval = std::min(interval * 2, kLongestInterval);
  }
}

awaitable<result<FileLock>> FileLock::lock_async(executor ex, std::filesystem::path file, Kind kind,
                                                 std::optional<time_point> deadline) {
  auto interval = kFirstInterval;
  for (;;) {
    auto lock = try_lock(file, kind);
    if (lock || lock.error().code != Errc::busy) co_return lock;
    if (deadline && std::chrono::steady_clock::now() >= *deadline) co_return timed_out(file);
    co_await pause(ex, interval);
    interval = std::min(interval * 2, kLongestInterval);
  }
}

}  // namespace protocol::os
