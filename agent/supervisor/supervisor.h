// The process inside a sandbox: runs its jobs, holds their terminals, journals and exit statuses,
// does its file and git work, dials its tunnels. The agent reaches it over a unix socket and mostly
// relays; it knows nothing of locks and trusts the agent to have asked for them. It outlives the
// agent: a job whose agent died goes on and is found again by `hello`.
//
// Wire: protocol/WIRE.md, "Agent and supervisor".
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/supervisor/directory.h"
#include "agent/supervisor/job.h"
#include "agent/supervisor/ledger.h"
#include "protocol/os/async.h"
#include "protocol/os/flock.h"
#include "protocol/os/limits.h"
#include "protocol/os/paths.h"
#include "protocol/os/signals.h"
#include "protocol/os/subreaper.h"
#include "protocol/os/unix_socket.h"
#include "protocol/os/wakeup.h"
#include "protocol/sync/workspace.h"
#include "protocol/wire/messages.h"

namespace agent::supervisor {

class Connection;
class WorkspaceQueue;

// Starts a process: Process::start, or the way into a sandbox's isolation.
using StartProcess = std::function<result<protocol::os::Process>(const protocol::os::Spawn& spawn)>;

struct Options {
  std::filesystem::path directory;        // the sandbox's; must be there
  std::filesystem::path workspace, home;  // where jobs find them; empty: in there
  protocol::os::Environment environment;  // of which PATH, LANG and the like go to jobs
  std::string version;
  std::int64_t pid = 0;        // this process's as the agent knows it; 0: as we do
  StartProcess start_process;  // of jobs; empty: Process::start
  // What jobs are held to, and the program that holds them (`limited`, options.h).
  protocol::os::ProcessLimits job_limits;
  std::filesystem::path limiter;
  std::chrono::seconds job_time{0};  // 0: no limit
  std::filesystem::path oom_events;  // a cgroup's memory.events; empty: there is none
  // Without jobs, residents and connections for that long it ends by itself.
  std::chrono::milliseconds idle_limit{std::chrono::minutes(10)};
  EndTimes end_times;
  // Of finished jobs, besides the latest one; detached ones, which people come back to, and the
  // others each for themselves.
  std::size_t kept_journals = 20;
  std::uint64_t kept_journal_bytes = 1ull << 30;
  JournalLimits journal;  // each
};

class Supervisor {
 public:
  // Opens the workspace when the sandbox is known to be ours alone and what an earlier supervisor
  // left running has ended; that may take as long as the end of a job.
  using OpenWorkspace = std::function<result<std::unique_ptr<protocol::sync::Workspace>>()>;
  // Errc::busy: the sandbox has a supervisor already. Otherwise what could not be made or opened.
  static result<std::unique_ptr<Supervisor>> open(protocol::os::executor ex, Options options,
                                                  const OpenWorkspace& open_workspace);
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // Accepts connections, listening since open(). Returns after shutdown() or when it was idle for
  // long, with every job reaped and every connection closed.
  awaitable<void> run();
  // Ends all jobs and residents, then run(). Idempotent, returns at once.
  void shutdown();

  // ---- for connections -----------------------------------------------------------------------

  protocol::os::executor executor() const { return ex_; }
  const Directory& directory() const { return directory_; }
  const Options& options() const { return options_; }
  WorkspaceQueue& workspace() { return *workspace_; }

  // From before its start it is known to whoever comes after us that the job may run, and that its
  // origin is owed a result.
  result<std::shared_ptr<Job>> start_job(const protocol::wire::Exec& exec,
                                         const protocol::wire::Hello& client, std::string& notice);
  // An agent of that epoch says hello (0: one that does not say). What came from agents before it
  // ends here and now, also what is not read yet: it may let somebody in as soon as it has its
  // answer. False: a later one was here, so this one is gone.
  bool follow(std::int64_t epoch);
  // Nothing that came on connections of that name begins any more; returns when what they began has
  // ended and its result was taken.
  awaitable<void> end_begun(std::string connection);
  // Whether a command runs that was started under another lock than this.
  bool runs_under_another(const std::string& fence) const;
  // While one lives a snapshot is being put into the workspace, and no command begins.
  class Applying {
   public:
    explicit Applying(Supervisor& supervisor) : supervisor_(supervisor) { ++supervisor_.applying_; }
    ~Applying() {
      --supervisor_.applying_;
      supervisor_.changed_.notify();
    }
    Applying(const Applying&) = delete;
    Applying& operator=(const Applying&) = delete;

