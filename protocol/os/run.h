// Running a small program to its end, for git and other helpers. Blocking.
#pragma once

#include <string>
#include <string_view>

#include "protocol/os/process.h"

namespace protocol::os {

// Feeds `input`, collects stdout and the end of stderr. What a daemon that it left behind writes
// later is not waited for. A stdin_fd, stdout_fd or stderr_fd in `spawn` is used as it is, and then
// not fed or collected.
// Errors of Process::start; Errc::too_large when stdout exceeds max_output (the program is killed).
struct Output {
  ExitStatus exit;
  std::string out;
  std::string err;  // last 64 KiB
};
result<Output> run(Spawn spawn, std::string_view input = {}, std::size_t max_output = 1 << 30);

}  // namespace protocol::os
