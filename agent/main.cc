// The agent's program: the daemon, its supervisors and its administration, by the first argument.
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "agent/agent.h"
#include "agent/authorized_keys.h"
#include "agent/bridge.h"
#include "agent/isolation.h"
#include "agent/log.h"
#include "agent/options.h"
#include "agent/supervisor/supervisor.h"
#include "protocol/os/descriptor_limit.h"
#include "protocol/os/limits.h"
#include "protocol/os/paths.h"
#include "protocol/os/process.h"
#include "protocol/os/signals.h"
#include "protocol/wire/limits.h"

namespace {

namespace os = protocol::os;
using agent::CannotRun;

constexpr int kMisuse = 2;
constexpr int kNoLimit = 125;

std::chrono::seconds lock_ttl(const os::Environment& environment) {
  auto found = environment.find("SANDBOX_LOCK_TTL");
  if (found == environment.end() || found->second.empty()) {
    return protocol::wire::kDefaultLockTtl;
  }
  const std::string& text = found->second;
  std::int64_t seconds = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc{} || end != text.data() + text.size() || seconds < 1 ||
      seconds > 1'000'000'000) {
    throw CannotRun(kMisuse, "SANDBOX_LOCK_TTL takes seconds, 1 or more, not " + text);
  }
  return std::chrono::seconds(seconds);
}

std::optional<agent::IsolationMode> isolation(const agent::ServeOptions& options,
                                              const os::Environment& environment) {
  auto found = environment.find("SANDBOX_ISOLATION");
  if (options.isolation || found == environment.end() || found->second.empty()) {
    return options.isolation;
  }
  auto mode = agent::isolation_mode(found->second);
  if (!mode) {
    throw CannotRun(kMisuse, "SANDBOX_ISOLATION is auto, bwrap or none, not " + found->second);
  }
  return mode;
}

os::awaitable<void> stop_on_signal(std::shared_ptr<os::SignalStream> signals, agent::Agent& agent) {
  while (true) {
    int signal = co_await signals->next();
    if (signal == 0) {
      co_return;
    }
    agent::log::info("signal", {{"number", std::to_string(signal)}});
    agent.stop();
  }
}

void log_escape(const std::string& name, std::exception_ptr escaped) {
  try {
    std::rethrow_exception(std::move(escaped));
  } catch (const std::exception& e) {
    agent::log::peer("escaped", {{"in", name}, {"error", e.what()}});
  }
}

int serve(const agent::ServeOptions& options) {
  auto environment = os::environment();
  agent::AgentSettings settings;
  settings.serve = options;
  settings.serve.isolation = isolation(options, environment);
  settings.program = std::filesystem::read_symlink("/proc/self/exe");
  settings.lock_ttl = lock_ttl(environment);
  settings.notify_socket = environment["NOTIFY_SOCKET"];
  // It is for this process alone, not for what runs in sandboxes.
  ::unsetenv("NOTIFY_SOCKET");

  // A daemon outlives the terminal that it was started from.
  std::signal(SIGHUP, SIG_IGN);
  os::raise_descriptor_limit();
  os::set_escape_handler(log_escape);
  boost::asio::io_context context(1);
  agent::Agent agent(context.get_executor(), std::move(settings));
  auto signals = std::make_shared<os::SignalStream>(context.get_executor(),
                                                    std::initializer_list<int>{SIGTERM, SIGINT});
  os::spawn(context.get_executor(), "signals", stop_on_signal(signals, agent));

  std::exception_ptr failed;
  bool clean = false;
  boost::asio::co_spawn(context, agent.run(), [&](std::exception_ptr escaped, bool ended_clean) {
    failed = escaped;
    clean = ended_clean;
    signals->close();
    context.stop();
  });
  context.run();
  if (failed) {
    std::rethrow_exception(failed);
  }
  if (!clean) {
    // Something did not end, and still uses what would now be destroyed.
    std::_Exit(0);
  }
  return 0;
}

