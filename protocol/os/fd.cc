#include "protocol/os/fd.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace protocol::os {

using wire::Errc;
using wire::Failure;

void Fd::reset() {
  // EINTR is not retried: on Linux the descriptor is gone all the same.
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

wire::result<Pipe> make_pipe() {
  int ends[2];
#ifdef __linux__
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_failure(errno, "pipe");
#else
  if (::pipe(ends) != 0) return errno_failure(errno, "pipe");
  for (int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
#endif
  return Pipe{Fd(ends[0]), Fd(ends[1])};
}

wire::result<void> write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno_failure(errno, "write");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

wire::result<void> copy_bytes(int from, int to) {
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

Failure errno_failure(int error, const std::string& what) {
  Errc code = Errc::io;
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ESRCH:
      code = Errc::not_found;
      break;
    case EEXIST:
    case ENOTEMPTY:
      code = Errc::exists;
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      code = Errc::denied;
      break;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      code = Errc::no_space;
      break;
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
    case ECONNABORTED:
    case ENOTCONN:
    case EBADF:
      code = Errc::gone;
      break;
    case ETIMEDOUT:
      code = Errc::timed_out;
      break;
    case ECANCELED:
      code = Errc::cancelled;
      break;
    case EAGAIN:
    case EBUSY:
    case EADDRINUSE:
    case ETXTBSY:
      code = Errc::busy;
      break;
    case ENOSYS:
    case EOPNOTSUPP:
      code = Errc::unsupported;
      break;
    case ENAMETOOLONG:
    case EINVAL:
      code = Errc::bad_input;
      break;
    case E2BIG:
      code = Errc::too_large;
      break;
    case ELOOP:
      code = Errc::refused;
      break;
    default:
      break;
  }
  return Failure(code, what + ": " + std::strerror(error));
}

}  // namespace protocol::os
