// Starting, signalling and reaping child processes. The only place that starts a program.
// posix_spawn, no fork of a big parent; children get default signal dispositions, an empty mask and
// no descriptor but those named.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/os/async.h"
#include "protocol/os/fd.h"

namespace protocol::os {

struct Spawn {
  // argv[0] is looked up in env's PATH (this process's when env is not given), unless it has a
  // slash: then it is relative to cwd. A script without `#!` is run by /bin/sh, as a shell would.
  std::vector<std::string> argv;
  std::optional<std::map<std::string, std::string>> env;  // std::nullopt: inherit
  std::string cwd;                                        // empty: ours
  int stdin_fd = -1;                                      // borrowed; -1: /dev/null
  int stdout_fd = -1;                                     // -1: /dev/null
  int stderr_fd = -1;                                     // -1: inherit ours
  std::string terminal;       // path of a pty's slave: becomes controlling terminal and fds 0-2
                              // (needs new_session)
  std::vector<int> pass_fds;  // borrowed; they are 3, 4, ... in the child
  bool new_session = false;   // setsid: its own session and process group
  bool new_group = false;     // setpgid only
};

struct ExitStatus {
  int status = 0;  // when it exited
  int signal = 0;  // when a signal ended it
  bool core_dumped = false;
  bool ok() const { return status == 0 && signal == 0; }
};

// A started child. Not reaped by the destructor: wait for it, or leave it to reap_orphans
// (subreaper.h) once this object is gone.
class Process {
 public:
  // Errc::not_found: no such program or cwd; denied: it may not be executed; too_large: its
  // arguments are too long; io.
  static result<Process> start(const Spawn& spawn);
  pid_t pid() const;
  // Errc::gone after it was reaped: its number may be somebody else's by then.
  result<void> kill(int signal);        // the process alone
  result<void> kill_group(int signal);  // its group; needs new_session or new_group
  ExitStatus wait_blocking();
  awaitable<ExitStatus> wait(executor ex);  // by pidfd
  // As wait, but leaves the process unreaped, so that its number, its group's and its session's
  // still mean it. Then reap().
  awaitable<void> exited(executor ex);
  // Requires that it has ended.
  ExitStatus reap();
  Process(Process&&) noexcept;
  Process& operator=(Process&&) noexcept;
  ~Process();

  // Tests only: waits as on a system without pidfd_open.
  static void set_portable(bool portable);

 private:
  struct State;
  explicit Process(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// What Process::start would run for argv[0]: its path, absolute or relative to cwd. Errc::not_found
// or denied, naming the program.
result<std::string> find_program(const Spawn& spawn);

// Becomes the program at that path, with this process's environment and directory. Comes back only
// with an error, as of Process::start. argv[0] is what it is told that it is called.
wire::Failure become(const std::string& program, const std::vector<std::string>& argv);

}  // namespace protocol::os
