#include "agent/supervisor/supervisor.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "agent/supervisor/connection.h"
#include "agent/supervisor/earlier_jobs.h"
#include "agent/supervisor/job_spec.h"
#include "agent/supervisor/workspace_queue.h"

namespace agent::supervisor {

namespace fs = std::filesystem;
namespace os = protocol::os;
namespace wire = protocol::wire;
using namespace std::chrono_literals;
using std::chrono::steady_clock;
using wire::Errc;
using wire::Failure;

namespace {

constexpr std::chrono::milliseconds kTidyAfter = 1min;
constexpr std::chrono::milliseconds kGoodbye = 2s;
constexpr auto kLockLimit = 1s;
constexpr auto kAsked = 50ms;  // whoever asks whether the sandbox is in use locks it for an instant
constexpr auto kOrphanPause = 20ms;  // orphans that end together are reaped together

}  // namespace

result<std::unique_ptr<Supervisor>> Supervisor::open(os::executor ex, Options options,
                                                     const OpenWorkspace& open_workspace) {
  std::unique_ptr<Supervisor> self(new Supervisor(ex, std::move(options)));
  // A child that was being started when its supervisor was killed has the lock until its program
  // begins.
  auto lock = os::FileLock::lock(self->directory_.lock(), os::FileLock::Kind::exclusive,
                                 steady_clock::now() + kLockLimit);
  if (!lock && lock.error().code == Errc::timed_out)
    return Failure(Errc::busy, self->directory_.root.native() + " has a supervisor");
  if (!lock) return lock.error();
  self->lock_ = std::move(*lock);
  if (auto made = os::make_private_directory(self->directory_.logs()); !made) return made.error();
  auto ledger = Ledger::open(self->directory_.ledger());
  if (!ledger) return ledger.error();
  self->ledger_ = std::move(*ledger);
  auto ended = end_earlier_jobs(*self->ledger_, self->directory_, self->options_.end_times);
  if (!ended) return ended.error();
  std::error_code ignored;
  if (fs::exists(self->directory_.record(), ignored))
    self->earlier_residents_ = earlier_residents(self->directory_);
  // Whatever mode its commands gave it since: the sandbox's own directory keeps others out.
  fs::path home = self->directory_.home();
  if (::mkdir(home.c_str(), 0700) != 0 && errno != EEXIST)
    return os::errno_failure(errno, home.native());
  auto workspace = open_workspace();
  if (!workspace) return workspace.error();
  self->workspace_ = std::make_unique<WorkspaceQueue>(std::move(*workspace));
  os::become_subreaper();
  auto listener = os::UnixListener::listen(ex, self->directory_.socket());
  if (!listener) return listener.error();
  self->listener_ = std::move(*listener);
  self->prune_journals();
  return self;
}

Supervisor::Supervisor(os::executor ex, Options options)
    : ex_(ex),
      options_(std::move(options)),
      directory_{options_.directory, options_.workspace, options_.home},
      changed_(ex) {
  if (options_.pid == 0) options_.pid = ::getpid();
}

Supervisor::~Supervisor() = default;

void Supervisor::begin(awaitable<void> work, const char* name) {
  ++background_;
  os::spawn(ex_, name, counted(*this, std::move(work)));
}

awaitable<void> Supervisor::counted(Supervisor& self, awaitable<void> work) {
  struct Count {
    Supervisor& supervisor;
    ~Count() {
      --supervisor.background_;
      supervisor.changed_.notify();
    }
  } count{self};
  co_await std::move(work);
}

awaitable<void> Supervisor::run() {
  child_signals_ = std::make_unique<os::SignalStream>(ex_, std::initializer_list<int>{SIGCHLD});
  auto known = workspace_->run([](protocol::sync::Workspace& w) { return w.snapshot(); });
  workspace_->known.snapshot = co_await std::move(known);
  begin(accept(), "accept");
  begin(watch_idle(), "idle");
  begin(reap_orphans(), "orphans");
  while (!stopped_) co_await changed_.wait();
  // What was queued for them, `ended` above all, still goes out.
  for (auto& [key, connection] : std::map(connections_)) connection->finish();
  auto deadline = steady_clock::now() + kGoodbye;
  bool woken = true;
  while (woken && !connections_.empty()) woken = co_await changed_.wait_until(deadline);
  for (auto& [key, connection] : std::map(connections_)) connection->close();
  child_signals_->close();
  while (!connections_.empty() || background_ > 0) co_await changed_.wait();
  int reaped = os::reap_orphans();
  (void)reaped;
}

awaitable<void> Supervisor::accept() {
  while (!stopping_) {
    auto stream = co_await listener_->accept();
    if (!stream) break;
    if (stopping_) break;
    auto connection = std::make_shared<Connection>(*this, std::move(*stream));
    connections_.emplace(connection.get(), connection);
    changed_.notify();
    begin(connection->run(), "connection");
  }
}

void Supervisor::forget(const Connection* connection) {
  connections_.erase(connection);
  changed_.notify();
}

// ---- jobs --------------------------------------------------------------------------------------

result<std::shared_ptr<Job>> Supervisor::start_job(const wire::Exec& exec,
                                                   const wire::Hello& client, std::string& notice) {
  if (stopping_) return Failure(Errc::gone, "the sandbox is being stopped");
  auto spec = make_job_spec(exec, directory_, options_.environment);
  if (!spec) return spec.error();
  if (!in_use_) {
    auto lock = os::FileLock::lock(directory_.in_use(), os::FileLock::Kind::shared,
                                   steady_clock::now() + kAsked);
    if (!lock && lock.error().code == Errc::timed_out)
      return Failure(Errc::busy, "the sandbox is being removed");
    if (!lock)
      return Failure(lock.error().code, "cannot take the session lock: " + lock.error().what);
    in_use_ = std::move(*lock);
  }
  const std::string id = os::random_hex(32);
  spec->id = id;
  spec->origin = client.origin;
  spec->fence = client.fence;
  spec->connection = client.connection;
  spec->detached = exec.detach;
  spec->journal_limits = options_.journal;
  spec->env[kJobVariable] = id;
  spec->journal = directory_.journal(id);
  spec->on_finished = [this, id] { ledger_->ended(id); };
  spec->start = options_.start_process;
  spec->time = options_.job_time;
  spec->oom_events = options_.oom_events;
  if (options_.job_limits.any()) {
    spec->prefix = {options_.limiter.native(), "limited"};
    for (auto& word : os::limit_options(options_.job_limits)) spec->prefix.push_back(word);
    spec->prefix.emplace_back("--");
  }
  bool owes = protocol::sync::is_origin(client.origin);
  auto noted = ledger_->starting(id, owes ? client.origin : std::string());
  auto job = noted ? Job::start(ex_, std::move(*spec), options_.end_times)
                   : result<std::shared_ptr<Job>>(noted.error());
  if (!job) {
    ledger_->forget(id);
    if (running_jobs().empty()) in_use_.reset();
    return job.error();
  }
  ledger_->running(id, (*job)->pid(), os::start_ticks((*job)->pid()));
  jobs_[(*job)->spec().id] = *job;
  job_order_.push_back((*job)->spec().id);
  if ((*job)->journal().lost())
    notice += std::string(notice.empty() ? "" : "; ") + "the output of this command cannot be kept";
  begin(watch_job(*job), "job watch");
  return *job;
}

awaitable<void> Supervisor::watch_job(std::shared_ptr<Job> job) {
  co_await job->wait_finished();
  if (running_jobs().empty()) in_use_.reset();
  forget_old_jobs();
  if (job->spec().detached) {
    // Nobody may be there who asks for it.
    auto taken = co_await take_owed(job->spec().origin);
    (void)taken;  // it stays owed
  }
}

bool Supervisor::follow(std::int64_t epoch) {
  if (epoch == 0) return true;
  if (epoch < epoch_) return false;
  epoch_ = epoch;
  for (auto& [key, connection] : std::map(connections_)) {
    std::int64_t other = connection->client().epoch;
    if (other != 0 && other < epoch) connection->cut();
  }
  return true;
}

awaitable<void> Supervisor::end_begun(std::string name) {
  if (name.empty()) co_return;
  for (auto& [key, connection] : std::map(connections_))
    if (connection->client().connection == name) connection->cut();
  for (auto& [id, job] : std::map(jobs_))
    if (job->spec().connection == name) job->end();
  for (auto& [id, job] : std::map(jobs_)) {
    if (job->spec().connection != name) continue;
    co_await job->wait_finished();
    std::string origin = job->spec().origin;
    auto taken = co_await take_owed(origin);
    (void)taken;  // it stays owed
  }
}

bool Supervisor::runs_under_another(const std::string& fence) const {
  return std::any_of(jobs_.begin(), jobs_.end(), [&](const auto& entry) {
    const JobSpec& spec = entry.second->spec();
    return !entry.second->finished() && !spec.fence.empty() && spec.fence != fence;
  });
}

awaitable<void> Supervisor::applied() {
  while (applying_ > 0) co_await changed_.wait();
}

// Newest first: what is beyond either limit goes, but for the latest and what still runs.
void Supervisor::forget_old_jobs() {
  std::size_t counts[2] = {0, 0};
  std::uint64_t sizes[2] = {0, 0};
  std::vector<std::string> kept;
  for (auto id = job_order_.rbegin(); id != job_order_.rend(); ++id) {
    std::error_code error;
    auto size = fs::file_size(directory_.journal(*id), error);
    std::size_t& count = counts[jobs_.at(*id)->spec().detached ? 1 : 0];
    std::uint64_t& bytes = sizes[jobs_.at(*id)->spec().detached ? 1 : 0];
    if (!error) bytes += size;
    ++count;
    bool over = count > options_.kept_journals || bytes > options_.kept_journal_bytes;
    if (count == 1 || !over || !jobs_.at(*id)->finished()) {
      kept.push_back(*id);
      continue;
    }
    fs::remove(directory_.journal(*id), error);
    jobs_.erase(*id);
  }
  job_order_.assign(kept.rbegin(), kept.rend());
}

// Those of earlier supervisors count with ours.
void Supervisor::prune_journals() {
  std::vector<std::pair<fs::file_time_type, fs::path>> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_.logs(), error)) {
    fs::path path = entry.path();
    if (path.extension() != ".log" || path.filename() == "supervisor.log") continue;
    found.emplace_back(entry.last_write_time(error), path);
  }
  std::sort(found.rbegin(), found.rend());
  std::size_t counts[2] = {0, 0};
  for (const auto& [time, path] : found) {
    auto reader = JournalReader::open(ex_, path);
    auto job = reader ? reader->job() : std::nullopt;
    if (++counts[job && job->detached ? 1 : 0] > options_.kept_journals) fs::remove(path, error);
  }
}

