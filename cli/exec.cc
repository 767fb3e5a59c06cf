// sandbox exec: find or make the sandbox, send the work tree, run the command, bring the changes
// back.
#include <boost/json.hpp>

#include "cli/command_runs.h"
#include "cli/interruptions.h"
#include "cli/job_records.h"
#include "cli/removal.h"
#include "cli/replace.h"
#include "cli/report.h"
#include "cli/sandbox_session.h"
#include "cli/standard_streams.h"
#include "cli/starter.h"
#include "cli/target.h"
#include "protocol/os/offload.h"
#include "protocol/os/wakeup.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr int kMostRounds = 5;  // a sandbox that is gone each time we come

// The directory in the sandbox: --cwd, else the same as here.
std::string sandbox_directory(const Arguments& arguments, const Project& project) {
  auto named = arguments.value("cwd");
  if (!named) {
    return project.subdirectory();
  }
  std::filesystem::path path = *named;
  if (path.is_absolute()) {
    path = path.lexically_normal().lexically_relative(project.root);
  }
  path = path.lexically_normal();
  if (path.empty() || *path.begin() == "..") {
    throw UserError(
        "arguments",
        "--cwd " + wire::printable(*named, 200) + " is outside of " + project.root.string(), {},
        kMisuse);
  }
  std::string text = path.string();
  while (!text.empty() && text.back() == '/') {
    text.pop_back();
  }
  return text == "." ? std::string() : text;
}

std::map<std::string, std::string> command_environment(const Context& context,
                                                       const Config& config) {
  std::map<std::string, std::string> variables = config.env;
  for (const auto& text : context.arguments.values("env")) {
    auto equals = text.find('=');
    std::string name = text.substr(0, equals);
    if (name.empty()) {
      throw UserError("arguments",
                      "--env takes NAME=VALUE or NAME, not `" + wire::printable(text, 80) + "`", {},
                      kMisuse);
    }
    if (equals != std::string::npos) {
      variables.insert_or_assign(name, text.substr(equals + 1));
    } else if (context.environment.variables.count(name) != 0) {
      variables.insert_or_assign(name, context.environment.get(name));
    }
  }
  return variables;
}

wire::Exec exec_message(const Context& context, const Target& target) {
  const Arguments& arguments = context.arguments;
  std::error_code ignored;
  wire::Exec exec;
  exec.argv = arguments.command;
  exec.env = command_environment(context, target.config);
  exec.cwd = sandbox_directory(arguments, target.project);
  exec.make_cwd =
      !arguments.has("cwd") ||
      std::filesystem::is_directory(std::filesystem::path(target.project.root) / exec.cwd, ignored);
  exec.shell = target.config.shell;
  exec.detach = arguments.has("detach");
  if (exec.detach && arguments.has("rm")) {
    throw UserError("arguments",
                    "a detached command keeps its sandbox: --detach and --rm exclude each other",
                    {}, kMisuse);
  }
  if (exec.detach && arguments.has("tty")) {
    throw UserError("arguments",
                    "a detached command has no terminal: --detach and --tty exclude "
                    "each other",
                    {}, kMisuse);
  }
  exec.interactive_input =
      !exec.detach && context.environment.stdin_open && !arguments.has("no-stdin") && has_input(0);
  if (arguments.has("tty")) {
    os::WindowSize size = command_window(context.environment);
    wire::Terminal terminal;
    std::string term = context.environment.get("TERM");
    terminal.term = term.empty() ? "xterm" : term;
    terminal.rows = size.rows;
    terminal.columns = size.columns;
    exec.terminal = terminal;
  }
  return exec;
}

// A snapshot in the making, beside the connecting.
struct Snapshotting {
  explicit Snapshotting(os::executor executor) : ended(executor) {}
  std::optional<Prepared> prepared;
  std::exception_ptr failed;
  os::Wakeup ended;

  static os::awaitable<void> take(std::shared_ptr<Snapshotting> self,
                                  boost::asio::thread_pool* pool,
                                  std::shared_ptr<protocol::sync::Origin> origin,
                                  std::string sandbox) {
    try {
      auto work = [origin, sandbox] { return prepare(*origin, sandbox); };
      Prepared prepared = co_await os::offload(*pool, std::move(work));
      self->prepared = std::move(prepared);
    } catch (...) {
      self->failed = std::current_exception();
    }
    self->ended.notify();
  }

  static os::awaitable<Prepared> result(std::shared_ptr<Snapshotting> self) {
    while (!self->prepared && !self->failed) {
      co_await self->ended.wait();
    }
    if (self->failed) {
      std::rethrow_exception(self->failed);
    }
    co_return std::move(*self->prepared);
  }
};

