// The program `sandbox-agent supervise`.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>

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

// By pid, start time and boot, together, an agent knows whether this process still is the one.
result<void> write_record(const Directory& directory, const std::string& version) {
  boost::json::object record;
  record["pid"] = ::getpid();
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

awaitable<void> shut_down_at(os::SignalStream& signals, Supervisor& supervisor) {
  for (;;) {
    int number = co_await signals.next();
    if (number == 0) co_return;
    if (number == SIGTERM) supervisor.shutdown();
  }
}

}  // namespace

int supervise(const std::filesystem::path& path, const std::string& version) {
  ::setsid();  // fails when the agent did so already
  Options options;
  options.directory = std::filesystem::absolute(path);
  options.environment = os::environment();
  options.version = version;
  Directory directory{options.directory};

  protocol::sync::WorkspaceOptions where;
  where.workspace = directory.workspace();
  where.store = directory.store();
  boost::asio::io_context context(1);
  auto ex = context.get_executor();
  auto supervisor = Supervisor::open(ex, std::move(options),
                                     [&] { return protocol::sync::Workspace::open(where); });
  if (!supervisor) return complain(supervisor.error());
  if (auto written = write_record(directory, version); !written) return complain(written.error());

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