std::shared_ptr<Job> Supervisor::find_job(const std::string& id) const {
  auto found = jobs_.find(id);
  return found == jobs_.end() ? nullptr : found->second;
}

result<JournalReader> Supervisor::open_journal(const std::string& job) const {
  if (job.empty() || job.size() > wire::kMaxNameBytes ||
      job.find_first_not_of("0123456789abcdef") != std::string::npos)
    return Failure(Errc::not_found, "no such job");
  auto reader = JournalReader::open(ex_, directory_.journal(job));
  if (!reader && reader.error().code == Errc::not_found)
    return Failure(Errc::not_found, "no job " + job);
  return reader;
}

std::vector<wire::JobInfo> Supervisor::running_jobs() const {
  std::vector<wire::JobInfo> running;
  for (const std::string& id : job_order_)
    if (!jobs_.at(id)->finished()) running.push_back(jobs_.at(id)->info());
  return running;
}

std::vector<wire::JobInfo> Supervisor::all_jobs() const {
  std::vector<wire::JobInfo> all;
  for (const std::string& id : job_order_) all.push_back(jobs_.at(id)->info());
  for (const os::ProcessInfo& process : residents()) {
    wire::JobInfo info;
    info.command = process.name;
    info.state = "resident";
    info.pid = process.pid;
    all.push_back(std::move(info));
  }
  return all;
}

