#include "protocol/os/flock.h"

#include <fcntl.h>
#include <sys/file.h>

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
}  // namespace

result<Fd> FileLock::open(const std::filesystem::path& file) {
  Fd fd(::open(file.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600));
  if (!fd) return errno_failure(errno, file.native());
  return fd;
}

result<bool> FileLock::take(int fd, Kind kind, const std::filesystem::path& file) {
  int outcome;
  do outcome = ::flock(fd, (kind == Kind::shared ? LOCK_SH : LOCK_EX) | LOCK_NB);
  while (outcome != 0 && errno == EINTR);
  if (outcome == 0) return true;
  if (errno == EWOULDBLOCK) return false;
  return errno_failure(errno, file.native());
}

result<FileLock> FileLock::try_lock(const std::filesystem::path& file, Kind kind) {
  auto fd = open(file);
  if (!fd) return fd.error();
  auto taken = take(fd->get(), kind, file);
  if (!taken) return taken.error();
  if (!*taken) return Failure(Errc::busy, file.native() + ": locked by another process");
  return FileLock(std::move(*fd));
}

result<FileLock> FileLock::lock(const std::filesystem::path& file, Kind kind,
                                std::optional<time_point> deadline) {
  auto fd = open(file);
  if (!fd) return fd.error();
  if (!deadline) {
    int outcome;
    do outcome = ::flock(fd->get(), kind == Kind::shared ? LOCK_SH : LOCK_EX);
    while (outcome != 0 && errno == EINTR);
    if (outcome != 0) return errno_failure(errno, file.native());
    return FileLock(std::move(*fd));
  }
  auto interval = kFirstInterval;
  for (;;) {
    auto taken = take(fd->get(), kind, file);
    if (!taken) return taken.error();
    if (*taken) return FileLock(std::move(*fd));
    if (std::chrono::steady_clock::now() >= *deadline) return timed_out(file);
    std::this_thread::sleep_for(interval);
    interval = std::min(interval * 2, kLongestInterval);
  }
}

awaitable<result<FileLock>> FileLock::lock_async(executor ex, std::filesystem::path file, Kind kind,
                                                 std::optional<time_point> deadline) {
  auto fd = open(file);
  if (!fd) co_return fd.error();
  auto interval = kFirstInterval;
  for (;;) {
    auto taken = take(fd->get(), kind, file);
    if (!taken) co_return taken.error();
    if (*taken) co_return FileLock(std::move(*fd));
    if (deadline && std::chrono::steady_clock::now() >= *deadline) co_return timed_out(file);
    co_await pause(ex, interval);
    interval = std::min(interval * 2, kLongestInterval);
  }
}

}  // namespace protocol::os
