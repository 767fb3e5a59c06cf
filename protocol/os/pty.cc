#include "protocol/os/pty.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace protocol::os {

using wire::Errc;
using wire::Failure;

wire::result<Pty> open_pty(WindowSize size) {
  auto failed = [](int error) {
    return Failure(Errc::unsupported, errno_failure(error, "a pseudo-terminal").what);
  };
  Pty pty;
  pty.master = Fd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!pty.master) return failed(errno);
  if (::grantpt(pty.master.get()) != 0 || ::unlockpt(pty.master.get()) != 0) return failed(errno);
#ifdef __linux__
  char name[128];
  if (::ptsname_r(pty.master.get(), name, sizeof name) != 0) return failed(errno);
#else
  const char* name = ::ptsname(pty.master.get());
  if (!name) return failed(errno);
#endif
  pty.path = name;
  pty.slave = Fd(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!pty.slave) return failed(errno);
  set_window(pty.master.get(), size);
  return pty;
}

void set_window(int terminal, WindowSize size) {
  struct winsize window = {};
  window.ws_row = size.rows;
  window.ws_col = size.columns;
  ::ioctl(terminal, TIOCSWINSZ, &window);
}

std::optional<WindowSize> window(int terminal) {
  struct winsize window = {};
  if (::ioctl(terminal, TIOCGWINSZ, &window) != 0) return std::nullopt;
  WindowSize size;
  if (window.ws_row > 0) size.rows = window.ws_row;
  if (window.ws_col > 0) size.columns = window.ws_col;
  return size;
}

wire::result<RawTerminal> RawTerminal::enter(int terminal) {
  termios saved;
  if (::tcgetattr(terminal, &saved) != 0) return Failure(Errc::unsupported, "not a terminal");
  termios raw = saved;
  ::cfmakeraw(&raw);
  if (::tcsetattr(terminal, TCSADRAIN, &raw) != 0) return errno_failure(errno, "the terminal");
  return RawTerminal(terminal, saved);
}

RawTerminal::RawTerminal(RawTerminal&& other) noexcept
    : terminal_(std::exchange(other.terminal_, -1)), saved_(other.saved_) {}

RawTerminal& RawTerminal::operator=(RawTerminal&& other) noexcept {
  if (this != &other) {
    restore();
    terminal_ = std::exchange(other.terminal_, -1);
    saved_ = other.saved_;
  }
  return *this;
}

RawTerminal::~RawTerminal() { restore(); }

void RawTerminal::restore() noexcept {
  int terminal = std::exchange(terminal_, -1);
  if (terminal < 0) return;
  // Drained, or the last bytes of the command would pass through the restored settings. Once more
  // when a signal came between.
  while (::tcsetattr(terminal, TCSADRAIN, &saved_) != 0 && errno == EINTR) {
  }
}

}  // namespace protocol::os