   private:
    Supervisor& supervisor_;
  };
  // Returns when there is none. Start a command before anything else is awaited.
  awaitable<void> applied();
  // What the workspace holds now, kept for that origin, or what was kept for it before and is later
  // than `merged`; std::nullopt: neither, or no origin.
  awaitable<result<std::optional<protocol::wire::Result>>> take_result(std::string origin,
                                                                       std::string merged);
  // Takes what is still owed for jobs that have ended, `origin`'s or everybody else's. A failure
  // names what was in the way.
  awaitable<result<void>> take_owed(std::string origin);
  awaitable<result<void>> take_owed_of_others(std::string origin);
  bool is_owed(const std::string& origin) const { return ledger_->is_owed(origin); }
  result<JournalReader> open_journal(const std::string& job) const;
  std::shared_ptr<Job> find_job(const std::string& id) const;
  std::vector<protocol::wire::JobInfo> running_jobs() const;
  // Those, finished ones that are remembered, and residents.
  std::vector<protocol::wire::JobInfo> all_jobs() const;
  // The connection is over.
  void forget(const Connection* connection);
  // Returns when shutdown is complete but for the connections.
  awaitable<void> shut_down();

 private:
  Supervisor(protocol::os::executor ex, Options options);
  static awaitable<void> serve(Supervisor& self, std::shared_ptr<Connection> connection);
  static awaitable<void> counted(Supervisor& self, awaitable<void> work);
  void begin(awaitable<void> work, const char* name);
  awaitable<void> accept();
  awaitable<void> watch_idle();
  awaitable<void> reap_orphans();
  awaitable<void> end_everything();
  awaitable<void> watch_job(std::shared_ptr<Job> job);
  // Our descendants and an earlier supervisor's that left their job's process session on purpose.
  std::vector<protocol::os::ProcessInfo> residents() const;
  bool is_idle() const;
  void prune_journals();  // of earlier supervisors
  void forget_old_jobs();

  protocol::os::executor ex_;
  Options options_;
  Directory directory_;
  std::optional<protocol::os::FileLock> lock_;
  std::optional<protocol::os::UnixListener> listener_;
  std::optional<Ledger> ledger_;
  std::unique_ptr<WorkspaceQueue> workspace_;
  protocol::os::Wakeup changed_;
  std::map<const Connection*, std::shared_ptr<Connection>> connections_;
  std::map<std::string, std::shared_ptr<Job>> jobs_;
  std::vector<std::string> job_order_;
  std::vector<protocol::os::ProcessInfo> earlier_residents_;
  std::optional<protocol::os::FileLock> in_use_;  // shared, while a job runs
  std::unique_ptr<protocol::os::SignalStream> child_signals_;
  std::int64_t epoch_ = 0;  // the latest of an agent that said hello
  int applying_ = 0;
  int background_ = 0;     // coroutines of this object that run
  bool stopping_ = false;  // nothing new begins
  bool stopped_ = false;   // all has ended
};

// How `sandbox-agent supervise` is started.
struct Start {
  Directory directory;
  // It is the first process of bubblewrap's isolation, with the sandbox's directory and nothing
  // else of the box's beside it: jobs see neither (job_starter.h).
  bool isolated = false;
  bool try_only = false;  // ends at once, with the status of a job that does nothing
  int info_fd = -1;       // where bubblewrap says which pid this process has outside; -1: this one
  protocol::os::ProcessLimits job_limits = {};
  std::int64_t job_seconds = 0;       // 0: no limit
  std::filesystem::path cgroup = {};  // a directory with its memory.events
};

// That program: until it ends, its exit status. Writes "ready\n" to stdout once it listens and then
// lets go of it; everything else goes to stderr.
int supervise(const Start& start, const std::string& version);

}  // namespace agent::supervisor
