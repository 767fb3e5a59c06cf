#include "cli/starter.h"

#include <set>

#include "cli/ids.h"
#include "cli/interruptions.h"
#include "cli/report.h"
#include "cli/sandbox_session.h"
#include "cli/standard_streams.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

// What it did to the files here, as exec tells it.
void tell(Output& output, const CycleOutcome& outcome) {
  for (const auto& line : describe_outcome(outcome)) {
    if (line.warning) {
      output.warn(line.text);
    } else {
      output.note(line.text);
    }
  }
}

// What a new sandbox is to run in. The local agent has SANDBOX_ISOLATION from whoever started it,
// perhaps long ago; here it is what this command was started with. That is the user's, as the
// command line is: a project's file makes less of it only when it is trusted to.
std::string wanted_isolation(const Context& context, const Target& target) {
  std::string wanted = target.config.isolation;
  std::string ours =
      target.key.box == kLocalBox ? context.environment.get("SANDBOX_ISOLATION") : std::string();
  bool file_leaves_open = wanted == "auto" && !context.arguments.has("isolation");
  if (wanted.empty() || (file_leaves_open && ours == "bwrap")) {
    wanted = ours;
  }
  return wanted.empty() ? "auto" : wanted;
}

// What those who wait for the setup see.
std::string setup_text(const Config& config) {
  std::string text;
  for (const auto& command : config.setup) {
    text += (text.empty() ? "" : "; ") + command;
  }
  return text;
}

}  // namespace

os::awaitable<void> BoxStarter::end_replaced(const Entry& entry) {
  EndOptions by_force;
  by_force.force = true;
  for (const auto& id : entry.ending) {
    std::string agent;
    auto ended = co_await end_sandbox(context_, *connection_, id, by_force, agent);
    if (!ended && ended.error().code != wire::Errc::not_found) {
      throw UserError(
          "agent",
          "the sandbox " + id + ", which is to be replaced, does not end: " + ended.error().what,
          "Try again; `sandbox stop --force` forgets it here, whatever the box says.");
    }
  }
}

wire::LockRequested BoxStarter::setup_lock() const {
  std::string text = command_.value_or(setup_text(target_.config));
  wire::LockRequested lock = lock_request(context_, context_.verb, text, target_.key.box);
  lock.force = lock.force || context_.arguments.has("force");  // of reset
  bool said = context_.arguments.has("wait") || context_.arguments.has("no-wait");
  if (!replaced_.empty() && !said) {
    lock.wait_seconds = -1;
  }
  return lock;
}

UserError BoxStarter::refused(const wire::Refused& refused, std::int64_t wait_seconds) const {
  if (replaced_.empty()) {
    return refused_error(refused, target_.key.box, wait_seconds);
  }
  return refused_error(refused, target_.key.box, wait_seconds,
                       "The old sandbox " + replaced_ +
                           " was ended, and no new one was made: `sandbox start` makes it.");
}

void BoxStarter::note_setup(const CycleOutcome& outcome) {
  CycleOutcome all = outcome;
  if (setup_) {  // what was sent, and what the commands until now have brought back
    all.snapshot = setup_->snapshot;
    all.applied = setup_->applied;
    all.left_out.insert(all.left_out.begin(), setup_->left_out.begin(), setup_->left_out.end());
    all.merged = setup_->merged;
    append(all.merged, outcome.merged);
    for (auto lost : {&CycleOutcome::not_merged, &CycleOutcome::output_lost}) {
      if ((all.*lost).empty()) {
        all.*lost = (*setup_).*lost;
      }
    }
  }
  setup_ = std::move(all);
}

