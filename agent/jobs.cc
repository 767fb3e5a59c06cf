#include "agent/jobs.h"

#include <algorithm>

#include "agent/job_state.h"
#include "agent/lifetime.h"
#include "agent/log.h"
#include "protocol/os/signal_names.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

constexpr std::chrono::seconds kRetry{2};
constexpr std::size_t kShortestPrefix = 4;
// An end by INT, TERM and KILL, and its result.
constexpr std::chrono::seconds kKillLimit{60};

std::string date(std::int64_t seconds) {
  return seconds == 0 ? std::string()
                      : os::format_utc(os::Clock::system(std::chrono::seconds(seconds)));
}

}  // namespace

Jobs::Jobs(os::executor ex, const os::Clock& clock, Store& store, Locks& locks, Notices& notices,
           Supervisors& supervisors, Sandboxes& sandboxes, Lifetime& lifetime)
    : ex_(ex),
      clock_(clock),
      store_(store),
      locks_(locks),
      notices_(notices),
      supervisors_(supervisors),
      sandboxes_(sandboxes),
      lifetime_(lifetime),
      changed_(ex) {}

Jobs::~Jobs() = default;

std::int64_t Jobs::now() const { return sandboxes_.now(); }

// Counts a coroutine of this object.
class Jobs::Watching {
 public:
  explicit Watching(Jobs& jobs) : jobs_(jobs) { ++jobs_.working_; }
  ~Watching() {
    --jobs_.working_;
    jobs_.changed_.notify();
  }
  Watching(const Watching&) = delete;
  Watching& operator=(const Watching&) = delete;

 private:
  Jobs& jobs_;
};

void Jobs::start_watching(awaitable<void> work, const char* name) {
  os::spawn(ex_, name, [](Jobs& self, awaitable<void> inner) -> awaitable<void> {
    Watching watching(self);
    co_await std::move(inner);
  }(*this, std::move(work)));
}

awaitable<void> Jobs::pause(std::chrono::milliseconds time) {
  auto until = std::chrono::steady_clock::now() + time;
  bool woken = true;
  while (woken && !closing_) {
    woken = co_await changed_.wait_until(until);
  }
}

awaitable<void> Jobs::close() {
  closing_ = true;
  for (const auto& job : jobs_) {
    if (job->frames) {
      job->frames->close();
    }
  }
  changed_.notify();
  while (working_ > 0) {
    co_await changed_.wait();
  }
}

// ---- a job's life ----------------------------------------------------------------------------

awaitable<result<void>> Jobs::detach(LockOwner from, JobRecord record) {
  bool known = std::any_of(jobs_.begin(), jobs_.end(), [&](const std::shared_ptr<Job>& each) {
    return each->record.id == record.id;
  });
  if (known || !is_sandbox_id(record.id)) {
    co_return Failure(Errc::bad_input, "the sandbox's supervisor gave a job a bad id");
  }
  auto job = std::make_shared<Job>(*this, record);
  if (auto used = job->use_sandbox(); !used) {
    co_return used.error();
  }
  auto written = co_await store_.put_job(record);
  if (!written) {
    co_return written.error();
  }
  job->owner = std::make_unique<OwnLock>(locks_, *job);
  if (closing_ || !locks_.transfer(from, job->owner->id(), record.id)) {
    job->owner.reset();
    auto removed = co_await store_.remove_job(record.id);
    (void)removed;  // then the next agent finds that it has ended
    co_return Failure(Errc::gone, "its session has ended");
  }
  jobs_.push_back(job);
  log::peer("detached", {{"sandbox", record.sandbox}, {"user", record.user}, {"job", record.id}});
  start_watch(job);
  co_return result<void>();
}

void Jobs::start_watch(const std::shared_ptr<Job>& job) {
  if (!std::exchange(job->watched, true)) {
    start_watching(watch(*this, job), "job watch");
  }
}

awaitable<void> Jobs::watch(Jobs& self, std::shared_ptr<Job> job) {
  while (!self.closing_ && !job->over) {
    bool answered = co_await self.watch_once(job);
    if (!answered && !self.closing_) {
      co_await self.pause(kRetry);
    }
  }
}