// Our own helpers share our session.
std::vector<os::ProcessInfo> Supervisor::residents() const {
  std::set<pid_t> sessions = {::getsid(0)};
  for (const auto& [id, job] : jobs_)
    if (!job->finished()) sessions.insert(job->pid());
  std::vector<os::ProcessInfo> found = os::descendants(::getpid());
  for (const os::ProcessInfo& earlier : earlier_residents_) {
    if (os::start_ticks(earlier.pid) != earlier.started) continue;
    auto family = os::descendants(earlier.pid);
    found.insert(found.end(), family.begin(), family.end());
    auto all = os::processes();
    for (const os::ProcessInfo& process : all)
      if (process.pid == earlier.pid && !process.zombie) found.push_back(process);
  }
  std::erase_if(found, [&](const os::ProcessInfo& p) { return sessions.contains(p.session); });
  return found;
}

awaitable<result<std::optional<wire::Result>>> Supervisor::take_result(std::string origin,
                                                                       std::string merged) {
  if (origin.empty()) co_return std::optional<wire::Result>();
  auto jobs = ledger_->owing_jobs(origin);
  auto work = workspace_->run(
      [origin, merged](protocol::sync::Workspace& w) -> result<std::optional<wire::Result>> {
        auto taken = w.take_result(origin);
        if (taken && !*taken) return w.unmerged(origin, merged);
        return taken;
      });
  auto taken = co_await std::move(work);
  if (taken) ledger_->taken(jobs);
  if (taken && *taken) workspace_->known.unmerged[origin] = true;
  co_return taken;
}