os::awaitable<void> BoxStarter::run_setup_command(std::string command, bool first, bool last) {
  wire::Exec exec;
  exec.script = command;
  exec.env = target_.config.env;
  for (const auto& [name, value] : target_.init) {
    exec.env.insert_or_assign(name, value);
  }
  exec.shell = target_.config.shell;
  exec.interactive_input = false;

  StandardStreams::Options to_stderr;
  to_stderr.input = -1;
  to_stderr.output = context_.environment.stderr_open ? 2 : -1;
  to_stderr.error = to_stderr.output;
  StandardStreams streams(context_.executor, context_.output, to_stderr);
  wire::LockRequested lock = setup_lock();
  bool gives_back = last && !command_;
  Cycle cycle;
  if (first) {
    cycle.lock = lock;
  }
  cycle.sync = first;
  cycle.release = gives_back;
  cycle.exec = exec;
  cycle.streams = &streams;
  context_.output.note("sandbox: setup: " + wire::printable(command, 200));
  Interruptions interruptions(context_, *client_, streams, "setup", false);
  CycleOutcome outcome;
  {
    SignalScope scope(context_.signals, [&interruptions](int signal) { interruptions(signal); });
    outcome = co_await client_->run(origin_, std::move(cycle));
  }
  if (outcome.refused) {
    throw refused(*outcome.refused, lock.wait_seconds);
  }
  tell(context_.output,
       outcome);  // before anything ends the sandbox, and with it what is kept there
  note_setup(outcome);
  std::string name = "the setup command `" + wire::printable(command, 200) + "`";
  std::string next = "Mend it and start again; no sandbox was left behind.";
  if (outcome.failed) {
    UserError error = failed_error(*outcome.failed, target_.key.box);
    throw UserError("setup", name + " failed: " + error.what(), next);
  }
  bool succeeded = outcome.exited && command_status(*outcome.exited) == 0;
  if (outcome.exited && !succeeded && !gives_back) {
    Cycle give_back;
    give_back.sync = false;
    CycleOutcome result = co_await client_->run(origin_, std::move(give_back));
    tell(context_.output, result);
  }
  if (interruptions.last() && !succeeded) {
    throw UserError("setup", name + " was interrupted", "No sandbox was left behind.",
                    128 + *interruptions.last());
  }
  if (outcome.exited && !outcome.exited->signal.empty()) {
    throw UserError("setup",
                    name + " was ended by SIG" + wire::printable(outcome.exited->signal, 20), next);
  }
  if (outcome.exited && outcome.exited->status != 0) {
    throw UserError("setup", name + " failed with status " + std::to_string(outcome.exited->status),
                    next);
  }
}

// What the setup changed, while the lock is kept.
os::awaitable<void> BoxStarter::bring_back() {
  CycleOutcome result = co_await client_->pull(origin_);
  if (result.failed) {
    // Then the lock went back. The result stays on the box, and the next sync meets it.
    result.not_merged = failed_error(*result.failed, target_.key.box).what();
    has_lock_ = false;
  }
  tell(context_.output, result);
  note_setup(result);
}

os::awaitable<void> BoxStarter::set_up() {
  const auto& commands = target_.config.setup;
  for (std::size_t i = 0; i < commands.size(); ++i) {
    co_await run_setup_command(commands[i], i == 0, i + 1 == commands.size());
  }
  has_lock_ = command_.has_value();
  if (!commands.empty()) {
    if (has_lock_) {
      co_await bring_back();
    }
    co_return;
  }
  // Without a command it is refused as every other is. But the local box has a lock for each
  // sandbox and no limit: there is nothing to be kept out of.
  if (!has_lock_ && target_.key.box == kLocalBox) {
    co_return;
  }
  wire::LockRequested lock = setup_lock();
  auto no = co_await take_lock(*client_, lock, target_.key.box);
  if (no) {
    throw refused(*no, lock.wait_seconds);
  }
  if (!has_lock_) {
    co_await release_lock(*client_, target_.key.box);
  }
}