// Asks the supervisor for the job's end and waits for it. False: ask again. Where no supervisor
// runs, one is started: it ends what its predecessor left, and knows its journals.
awaitable<bool> Jobs::watch_once(std::shared_ptr<Job> job) {
  if (job->sandbox_ends && !job->frames) {
    co_await finish(job, nullptr);
    co_return true;
  }
  wire::Hello hello;
  hello.version = SANDBOX_VERSION;
  auto opened = co_await supervisors_.connect(sandboxes_.directory(job->record.sandbox), hello);
  if (!opened) {
    log::peer("job_not_watched", {{"job", job->record.id}, {"error", opened.error().what}});
    co_return false;
  }
  if (closing_) {
    co_return false;
  }
  const auto& running = opened->hello.jobs;
  bool runs = std::any_of(running.begin(), running.end(), [&](const wire::JobInfo& each) {
    return each.job == job->record.id && each.state == "running";
  });
  job->frames = std::move(opened->frames);
  job->frames->send(1, wire::WatchJob{job->record.id});
  bool answered = false;
  while (!answered) {
    auto frame = co_await job->frames->read();
    if (!frame || !*frame || closing_) {
      break;
    }
    if ((*frame)->kind != wire::FrameKind::control) {
      continue;
    }
    auto message = wire::decode((*frame)->payload);
    if (!message) {
      continue;
    }
    if (const auto* exited = std::get_if<wire::Exited>(&*message)) {
      answered = true;
      co_await finish(job, exited);
    } else if (const auto* failed = std::get_if<wire::Failed>(&*message)) {
      Errc code = wire::errc_from_name(failed->code);
      // A supervisor of an older version tells by its hello alone.
      bool ended =
          code == Errc::not_found || code == Errc::gone || (code == Errc::unsupported && !runs);
      if (!ended) {
        log::peer("job_not_watched", {{"job", job->record.id}, {"error", failed->message}});
        break;
      }
      answered = true;
      co_await finish(job, nullptr);
    }
  }
  job->frames.reset();
  // Its supervisor was told to end everything, and did, when it hung up on us.
  if (!answered && job->sandbox_ends && !closing_) {
    answered = true;
    co_await finish(job, nullptr);
  }
  co_return answered;
}

// Its processes are gone and its result is taken: the lock is free, and then the record is written.
// Without `exited` nobody knows how it ended.
awaitable<void> Jobs::finish(std::shared_ptr<Job> job, const wire::Exited* exited) {
  JobRecord& record = job->record;
  record.state = exited != nullptr ? "exited" : "lost";
  record.ended_at = now();
  if (exited != nullptr && exited->signal.empty()) {
    record.status = exited->status;
  }
  if (exited != nullptr) {
    record.signal = exited->signal;
  }
  job->owner.reset();
  log::peer("job_ended", {{"sandbox", record.sandbox},
                          {"job", record.id},
                          {"state", record.state},
                          {"status", std::to_string(record.status.value_or(-1))}});
  JobRecord written = record;
  auto saved = co_await store_.put_job(std::move(written));
  (void)saved;  // then the next agent asks again how it ended
  job->use.reset();
  job->over = true;
  changed_.notify();
  lifetime_.changed().notify();
  co_await forget_old(record.sandbox);
}

awaitable<void> Jobs::forget_old(std::string sandbox) {
  std::vector<std::string> old;
  std::size_t kept = 0;
  for (auto each = jobs_.rbegin(); each != jobs_.rend(); ++each) {
    if ((*each)->over && (*each)->record.sandbox == sandbox && ++kept > kKeptPerSandbox) {
      old.push_back((*each)->record.id);
    }
  }
  std::erase_if(jobs_, [&](const std::shared_ptr<Job>& job) {
    return std::find(old.begin(), old.end(), job->record.id) != old.end();
  });
  for (const std::string& id : old) {
    auto removed = co_await store_.remove_job(id);
    (void)removed;  // then it is shown again after a restart
  }
}

// Their sandboxes' removal took their records with it.
void Jobs::forget_removed() {
  std::erase_if(jobs_, [&](const std::shared_ptr<Job>& job) {
    return job->over && !sandboxes_.owner(job->record.sandbox);
  });
}

// ---- what people ask -------------------------------------------------------------------------

std::size_t Jobs::running() const {
  return static_cast<std::size_t>(std::count_if(
      jobs_.begin(), jobs_.end(), [](const std::shared_ptr<Job>& job) { return job->runs(); }));
}

