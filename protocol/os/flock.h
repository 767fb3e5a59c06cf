// A lock on a file that the kernel gives back when its holder dies. Advisory; between open files,
// not processes: no child inherits it (close-on-exec), and the file is made when missing (0600),
// never followed through a link and never removed. Who has a lock has it on the file that is at
// this path: when the file's directory was moved away meanwhile, the new path counts.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>

#include "protocol/os/async.h"
#include "protocol/os/fd.h"

namespace protocol::os {

class FileLock {
 public:
  enum class Kind { shared, exclusive };
  using time_point = std::chrono::steady_clock::time_point;

  // Errc::busy: somebody holds it. Errc::denied, refused (a link), not_found (no such directory).
  static result<FileLock> try_lock(const std::filesystem::path& file, Kind kind);
  // Blocks; Errc::timed_out at the deadline.
  static result<FileLock> lock(const std::filesystem::path& file, Kind kind,
                               std::optional<time_point> deadline = std::nullopt);
  // The same, waiting as a coroutine.
  static awaitable<result<FileLock>> lock_async(executor ex, std::filesystem::path file, Kind kind,
                                                std::optional<time_point> deadline = std::nullopt);

  // Does anybody hold it, in either way? Makes no file: one that is not there is free. It is asked
  // by trying to lock, so whoever tries at this very moment may be told busy: who must not be
  // turned away waits a little (lock_async). Errc::denied, refused.
  static result<bool> is_held(const std::filesystem::path& file);

  FileLock(FileLock&&) noexcept = default;
  FileLock& operator=(FileLock&&) noexcept = default;
  // The destructor gives it back.
  void release() { fd_.reset(); }
  explicit operator bool() const { return static_cast<bool>(fd_); }

 private:
  explicit FileLock(Fd fd) : fd_(std::move(fd)) {}
  static result<Fd> open(const std::filesystem::path& file);
  // False: somebody else holds it, or it is another file's by now: then `fd` is reset.
  static result<bool> take(Fd& fd, Kind kind, const std::filesystem::path& file);
  static result<FileLock> wait(const std::filesystem::path& file, Kind kind);
  Fd fd_;
};

}  // namespace protocol::os
