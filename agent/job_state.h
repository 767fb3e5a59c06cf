// One detached job as the agent has it in memory; for the sources of Jobs.
#pragma once

#include "agent/jobs.h"
#include "agent/sandboxes.h"
#include "agent/supervisors.h"
#include "protocol/os/frame_stream.h"

namespace agent {

struct Jobs::Job : LockClient {
  Job(Jobs& of, JobRecord r) : jobs(of), record(std::move(r)) {}

  bool runs() const { return record.state == "running"; }
  // It counts as one who uses the sandbox while it runs. Errc::not_found when that is gone.
  result<void> use_sandbox();

  // It has its lock from another: it asks for none and hears of none.
  void lock_granted(const protocol::wire::Granted&) override {}
  void lock_queued(const protocol::wire::Queued&) override {}
  void lock_refused(const protocol::wire::Refused&) override {}
  void lock_lapsed() override {}
  void lock_bypassed(const protocol::wire::Holder& by) override;

  Jobs& jobs;
  JobRecord record;
  std::unique_ptr<OwnLock> owner;  // while it has the lock
  std::unique_ptr<Sandboxes::Use> use;
  std::unique_ptr<protocol::os::FrameStream> frames;  // on which its end is awaited
  bool sandbox_ends = false;
  bool watched = false;
  bool over = false;  // it has ended, and that is written down
};

}  // namespace agent
