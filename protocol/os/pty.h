// Pseudo-terminals for jobs, and this process's own terminal for a person.
#pragma once

#include <termios.h>

#include <cstdint>
#include <optional>
#include <string>

#include "protocol/os/fd.h"

namespace protocol::os {

struct WindowSize {
  std::uint16_t rows = 24, columns = 80;
};

struct Pty {
  Fd master;
  Fd slave;          // keep it until the child has started, so that the master does not see an end
  std::string path;  // of the slave, for Spawn::terminal
};
// Errc::unsupported where the system has no more of them.
wire::result<Pty> open_pty(WindowSize size);

// The foreground group gets SIGWINCH when it changes. Failures do not matter and are not told.
void set_window(int terminal, WindowSize size);
// std::nullopt: not a terminal. A terminal of 0 columns has 80, one of 0 rows 24.
std::optional<WindowSize> window(int terminal);

// While it lives, the terminal hands over every byte as it is typed (Ctrl+C too) and changes none
// on output. The destructor puts it back; so does restore(), once.
class RawTerminal {
 public:
  // Errc::unsupported: not a terminal.
  static wire::result<RawTerminal> enter(int terminal);
  RawTerminal(RawTerminal&& other) noexcept;
  RawTerminal& operator=(RawTerminal&& other) noexcept;
  ~RawTerminal();
  void restore() noexcept;

 private:
  RawTerminal(int terminal, const termios& saved) : terminal_(terminal), saved_(saved) {}
  int terminal_ = -1;
  termios saved_ = {};
};

}  // namespace protocol::os
