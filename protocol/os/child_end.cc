#include "protocol/os/child_end.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

namespace protocol::os {

namespace {

bool portable_waits = false;

}  // namespace

bool child_has_ended(pid_t pid) {
  siginfo_t info = {};
  int outcome = ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT);
  return outcome != 0 || info.si_pid == pid;
}

Fd open_pidfd(pid_t pid) {
#if defined(__linux__) && defined(SYS_pidfd_open)
  if (!portable_waits) {
    Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (fd) ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
    return fd;
  }
#endif
  (void)pid;
  return Fd();
}

void set_portable_waits(bool portable) { portable_waits = portable; }

}  // namespace protocol::os