awaitable<result<void>> Supervisor::take_owed(std::string origin) {
  if (!is_owed(origin)) co_return result<void>();
  auto taken = co_await take_result(origin, {});
  if (!taken) {
    co_return Failure(taken.error().code,
                      "what an earlier command changed could not be kept: " + taken.error().what);
  }
  co_return result<void>();
}

awaitable<result<void>> Supervisor::take_owed_of_others(std::string origin) {
  for (const std::string& other : ledger_->owed()) {
    if (other == origin) continue;
    auto taken = co_await take_owed(other);
    if (!taken) co_return taken;
  }
  co_return result<void>();
}

// ---- the end -----------------------------------------------------------------------------------

bool Supervisor::is_idle() const { return connections_.empty() && running_jobs().empty(); }

awaitable<void> Supervisor::watch_idle() {
  auto since = steady_clock::now();
  bool tidied = false;
  while (!stopping_) {
    if (!is_idle()) {
      co_await changed_.wait();
      since = steady_clock::now();
      tidied = false;
      continue;
    }
    auto tidy_at = since + std::min(kTidyAfter, options_.idle_limit / 2);
    auto now = steady_clock::now();
    if (!tidied && now >= tidy_at) {
      tidied = true;
      auto work = workspace_->run([](protocol::sync::Workspace& workspace) { workspace.tidy(); });
      co_await std::move(work);
      continue;
    }
    if (now >= since + options_.idle_limit) {
      // A build daemon that is meant to stay keeps us: nobody else could end it.
      if (residents().empty()) break;
      since = now;
      continue;
    }
    co_await changed_.wait_until(tidied ? since + options_.idle_limit : tidy_at);
  }
  if (!stopping_) shutdown();
}

awaitable<void> Supervisor::reap_orphans() {
  for (;;) {
    int signal = co_await child_signals_->next();
    if (signal == 0) co_return;
    co_await os::pause(ex_, kOrphanPause);
    os::reap_orphans();
  }
}

void Supervisor::shutdown() {
  if (std::exchange(stopping_, true)) return;
  listener_->remove();
  listener_->close();
  changed_.notify();
  begin(end_everything(), "shutdown");
}

awaitable<void> Supervisor::shut_down() {
  shutdown();
  while (!stopped_) co_await changed_.wait();
}

awaitable<void> Supervisor::end_everything() {
  for (auto& [id, job] : std::map(jobs_)) job->end();
  for (auto& [id, job] : std::map(jobs_)) co_await job->wait_finished();
  int signal = SIGTERM;
  auto deadline = steady_clock::now() + options_.end_times.terminate;
  for (auto left = residents(); !left.empty(); left = residents()) {
    for (const os::ProcessInfo& process : left) os::signal_process(process, signal);
    if (signal == SIGTERM) {
      for (const os::ProcessInfo& process : left) os::signal_process(process, SIGCONT);
      while (!left.empty() && steady_clock::now() < deadline) {
        co_await os::pause(ex_, 10ms);
        left = residents();
      }
      signal = SIGKILL;
      deadline += 5s;
      continue;
    }
    if (steady_clock::now() > deadline) break;  // in the kernel, for good
    co_await os::pause(ex_, 10ms);
  }
  stopped_ = true;
  changed_.notify();
}

}  // namespace agent::supervisor