os::awaitable<std::string> BoxStarter::start(const Entry& wanted) {
  Entry entry = wanted;
  client_.reset();
  if (!origin_) {
    origin_ = co_await open_origin(context_, target_);
  }
  std::optional<UserError> failed;
  try {
    if (!connection_) {
      connection_ = co_await connect(context_, entry.key.box);
    }
    co_await end_replaced(entry);
  } catch (const UserError& error) {
    failed = error;
  }
  if (failed) {
    throw StartFailed(*failed, false);  // an earlier starter may have made it
  }
  wire::Create create;
  create.sandbox = entry.id;
  create.origin = origin_->id();
  create.user = user_name(context_.environment);
  create.scope = ci_scope(context_.environment);
  create.project = entry.key.project;
  create.branch = entry.key.branch;
  create.config = entry.key.config;
  create.isolation = wanted_isolation(context_, target_);
  if (!target_.config.network.empty()) {
    create.network = target_.config.network;
  }
  create.limits = target_.config.limits;
  auto held = co_await hold_sandbox(context_, entry.id, entry.key.box);
  auto session = co_await connection_->open_session(context_.trace);
  client_ = std::make_unique<SessionClient>(context_.executor, context_.pool, std::move(session),
                                            context_.output);
  client_->keep(std::move(held));
  client_->create(create);
  wire::Bound bound;
  bool ended = false;
  try {
    bound = co_await client_->bound();
    // An earlier start may have begun it.
    std::string demanded = demanded_isolation(context_, target_.config, entry.key.box);
    co_await require_isolation(context_, *client_, demanded);
    if (bound.state != "ready") {
      co_await set_up();
    }
  } catch (const BindFailed& failure) {
    failed = failed_error(failure.failed, entry.key.box);
    ended = true;  // it was not made
  } catch (const UserError& error) {
    failed = error;
  }
  if (failed && !ended && client_->session().is_open()) {
    wire::End end;
    end.force = true;
    try {
      wire::Message answer = co_await client_->ask(end);
      ended = std::holds_alternative<wire::Ended>(answer);
    } catch (const UserError&) {
      ended = false;  // the next start ends it
    }
    if (ended) {
      origin_->forget(entry.id);
    }
  }
  if (failed) {
    throw StartFailed(*failed, ended);
  }
  if (bound.state != "ready") {
    wire::Message answer = co_await client_->ask(wire::Ready{});
    if (const auto* no = std::get_if<wire::Failed>(&answer)) {
      throw StartFailed(failed_error(*no, entry.key.box), false);
    }
    if (create.isolation == "auto" && bound.isolation == "none") {
      context_.output.note(
          "sandbox: this sandbox has no isolation: its commands can do what the "
          "agent's account on the box " +
          entry.key.box + " can; `sandbox doctor` says how to mend that");
    }
  }
  co_return bound.agent;
}

os::awaitable<std::optional<Unrecorded>> BoxStarter::find_unrecorded(
    const Entry& wanted, std::vector<std::string> on_record) {
  Entry entry = wanted;
  std::optional<Unrecorded> found;
  if (!origin_) {
    origin_ = co_await open_origin(context_, target_);
  }
  // This work tree's own store knows where it was sent: a box may have another machine's sandbox of
  // the same path. It also says when there is nobody to ask for.
  std::set<std::string> lost;
  for (auto& id : origin_->sandboxes()) {
    lost.insert(std::move(id));
  }
  for (const auto& id : on_record) {
    lost.erase(id);
  }
  if (lost.empty()) {
    co_return found;
  }
  connection_ = co_await connect(context_, entry.key.box);
  auto session = co_await connection_->open_session(context_.trace);
  SessionClient client(context_.executor, context_.pool, std::move(session), context_.output);
  wire::Message info = co_await client.ask(wire::InfoRequest{});
  wire::ListRequest request;
  request.user = user_name(context_.environment);
  wire::Message listed = co_await client.ask(request);
  const auto* agent = std::get_if<wire::Info>(&info);
  const auto* all = std::get_if<wire::Sandboxes>(&listed);
  std::string used_at;
  if (agent != nullptr && is_plain_id(agent->agent) && all != nullptr) {
    for (const auto& one : all->sandboxes) {
      if (one.state == "ready" && one.project == entry.key.project &&
          one.branch == entry.key.branch && one.config == entry.key.config &&
          lost.count(one.sandbox) != 0 && (!found || one.used_at > used_at)) {
        found = Unrecorded{one.sandbox, agent->agent};
        used_at = one.used_at;
      }
    }
  }
  client.session().close();
  if (found) {
    context_.output.warn("the box " + entry.key.box + " still has the sandbox of this project, " +
                         found->id + ": it is used again");
  }
  co_return found;
}

os::awaitable<void> BoxStarter::abandon(const Entry& entry) {
  std::string id = entry.id;
  if (connection_) {
    EndOptions by_force;
    by_force.force = true;
    std::string agent;
    auto ended = co_await end_sandbox(context_, *connection_, id, by_force, agent);
    static_cast<void>(
        ended);  // it was not wanted, and whoever stopped it has asked for its end already
  }
}

}  // namespace cli
