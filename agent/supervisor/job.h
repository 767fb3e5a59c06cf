// One job: a process in a process session of its own, its pipes or its terminal, its journal, and
// its end.
// Knows nothing of connections.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/supervisor/journal.h"
#include "protocol/os/process.h"
#include "protocol/os/pty.h"

namespace agent::supervisor {

struct JobSpec {
  std::string id;
  std::string command;  // as shown to people
  std::string origin;   // whose result is to be taken after it
  std::vector<std::string> argv;
  std::map<std::string, std::string> env;
  std::filesystem::path cwd;
  std::optional<protocol::os::WindowSize> terminal;
  bool interactive_input = true;
  bool detached = false;   // it outlives its client
  std::string fence;       // of the lock that it was started under; empty: of none
  std::string connection;  // the name of the one that it came on; empty: it has none
  std::filesystem::path journal;
  JournalLimits journal_limits;
  std::function<void()> on_finished;  // called once, before anybody who waits hears of it
  std::vector<std::string> prefix;    // what is run in its place, and is told its path and argv
  std::chrono::seconds time{0};       // how long it may take; 0: no limit
  std::filesystem::path oom_events;   // a cgroup's memory.events; empty: there is none
  // What starts it; empty: Process::start.
  std::function<result<protocol::os::Process>(const protocol::os::Spawn& spawn)> start;
};

// How long each step of an end may take.
struct EndTimes {
  std::chrono::milliseconds interrupt{5000};
  std::chrono::milliseconds terminate{2000};
  std::chrono::milliseconds leftovers{200};
};

class Job : public std::enable_shared_from_this<Job> {
 public:
  // Errors of Process::start: not_found, denied, too_large ...
  static result<std::shared_ptr<Job>> start(protocol::os::executor ex, JobSpec spec,
                                            EndTimes times = {});
  ~Job();

  const JobSpec& spec() const;
  pid_t pid() const;
  protocol::wire::JobInfo info() const;
  Journal& journal();

  // The command ended, what it left behind was ended too, and all it wrote is in the journal.
  bool finished() const;
  awaitable<void> wait_finished();

  // To the process group; on a terminal to the one in the foreground. While the job is being ended
  // INT and TERM mean: go on to the next step of that.
  void signal(int number);
  // Nobody reads its output (or its errors) any more: our end of that pipe is closed, so that
  // whoever writes there gets SIGPIPE, and nobody else. On a terminal, SIGPIPE as signal() sends
  // it.
  void close_stream(protocol::wire::FrameKind stream);
  void resize(protocol::os::WindowSize size);
  // INT, five seconds, TERM, two seconds, KILL to the whole process session. Idempotent; returns at
  // once (see wait_finished).
  void end();
  // As end(), but begins with this signal, and takes along what has left the process session and is
  // a descendant of the command still. A job that is being ended already is not signalled anew.
  void kill(int signal);
  // Once it is finished.
  const protocol::wire::Exited& exited() const;

  // Waits while the job does not read. Errc::gone when it does not any more. Calls at the same time
  // go one after the other.
  awaitable<result<void>> write_input(std::string_view bytes);
  // The end of its input; on a terminal, the key that says so.
  void end_input();

 private:
  struct State;
  Job();
  std::shared_ptr<State> state_;
};

}  // namespace agent::supervisor
