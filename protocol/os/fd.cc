#include "protocol/os/fd.h"

#include <fcntl.h>
#include <unistd.h>

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
