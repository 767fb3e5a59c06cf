// The daemon: it puts the parts together in the order that makes a start and a stop safe, and
// serves until it is told to stop.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>

#include "agent/options.h"
#include "protocol/os/async.h"

namespace agent {

struct AgentSettings {
  ServeOptions serve;
  std::filesystem::path program;  // what supervisors are started from
  std::chrono::seconds lock_ttl{1800};
  std::chrono::milliseconds stop_grace{10000};  // for commands that run when it is told to stop
  std::string notify_socket;                    // systemd's, or empty
};

// Thrown when the agent cannot start: a sentence for stderr, and the exit status.
struct CannotRun : std::runtime_error {
  CannotRun(int exit_status, const std::string& why)
      : std::runtime_error(why), status(exit_status) {}
  int status;
};

class Agent {
 public:
  // Takes the state directory, opens the database and the host key. Blocks. Throws CannotRun: 75
  // when another agent has the directory, 1 for anything else.
  Agent(protocol::os::executor ex, AgentSettings settings);
  ~Agent();

  // Ends what an earlier agent's clients had running, listens, and serves until stop() or until it
  // was idle for long enough. Returns when nothing of it is left; false when something did not end
  // in time. Throws CannotRun when it cannot listen.
  protocol::os::awaitable<bool> run();
  // No new connections; those that wait are sent away; commands get stop_grace to end, then are
  // ended. Supervisors live on.
  void stop();

  // "127.0.0.1:4711", once run() listens; empty before.
  const std::string& address() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace agent