int authorize(const agent::AuthorizeOptions& options) {
  if (auto made = os::make_private_directory(options.state); !made) {
    throw CannotRun(1, "cannot use the state directory: " + made.error().what);
  }
  auto added = agent::authorize_key(options.state / "authorized_keys", options.key, options.user);
  if (!added) {
    bool misuse = added.error().code == protocol::wire::Errc::bad_input;
    throw CannotRun(misuse ? kMisuse : 1, "cannot add the key: " + added.error().what);
  }
  std::cerr << (*added ? "the key was added\n" : "the key was there already\n");
  return 0;
}

// "isolation bwrap", or "isolation none: WHY".
int probe(const agent::ProbeOptions& options) {
  auto scratch = std::filesystem::temp_directory_path() / ("sandbox-probe-" + os::random_hex(16));
  agent::Isolation::Settings settings;
  settings.exposed = options.exposed;
  settings.program = std::filesystem::read_symlink("/proc/self/exe");
  settings.scratch = scratch;
  settings.environment = os::environment();
  settings.users = [] { return std::size_t{1}; };
  auto isolation = agent::Isolation::open(std::move(settings));
  std::error_code ignored;
  std::filesystem::remove_all(scratch, ignored);
  if (!isolation) {
    throw CannotRun(1, isolation.error().what);
  }
  const std::string& why_not = isolation->why_not();
  std::cout << "isolation " << (why_not.empty() ? "bwrap" : "none: " + why_not) << "\n";
  return 0;
}

// As a shell: 127 when there is no such program, 126 when it cannot be run.
int limited(const agent::LimitedOptions& options) {
  if (auto taken = os::take_on(options.limits); !taken) {
    throw CannotRun(kNoLimit, "not run, because this cannot be had: " + taken.error().what);
  }
  std::vector<std::string> argv(options.command.begin() + 1, options.command.end());
  auto failure = os::become(options.command.front(), argv);
  throw CannotRun(failure.code == protocol::wire::Errc::not_found ? 127 : 126, failure.what);
}

int run(std::span<const std::string> arguments) {
  auto command = agent::parse_options(arguments);
  if (!command) {
    throw CannotRun(kMisuse, command.error().what + " (sandbox-agent --help shows how)");
  }
  if (const auto* options = std::get_if<agent::ServeOptions>(&*command)) {
    return serve(*options);
  }
  if (const auto* options = std::get_if<agent::AuthorizeOptions>(&*command)) {
    return authorize(*options);
  }
  if (const auto* options = std::get_if<agent::BridgeOptions>(&*command)) {
    return agent::bridge(options->state);
  }
  if (const auto* options = std::get_if<agent::ProbeOptions>(&*command)) {
    return probe(*options);
  }
  if (const auto* options = std::get_if<agent::SuperviseOptions>(&*command)) {
    agent::supervisor::Start start;
    start.directory = {options->directory, options->workspace, options->home};
    start.isolated = options->isolated;
    start.try_only = options->try_only;
    start.info_fd = options->info_fd;
    start.job_limits = options->jobs;
    start.job_seconds = options->seconds;
    start.cgroup = options->cgroup;
    return agent::supervisor::supervise(start, SANDBOX_VERSION);
  }
  if (const auto* options = std::get_if<agent::LimitedOptions>(&*command)) {
    return limited(*options);
  }
  if (std::holds_alternative<agent::HelpOptions>(*command)) {
    std::cout << agent::help_text();
  } else {
    std::cout << "sandbox-agent " << SANDBOX_VERSION << "\n";
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  os::reset_signals();
  try {
    std::vector<std::string> arguments(argv + 1, argv + argc);
    return run(arguments);
  } catch (const CannotRun& e) {
    std::cerr << "sandbox-agent: " << e.what() << "\n";
    return e.status;
  } catch (const std::exception& e) {
    std::cerr << "sandbox-agent: " << e.what() << "\n";
    return 1;
  }
}