std::vector<wire::DetachedJob> Jobs::list(const std::string& user) {
  forget_removed();
  std::vector<wire::DetachedJob> all;
  for (const auto& job : jobs_) {
    const JobRecord& record = job->record;
    if (!job->runs() && record.user != user) {
      continue;
    }
    wire::DetachedJob shown;
    shown.job = record.id;
    shown.user = record.user;
    shown.scope = record.scope;
    shown.sandbox = record.user == user ? record.sandbox : std::string();
    shown.verb = record.verb;
    shown.command = wire::printable(record.command, 256);
    shown.state = record.state;
    shown.started_at = date(record.started_at);
    shown.ended_at = date(record.ended_at);
    shown.status = record.status;
    shown.signal = record.signal;
    all.push_back(std::move(shown));
  }
  return all;
}

result<std::shared_ptr<Jobs::Job>> Jobs::named(const std::string& name, const std::string& user) {
  forget_removed();
  std::vector<std::shared_ptr<Job>> matches;
  for (const auto& job : jobs_) {
    if (!job->runs() && job->record.user != user) {
      continue;
    }
    if (job->record.id == name) {
      return job;
    }
    if (name.size() >= kShortestPrefix && job->record.id.rfind(name, 0) == 0) {
      matches.push_back(job);
    }
  }
  if (matches.size() == 1) {
    return matches.front();
  }
  std::string shown = wire::printable(name, 80);
  if (matches.empty()) {
    return Failure(Errc::not_found,
                   "no job " + shown + " on this box; `sandbox jobs` shows their ids");
  }
  return Failure(Errc::refused, std::to_string(matches.size()) + " jobs begin with " + shown +
                                    "; give more of the id");
}

result<JobRecord> Jobs::find(const std::string& name, const std::string& user) {
  auto job = named(name, user);
  if (!job) {
    return job.error();
  }
  const JobRecord& record = (*job)->record;
  if (record.user != user) {
    return Failure(Errc::denied, "job " + record.id + " is " + record.user + "'s");
  }
  return record;
}

awaitable<wire::Message> Jobs::kill(wire::Kill wanted, std::string user) {
  auto failed = [](const Failure& why) {
    return wire::Message(wire::Failed{"kill", wire::name(why.code), why.what});
  };
  if (!wanted.signal.empty() && !os::signal_number(wanted.signal)) {
    co_return failed(Failure(Errc::bad_input, "\"" + wire::printable(wanted.signal, 64) +
                                                  "\" is not the name of a signal"));
  }
  std::vector<std::shared_ptr<Job>> wanted_jobs;
  if (wanted.all) {
    std::copy_if(jobs_.begin(), jobs_.end(), std::back_inserter(wanted_jobs),
                 [&](const auto& job) { return wanted.force || job->record.user == user; });
  } else {
    auto job = named(wanted.job, user);
    if (!job) {
      co_return failed(job.error());
    }
    const JobRecord& record = (*job)->record;
    if (record.user != user && !wanted.force) {
      co_return failed(Failure(Errc::denied, "job " + record.id + " is " + record.user + "'s (" +
                                                 wire::printable(record.command, 200) +
                                                 "); --force kills it all the same"));
    }
    wanted_jobs.push_back(*job);
  }
  std::erase_if(wanted_jobs, [](const auto& job) { return job->over; });
  wire::Killed killed;
  for (const auto& job : wanted_jobs) {
    const JobRecord& record = job->record;
    killed.jobs.push_back(record.id);
    log::peer("job_killed", {{"job", record.id}, {"user", user}});
    if (record.user != user) {
      store_.audit({now(), user, "kill --force", record.sandbox,
                    record.id + " of " + record.user + ": " + record.command});
      std::string text = "your job " + record.id + " (" + wire::printable(record.command, 200) +
                         ") was killed by " + user + " at " + date(now());
      co_await notices_.add(record.user, std::move(text));
    }
    std::string first = wanted.signal.empty() ? "INT" : wanted.signal;
    start_watching(end_one(*this, job, std::move(first)), "job kill");
  }
  auto deadline = std::chrono::steady_clock::now() + kKillLimit;
  auto runs = [&] {
    return std::find_if(wanted_jobs.begin(), wanted_jobs.end(),
                        [](const auto& job) { return !job->over; });
  };
  while (runs() != wanted_jobs.end() && !closing_) {
    bool woken = co_await changed_.wait_until(deadline);
    if (!woken && runs() != wanted_jobs.end()) {
      co_return failed(Failure(Errc::timed_out,
                               "job " + (*runs())->record.id + " was killed and has not ended"));
    }
  }
  if (closing_) {
    co_return failed(Failure(Errc::gone, "the agent is stopping"));
  }
  co_return killed;
}

}  // namespace agent
