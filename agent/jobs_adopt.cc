// How jobs and the agent find each other: at the agent's start, and at a job's end by force.
#include <algorithm>

#include "agent/deadline.h"
#include "agent/job_state.h"
#include "agent/log.h"
#include "agent/sandbox_entry.h"
#include "protocol/wire/quoting.h"
#include "protocol/wire/scope.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;

namespace {

constexpr std::chrono::seconds kLookAgain{2};
// For jobs that ended while no agent was there: how, is in their journals.
constexpr std::chrono::seconds kSettleLimit{10};

// A sandbox in which something of an earlier agent's clients may run: nobody else is let in.
struct Orphan : LockClient {
  void lock_granted(const wire::Granted&) override {}
  void lock_queued(const wire::Queued&) override {}
  void lock_refused(const wire::Refused&) override {}
  void lock_lapsed() override {}
  void lock_bypassed(const wire::Holder&) override {}
};

}  // namespace

result<void> Jobs::Job::use_sandbox() {
  SandboxUse who;
  who.user = record.user;
  who.scope = record.scope;
  who.verb = record.verb;
  who.command = record.command;
  who.session = false;
  auto used = jobs.sandboxes_.use(record.sandbox, who, [this] {
    sandbox_ends = true;
    jobs.changed_.notify();
  });
  if (!used) {
    return used.error();
  }
  use = std::move(*used);
  return {};
}

void Jobs::Job::lock_bypassed(const wire::Holder& by) {
  std::string text = wire::shown_user(by.user, by.scope) + " was let in beside your job " +
                     record.id + " by force: " + wire::printable(by.command, 200);
  jobs.start_watching(jobs.notices_.add(record.user, std::move(text)), "job notice");
}

awaitable<result<void>> Jobs::adopt() {
  auto records = co_await store_.jobs();
  if (!records) {
    co_return records.error();
  }
  for (JobRecord& record : *records) {
    auto job = std::make_shared<Job>(*this, std::move(record));
    job->over = job->record.state != "running";
    jobs_.push_back(std::move(job));
  }
  auto left = std::make_shared<std::size_t>(0);
  for (const std::string& sandbox : sandboxes_.ids()) {
    ++*left;
    start_watching(
        [](Jobs& self, std::string id, std::shared_ptr<std::size_t> count) -> awaitable<void> {
          co_await adopt_sandbox(self, std::move(id));
          --*count;
          self.changed_.notify();
        }(*this, sandbox, left),
        "adoption");
  }
  while (*left > 0) {
    co_await changed_.wait();
  }
  // Those that no supervisor runs any more have ended.
  auto deadline = std::chrono::steady_clock::now() + kSettleLimit;
  std::vector<std::shared_ptr<Job>> asked;
  for (const auto& job : jobs_) {
    if (!job->over && !job->owner) {
      asked.push_back(job);
      start_watch(job);
    }
  }
  bool in_time = true;
  while (in_time &&
         std::any_of(asked.begin(), asked.end(), [](const auto& job) { return !job->over; })) {
    in_time = co_await changed_.wait_until(deadline);
  }
  co_return result<void>();
}

awaitable<void> Jobs::adopt_sandbox(Jobs& self, std::string sandbox) {
  bool free = co_await self.end_others(sandbox, {});
  if (!free) {
    log::warn("sandbox_kept_closed", {{"sandbox", sandbox}});
    self.start_watching(keep_closed(self, sandbox), "closed sandbox");
  }
}

awaitable<bool> Jobs::end_others(std::string sandbox, std::string before) {
  wire::Hello hello;
  hello.version = SANDBOX_VERSION;
  auto directory = sandboxes_.directory(sandbox);
  auto connection = co_await supervisors_.find(directory, hello);
  if (!connection && connection.error().code == Errc::not_found &&
      Supervisors::was_killed(directory)) {
    // What it ran may run still: its successor ends that before it says hello.
    connection = co_await supervisors_.connect(directory, hello);
  }
  if (!connection) {
    if (connection.error().code == Errc::not_found) {
      co_return true;
    }
    log::warn("supervisor_not_reached", {{"sandbox", sandbox}, {"error", connection.error().what}});
    co_return false;
  }
  os::FrameStream& frames = *connection->frames;
  std::size_t ending = 0;
  for (const wire::JobInfo& running : connection->hello.jobs) {
    if (running.state != "running" || (!before.empty() && running.started_at > before)) {
      continue;
    }
    auto known = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& job) {
      return job->record.id == running.job && job->record.sandbox == sandbox && !job->over;
    });
    if (known == jobs_.end()) {
      log::info("orphan_ended",
                {{"sandbox", sandbox}, {"job", running.job}, {"pid", std::to_string(running.pid)}});
      frames.send(0, wire::EndJob{running.job, {}});
      ++ending;
      continue;
    }
    if (!(*known)->owner) {
      const JobRecord& record = (*known)->record;
      (*known)->owner = std::make_unique<OwnLock>(locks_, **known);
      LockRequest lock;
      lock.owner = (*known)->owner->id();
      lock.sandbox = record.sandbox;
      lock.user = record.user;
      lock.scope = record.scope;
      lock.verb = record.verb;
      lock.command = record.command;
      lock.job = record.id;
      locks_.adopt(std::move(lock), record.started_at);
      auto used = (*known)->use_sandbox();
      (void)used;  // its sandbox is there, and nobody removes it yet
      log::info("job_adopted", {{"sandbox", sandbox}, {"job", record.id}});
      start_watch(*known);
    }
  }
  std::function<void()> cut = [&frames] { frames.close(); };
  co_await within(ex_, kShutdownLimit, read_ended(frames, ending), cut);
  co_return ending == 0;
}

awaitable<void> Jobs::keep_closed(Jobs& self, std::string sandbox) {
  Orphan orphan;
  OwnLock owner(self.locks_, orphan);
  LockRequest lock;
  lock.owner = owner.id();
  lock.sandbox = sandbox;
  lock.user = self.sandboxes_.owner(sandbox).value_or("");
  lock.verb = "exec";
  lock.command = "a command from before the agent's restart";
  self.locks_.adopt(std::move(lock), self.now());
  // Somebody may let himself in by force: what he runs is not touched.
  std::string before = os::format_utc(self.clock_.date());
  bool free = false;
  while (!free && !self.closing_ && self.sandboxes_.owner(sandbox)) {
    co_await self.pause(kLookAgain);
    if (!self.closing_) {
      free = co_await self.end_others(sandbox, before);
    }
  }
}

// Its end is seen, and its lock freed, by its watch.
awaitable<void> Jobs::end_one(Jobs& self, std::shared_ptr<Job> job, std::string signal) {
  wire::Hello hello;
  hello.version = SANDBOX_VERSION;
  auto connection =
      co_await self.supervisors_.find(self.sandboxes_.directory(job->record.sandbox), hello);
  if (!connection) {
    co_return;
  }
  os::FrameStream& frames = *connection->frames;
  frames.send(0, wire::EndJob{job->record.id, signal});
  std::size_t left = 1;
  std::function<void()> cut = [&frames] { frames.close(); };
  // Whoever asked waits for the watch.
  co_await within(self.ex_, kShutdownLimit, read_ended(frames, left), cut);
}

}  // namespace agent