// Everything about one exec that outlives a round of finding its sandbox.
struct Exec {
  Context& context;
  Target target;
  wire::Exec message;
  Entry entry;
  std::string url;
  bool made = false;
  bool reset_done = false;
  std::optional<Removal> removal;     // of --rm
  std::optional<CycleOutcome> setup;  // of a sandbox that was made
};

os::awaitable<void> find_sandbox(Exec& exec, BoxStarter& starter) {
  Context& context = exec.context;
  bool reset = context.arguments.has("reset") && !exec.reset_done;
  exec.made = false;
  starter.keep_lock_for(wire::shell_join(context.arguments.command));
  if (auto id = context.arguments.value("id")) {
    if (!exec.reset_done) {
      exec.entry = co_await named_entry(context, exec.target, *id, true);
    }
    if (!reset) {
      co_return;  // also after a reset: the new one, whose id is another
    }
  }
  Resolver resolver = make_resolver(context);
  if (reset) {
    std::string id = context.arguments.value("id").value_or("");
    Replaced replaced = co_await replace_sandbox(context, exec.target, starter, id);
    exec.entry = replaced.entry;
    exec.reset_done = true;
    exec.made = true;
    co_return;
  }
  co_await adopt_detached(context, exec.target);
  ResolveRequest request = exec.target.request();
  request.wait_seconds = lock_wait(context.arguments, context.environment, request.key.box);
  Resolved resolved = co_await resolver.resolve(request, starter);
  exec.entry = resolved.entry;
  exec.made = resolved.made;
}

// --rm. The command's status stands, whatever comes of this.
os::awaitable<Removal> remove_afterwards(Context& context, SessionClient& client, Entry entry) {
  Removal removal;
  client.let_go();
  try {
    removal = co_await remove_if_idle(context, client, entry.id, {});
    if (removal.is_gone()) {
      co_await forget_sandbox(context, entry);
    }
  } catch (const UserError& error) {
    removal.outcome = Removal::Outcome::failed;
    removal.why = error.what();
  }
  co_return removal;
}

// std::nullopt: the sandbox was gone and has been forgotten, find another.
os::awaitable<std::optional<CycleOutcome>> run_once(Exec& exec, StandardStreams& streams) {
  Context& context = exec.context;
  BoxStarter starter(context, exec.target);
  co_await find_sandbox(exec, starter);
  if (!exec.made) {
    note_changed_config(context, exec.target.config, exec.entry);
  }
  if (starter.setup()) {
    exec.setup = starter.setup();
  }

  std::shared_ptr<protocol::sync::Origin> origin = starter.origin();
  if (!origin) {
    origin = co_await open_origin(context, exec.target);
  }
  auto snapshotting = std::make_shared<Snapshotting>(context.executor);
  os::spawn(context.executor, "snapshot",
            Snapshotting::take(snapshotting, &context.pool, origin, exec.entry.id));

  std::shared_ptr<Connection> connection = starter.connection();
  if (!connection) {
    connection = co_await connect(context, exec.entry.key.box);
  }
  exec.url = connection->url(exec.entry.id);
  Cycle cycle;
  cycle.prepared = co_await Snapshotting::result(snapshotting);
  std::unique_ptr<SessionClient> client = starter.take_client();
  if (!client) {
    client = co_await bind_sandbox(context, *connection, exec.entry, origin->id());
  }

  wire::LockRequested lock = lock_request(
      context, "exec", wire::shell_join(context.arguments.command), exec.entry.key.box);
  if (!starter.has_lock()) {
    cycle.lock = lock;
  }
  cycle.exec = exec.message;
  cycle.streams = &streams;
  std::string demanded = demanded_isolation(context, exec.target.config, exec.entry.key.box);
  std::optional<CycleOutcome> outcome;
  std::optional<BindFailed> gone;
  {
    Interruptions interruptions(context, *client, streams, "command",
                                exec.message.terminal.has_value());
    SignalScope scope(context.signals, [&interruptions](int signal) { interruptions(signal); });
    try {
      // Worth a round trip: nothing may run in another one.
      co_await require_isolation(context, *client, demanded);
      outcome = co_await client->run(origin, std::move(cycle));
    } catch (const BindFailed& failure) {
      gone = failure;
    }
  }
  if (gone && wire::errc_from_name(gone->failed.code) == wire::Errc::gone) {
    co_return outcome;  // ended under our feet, by a reset or stop: there may be another one now
  }
  if (gone) {
    co_await forget_if_gone(context, *client, exec.entry, *gone);
    auto forget = [origin, id = exec.entry.id] {
      origin->forget(id);
      return true;
    };
    co_await os::offload(context.pool, std::move(forget));
    co_return outcome;
  }
  if (context.arguments.has("rm") && (outcome->exited || outcome->failed)) {
    exec.removal = co_await remove_afterwards(context, *client, exec.entry);
  }
  co_await client->finish();
  co_return outcome;
}

