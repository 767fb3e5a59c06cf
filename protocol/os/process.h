// Starting, signalling and reaping child processes. The only place that starts a program. posix_spawn, no fork of a big parent;
// children get default signal dispositions, an empty mask and no descriptor but those named.
#pragma once

#include "protocol/os/async.h"
#include "protocol/os/fd.h"

#include <sys/types.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace protocol::os {

struct Spawn {
  std::vector<std::string> argv;  // argv[0] is looked up in env's PATH (this process's when env is empty)
  std::optional<std::map<std::string, std::string>> env;  // std::nullopt: inherit
  std::string cwd;                // empty: ours
  int stdin_fd = -1;              // borrowed; -1: /dev/null
  int stdout_fd = -1;             // -1: /dev/null
  int stderr_fd = -1;             // -1: inherit ours
  std::string terminal;           // path of a pty's slave: becomes controlling terminal and fds 0-2 (needs new_session)
  bool new_session = false;       // setsid: its own session and process group
  bool new_group = false;         // setpgid only
};

struct ExitStatus {
  int status = 0;      // when it exited
  int signal = 0;      // when a signal ended it
  bool core_dumped = false;
  bool ok() const { return status == 0 && signal == 0; }
};
std::string signal_name(int signal);         // "KILL"
std::optional<int> signal_number(const std::string& name);  // of "KILL" or "SIGKILL"

// A started child. Not reaped by the destructor: wait for it, or hand it to a reaper.
class Process {
 public:
  static result<Process> start(const Spawn& spawn);  // Errc::not_found: no such program; denied; io
  pid_t pid() const;
  result<void> kill(int signal);        // the process alone
  result<void> kill_group(int signal);  // its group
  ExitStatus wait_blocking();
  awaitable<ExitStatus> wait(executor ex);  // by pidfd
  Process(Process&&) noexcept;
  Process& operator=(Process&&) noexcept;
  ~Process();

 private:
  struct State;
  explicit Process(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Runs a program to its end, blocking: feeds `input`, collects stdout and the end of stderr. For git and other small helpers.
struct Output {
  ExitStatus exit;
  std::string out;
  std::string err;  // last 64 KiB
};
result<Output> run(Spawn spawn, std::string_view input = {}, std::size_t max_output = 1 << 30);

}  // namespace protocol::os
