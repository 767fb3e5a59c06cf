// One sandbox as the agent has it in memory; for the sources of Sandboxes.
#pragma once

#include <list>

#include "agent/sandboxes.h"
#include "protocol/os/frame_stream.h"
#include "protocol/os/wakeup.h"

namespace agent {

inline constexpr std::chrono::seconds kShutdownLimit{
    30};  // INT, TERM and KILL of every job, and some

struct Sandboxes::Entry {
  explicit Entry(protocol::os::executor ex) : changed(std::move(ex)) {}

  Sandbox sandbox;
  bool making = false;
  bool ending = false;
  bool deciding = false;  // whether it is removed: it is there until that is decided
  std::int64_t use_saved_at = 0;
  struct User {
    SandboxUse who;
    std::int64_t since;
    std::function<void()> on_end;
  };
  std::list<User> users;
  bool settled() const { return !making && !ending && !deciding; }
  protocol::os::Wakeup changed;  // made, ended, or a user left
};

// Reads what a supervisor says until so many `ended` have come, or it is gone: `count` is then what
// has not come.
awaitable<void> read_ended(protocol::os::FrameStream& frames, std::size_t& count);

}  // namespace agent