// Where the detached job runs. Without that it runs all the same, and its box has to be named.
void remember(const Exec& exec, const std::string& job) {
  Context& context = exec.context;
  std::string command = wire::shell_join(context.arguments.command);
  try {
    remember_job(context.paths,
                 {job, exec.entry.key.box, exec.entry.id, exec.target.project.root.string(),
                  wire::printable(command, wire::kMaxTextBytes)});
  } catch (const UserError& error) {
    context.output.warn(std::string(error.what()) + ". " + error.next);
  }
}

// `error`: why the command did not run, though its sandbox is there.
void report(Exec& exec, const CycleOutcome& outcome, const UserError* error) {
  Output& output = exec.context.output;
  for (const auto& line : describe_outcome(outcome)) {
    if (line.warning) {
      output.warn(line.text);
    } else {
      output.note(line.text);
    }
  }
  if (exec.removal && !exec.removal->is_gone()) {
    output.warn("kept the sandbox " + exec.entry.id + ": " + exec.removal->why);
  }
  if (exec.context.arguments.has("open") && error == nullptr) {
    output.note(exec.url);
  }
  if (!outcome.job.empty() && !output.json()) {
    output.line(outcome.job);
    output.note("  sandbox attach " + outcome.job + "   # its output and its end");
    output.note("  sandbox kill " + outcome.job);
  }
  if (output.json()) {
    json::object answer;
    answer["RunID"] = exec.entry.id;
    answer["ExitCode"] = error != nullptr ? error->status : exit_status(outcome, exec.setup);
    answer["RunURL"] = exec.url;
    add_outcome(answer, outcome);
    add_setup(answer, exec.setup);
    if (!outcome.job.empty()) {
      answer["JobID"] = json_text(outcome.job);
    }
    if (outcome.exited) {
      answer["CommandStatus"] = command_status(*outcome.exited);
    }
    answer["Box"] = json_text(exec.entry.key.box);
    answer["Created"] = exec.made;
    answer["Fence"] = outcome.granted.fence;
    if (exec.removal) {
      answer["Removed"] = exec.removal->is_gone();
    }
    if (error != nullptr) {
      answer["Error"] = error_object(*error).at("Error");
    }
    output.json_line(answer);
  }
}

}  // namespace

os::awaitable<int> run_exec(Context& context) {
  const Arguments& arguments = context.arguments;
  if (auto id = arguments.value("reattach")) {
    int status = co_await attach_to_job(context, *id);
    co_return status;
  }
  if (arguments.has("kill") || arguments.has("kill-all")) {
    int status = co_await kill_jobs(context, arguments.value("kill"));
    co_return status;
  }
  Target target = find_target(context);
  wire::Exec message = exec_message(context, target);
  lock_wait(context.arguments, context.environment,
            target.key.box);  // misuse shows before anything is made
  if (context.arguments.has("reset") && context.arguments.has("id")) {
    co_await aim_at(context, target, *context.arguments.value("id"));
  }
  Exec exec{context, std::move(target), std::move(message), {}, {}, false, false, {}, {}};

  StandardStreams::Options options;
  options.raw = exec.message.terminal.has_value() && context.environment.stdin_is_terminal;
  options.output = context.environment.stdout_open ? 1 : -1;
  options.error = context.environment.stderr_open ? 2 : -1;
  StandardStreams streams(context.executor, context.output, options);

  std::optional<CycleOutcome> outcome;
  for (int round = 0; round < kMostRounds && !outcome; ++round) {
    outcome = co_await run_once(exec, streams);
    if (!outcome && context.arguments.has("id")) {
      throw UserError("project", "the sandbox " + exec.entry.id + " is gone",
                      "`sandbox list` shows those there are.");
    }
  }
  if (!outcome) {
    throw UserError("agent", "the sandbox is gone each time that a command comes",
                    "Does something stop it all the time?");
  }
  if (outcome->refused) {
    throw refused_error(*outcome->refused, exec.entry.key.box,
                        lock_wait(context.arguments, context.environment, exec.entry.key.box));
  }
  if (outcome->failed) {
    UserError error = failed_error(*outcome->failed, exec.entry.key.box);
    if (outcome->failed->step == "exec" && !exec.message.make_cwd) {
      error.next = "--cwd takes a directory that is here or in the sandbox.";
    }
    report(exec, *outcome, &error);
    if (!context.output.json()) {
      context.output.error(error);
    }
    co_return error.status;
  }
  if (!outcome->job.empty()) {
    remember(exec, outcome->job);
  }
  report(exec, *outcome, nullptr);
  co_return exit_status(*outcome, exec.setup);
}

}  // namespace cli
