// The program `sandbox-agent supervise`.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "agent/supervisor/job_starter.h"
#include "agent/supervisor/supervisor.h"
#include "protocol/os/subreaper.h"

namespace agent::supervisor {

namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr int kCannotRun = 1;
constexpr int kBusy = 75;

int complain(const wire::Failure& failure) {
  std::fprintf(stderr, "supervisor_cannot_run code=%s what=\"%s\"\n", wire::name(failure.code),
               failure.what.c_str());
  return failure.code == wire::Errc::busy ? kBusy : kCannotRun;
}

// What bubblewrap writes before it lets this process run: {"child-pid": 123, ...}. With what it was
// given it has closed the other end.
result<std::int64_t> read_outside_pid(int number) {
  os::Fd fd(number);
  std::string text;
  char buffer[512];
  while (text.find('}') == std::string::npos) {
    ssize_t count = ::read(fd.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return os::errno_failure(errno, "what bubblewrap says");
    if (count == 0) break;
    text.append(buffer, static_cast<std::size_t>(count));
  }
  boost::system::error_code error;
  auto value = boost::json::parse(text, error);
  auto* object = error ? nullptr : value.if_object();
  auto* pid = object ? object->if_contains("child-pid") : nullptr;
  if (!pid || !pid->is_int64()) return wire::Failure(wire::Errc::io, "bubblewrap names no pid");
  return pid->get_int64();
}

// While it is there nobody has ended this supervisor in order; an agent that finds nobody listening
// knows by the boot whether something may still run of it. The rest is for people.
result<void> write_record(const Directory& directory, std::int64_t pid,
                          const std::string& version) {
  boost::json::object record;
  record["pid"] = pid;
  record["start_time"] = os::start_ticks(::getpid());
  record["boot_id"] = os::boot_id();
  record["version"] = version;
  return os::write_file(directory.record(), boost::json::serialize(record) + "\n");
}

// Whoever started us reads one line and is not held up by what we write later.
void say_ready() {
  (void)!::write(STDOUT_FILENO, "ready\n", 6);
  ::dup2(STDERR_FILENO, STDOUT_FILENO);
}

// Whether jobs can be started at all is not known before one was.
int try_job(JobStarter& jobs) {
  os::Spawn nothing;
  nothing.argv = {"/bin/sh", "-c", ":"};
  auto process = jobs.start(nothing);
  if (!process) return complain(process.error());
  os::ExitStatus exit = process->wait_blocking();
  return exit.signal != 0 ? 128 + exit.signal : exit.status;
}

awaitable<void> shut_down_at(os::SignalStream& signals, Supervisor& supervisor) {
  for (;;) {
    int number = co_await signals.next();
    if (number == 0) co_return;
    if (number == SIGTERM) supervisor.shutdown();
  }
}

}  // namespace

int supervise(const Start& start, const std::string& version) {
  ::setsid();  // fails when the agent did so already
  Options options;
  Directory directory = start.directory;
  directory.root = std::filesystem::absolute(directory.root);
  options.directory = directory.root;
  options.workspace = directory.workspace_place;
  options.home = directory.home_place;
  options.environment = os::environment();
  options.version = version;
  options.pid = ::getpid();
  options.job_limits = start.job_limits;
  options.limiter = "/proc/self/exe";  // where it lies is hidden from jobs
  options.job_time = std::chrono::seconds(start.job_seconds);
  if (!start.cgroup.empty()) options.oom_events = start.cgroup / "memory.events";
  std::unique_ptr<JobStarter> jobs;
  if (start.isolated) {
    auto objects = directory.store() / "objects";
    if (auto there = os::make_private_directory(objects); !there) return complain(there.error());
    auto made = JobStarter::make(directory.root.parent_path(), objects);
    if (!made) return complain(made.error());
    jobs = std::move(*made);
    if (start.try_only) return try_job(*jobs);
    options.start_process = [&jobs](const os::Spawn& spawn) { return jobs->start(spawn); };
  }
  if (start.info_fd >= 0) {
    auto pid = read_outside_pid(start.info_fd);
    if (!pid) return complain(pid.error());
    options.pid = *pid;
  }
  const std::int64_t pid = options.pid;

  protocol::sync::WorkspaceOptions where;
  where.workspace = directory.workspace();
  where.store = directory.store();
  boost::asio::io_context context(1);
  auto ex = context.get_executor();
  auto supervisor = Supervisor::open(ex, std::move(options),
                                     [&] { return protocol::sync::Workspace::open(where); });
  if (!supervisor) return complain(supervisor.error());
  if (auto written = write_record(directory, pid, version); !written)
    return complain(written.error());

  // A hang-up or an interrupt of whatever terminal we came from is not ours.
  os::SignalStream signals(ex, {SIGTERM, SIGHUP, SIGINT});
  os::spawn(ex, "signals", shut_down_at(signals, **supervisor));
  std::exception_ptr failed;
  boost::asio::co_spawn(context, (*supervisor)->run(), [&](std::exception_ptr escaped) {
    failed = std::move(escaped);
    signals.close();
  });
  say_ready();
  context.run();
  ::unlink(directory.record().c_str());
  if (failed) std::rethrow_exception(failed);
  return 0;
}

}  // namespace agent::supervisor
