// Detached jobs: commands that run on without their client, each with the command lock of the
// session that started it. This keeps their records, waits for their ends, and takes them back from
// the supervisors after an agent was killed. What runs them is the sandbox's supervisor.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "agent/locks.h"
#include "agent/notices.h"
#include "agent/store.h"
#include "protocol/os/async.h"
#include "protocol/os/clock.h"
#include "protocol/os/wakeup.h"
#include "protocol/wire/messages.h"

namespace agent {

class Lifetime;
class Sandboxes;
class Supervisors;

class Jobs {
 public:
  static constexpr std::size_t kKeptPerSandbox = 20;  // records of jobs that have ended

  Jobs(protocol::os::executor ex, const protocol::os::Clock& clock, Store& store, Locks& locks,
       Notices& notices, Supervisors& supervisors, Sandboxes& sandboxes, Lifetime& lifetime);
  ~Jobs();

  // Once, after the sandboxes are loaded and before anybody is let in. Detached jobs that run get
  // their locks back; those that ended meanwhile are asked how; whatever else an earlier agent's
  // clients had running is ended, and where that cannot be done in time the sandbox is kept from
  // everybody until it is.
  awaitable<result<void>> adopt();

  // Passes the lock of `from` to this job, which runs under it, and writes that down first. When it
  // fails nothing has changed: Errc::gone when `from` has no lock (any more), or what kept it from
  // being written.
  awaitable<result<void>> detach(LockOwner from, JobRecord job);

  // The caller's, and those of others that run.
  std::vector<protocol::wire::DetachedJob> list(const std::string& user);
  // By its id or the only one that begins so. Errc::not_found; denied: somebody else's.
  result<JobRecord> find(const std::string& name, const std::string& user);
  // What to answer: killed, once they are reaped and their locks are free, or failed.
  awaitable<protocol::wire::Message> kill(protocol::wire::Kill wanted, std::string user);
  std::size_t running() const;

  // Lets go of the jobs, which run on. Nothing of this is left when it returns.
  awaitable<void> close();

 private:
  struct Job;
  class Watching;

  result<std::shared_ptr<Job>> named(const std::string& name, const std::string& user);
  void forget_removed();
  std::int64_t now() const;

  void start_watch(const std::shared_ptr<Job>& job);  // once
  static awaitable<void> watch(Jobs& self, std::shared_ptr<Job> job);
  awaitable<bool> watch_once(std::shared_ptr<Job> job);
  awaitable<void> finish(std::shared_ptr<Job> job, const protocol::wire::Exited* exited);
  awaitable<void> forget_old(std::string sandbox);
  static awaitable<void> end_one(Jobs& self, std::shared_ptr<Job> job, std::string signal);

  static awaitable<void> adopt_sandbox(Jobs& self, std::string sandbox);
  // Whether nothing but detached jobs runs in it any more. With `before`, a date, only what was
  // started until then counts.
  awaitable<bool> end_others(std::string sandbox, std::string before);
  static awaitable<void> keep_closed(Jobs& self, std::string sandbox);
  void start_watching(awaitable<void> work, const char* name);
  awaitable<void> pause(std::chrono::milliseconds time);  // ends early at close()

  protocol::os::executor ex_;
  const protocol::os::Clock& clock_;
  Store& store_;
  Locks& locks_;
  Notices& notices_;
  Supervisors& supervisors_;
  Sandboxes& sandboxes_;
  Lifetime& lifetime_;
  protocol::os::Wakeup changed_;
  std::vector<std::shared_ptr<Job>> jobs_;  // oldest first
  std::size_t working_ = 0;                 // coroutines of this object
  bool closing_ = false;
};

}  // namespace agent
