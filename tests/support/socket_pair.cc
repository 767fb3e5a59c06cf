#include "tests/support/socket_pair.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <system_error>

namespace test {

SocketPair make_socket_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
    throw std::system_error(errno, std::generic_category(), "socketpair");
  }
  for (int end : ends) {
    ::fcntl(end, F_SETFD, FD_CLOEXEC);
  }
  return {protocol::os::Fd(ends[0]), protocol::os::Fd(ends[1])};
}

}  // namespace test
