// Where the jobs of an isolated sandbox are started. Bubblewrap shuts the supervisor off from the
// box; this shuts the jobs off from the supervisor. What it works with (its socket, through which
// one could be any client, its lock, the journals, the store of snapshots) lies in one place of its
// mount namespace, and jobs get a mount namespace in which nothing is left of that place but the
// store's objects, to read: the workspace's .git borrows them.
//
// How: a thread of the supervisor has a mount namespace of its own, and no capability; what is
// started from it inherits both, at no cost per job. Jobs cannot get back by way of the supervisor
// either (/proc/1/root, ptrace, /proc/1/fd): its memory is marked as not dumpable, which the kernel
// asks for before any of these; and its helpers, git above all, keep one capability that means
// nothing in here but that jobs, which have none, may not trace them. Where the kernel can
// (Landlock, 6.12), jobs neither signal anything but jobs nor reach abstract sockets that others
// than jobs listen on, the box's.
#pragma once

#include <filesystem>
#include <memory>

#include "protocol/os/process.h"

namespace agent::supervisor {

class JobStarter {
 public:
  // Hides `place` from what is started, but for the directory `readable` in it. Requires that this
  // process has one thread, and the capabilities SYS_ADMIN and SETPCAP in its user namespace, which
  // it gives up for good. Errors name what could not be done, and then nothing may be started.
  static protocol::wire::result<std::unique_ptr<JobStarter>> make(
      const std::filesystem::path& place, const std::filesystem::path& readable);
  ~JobStarter();
  JobStarter(const JobStarter&) = delete;
  JobStarter& operator=(const JobStarter&) = delete;

  // As Process::start, which it waits for.
  protocol::wire::result<protocol::os::Process> start(const protocol::os::Spawn& spawn);

 private:
  struct State;
  explicit JobStarter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace agent::supervisor
