// sandbox update: replaces the agents of installed boxes by this machine's. The whole box is locked
// first, and stays locked until its old agent has ended, so that no command can begin in between.
// What is there then outlives the agent: user locks are on the disk, detached jobs are their
// supervisors', and the new agent takes both over before it lets anybody in.
#include "cli/update.h"

#include <algorithm>
#include <boost/json.hpp>

#include "cli/boxes.h"
#include "cli/boxes_table.h"
#include "cli/command_runs.h"
#include "cli/connection.h"
#include "cli/context.h"
#include "cli/install_host.h"
#include "cli/session_client.h"
#include "cli/target.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

// With --all, so that a dead box does not cost the others much.
constexpr std::chrono::milliseconds kContactTime{6'000};

using Program = std::shared_ptr<const AgentProgram>;

UserError misuse(const std::string& message, const std::string& next = {}) {
  return UserError("arguments", message, next, kMisuse);
}

// The session that holds the box, and what it learnt. No client: the box could not be asked, and is
// updated by force.
struct Hold {
  std::shared_ptr<Connection> connection;
  std::unique_ptr<SessionClient> client;
  wire::Info info;
};

// Takes the lock of the whole box. std::nullopt: it has it. Throws UserError when the agent cannot
// be asked for it.
os::awaitable<std::optional<wire::Refused>> take(Context& context, Box box,
                                                 std::chrono::milliseconds time, Hold& hold) {
  hold.connection = co_await contact(context, box, time);
  auto session = co_await hold.connection->open_session(context.trace);
  hold.client = std::make_unique<SessionClient>(context.executor, context.pool, std::move(session),
                                                context.output);
  wire::InfoRequest question;
  wire::Message answer = co_await hold.client->ask(question);
  if (const auto* failed = std::get_if<wire::Failed>(&answer)) {
    throw UserError("agent", "the agent of the box " + box.name +
                                 " opens no session: " + wire::printable(failed->message, 400));
  }
  const auto* info = std::get_if<wire::Info>(&answer);
  if (info == nullptr) {
    throw UserError("agent", "the agent of the box " + box.name + " does not say what it is");
  }
  hold.info = *info;
  hold.client->session().start_heartbeat(std::chrono::seconds(info->ttl_seconds));
  wire::LockRequested lock = lock_request(context, "update", "sandbox update", box.name);
  lock.wait_seconds = 0;  // in CI, too
  lock.scope = ci_scope(context.environment);
  std::string failed;
  std::optional<wire::Refused> refused;
  try {
    refused = co_await hold.client->lock(lock);
  } catch (const BindFailed& error) {
    failed = error.failed.message;
  }
  if (!failed.empty()) {
    throw UserError("agent", "the box " + box.name +
                                 " cannot be locked as a whole: " + wire::printable(failed, 400));
  }
  co_return refused;
}

// The same; with --force-command an agent that answers, but cannot be asked for its lock, is
// replaced all the same: one that speaks an older protocol could not be updated otherwise.
os::awaitable<std::optional<wire::Refused>> take_or_force(Context& context, Box box,
                                                          std::chrono::milliseconds time,
                                                          Hold& hold) {
  std::optional<wire::Refused> refused;
  std::optional<UserError> failed;
  try {
    refused = co_await take(context, box, time, hold);
  } catch (const UserError& error) {
    failed = error;
  }
  if (failed && failed->origin != "agent") {
    throw *failed;
  }
  if (failed && !context.arguments.has("force-command")) {
    std::string next = failed->next + (failed->next.empty() ? "" : " ");
    throw UserError(failed->origin, failed->what(),
                    next + "With --force-command it is updated without being asked.",
                    failed->status);
  }
  if (failed) {
    hold = Hold();
    context.output.warn(std::string("sandbox: ") + failed->what() + "; updating it by force");
  }
  co_return refused;
}

// The old program is put back, because the new agent does not answer as it should. Throws.
os::awaitable<void> roll_back(Context& context, Box box, InstallHost& host, int pid,
                              std::string why) {
  HandedOver back = co_await host.hand_over(pid, true);
  std::string now;
  try {
    wire::Info info = co_await ask_info(context, box);
    now = info.agent == back.agent.agent
              ? "The one before (" + wire::printable(info.version, 64) + ") runs there again."
              : "The one before was put back, but another one answers at " + box.place() + ".";
  } catch (const UserError& error) {
    now = std::string("The one before was put back, and does not answer either: ") + error.what();
  }
  throw UserError("agent",
                  "the new agent of the box " + box.name + " does not answer as it should: " + why,
                  now);
}

// Puts the program there and lets it take over. Returns what the new agent says that it is.
os::awaitable<wire::Info> replace(Context& context, Box box, InstallHost& host, HostFacts facts,
                                  Program program, Hold& hold) {
  if (facts.sum != program->sum) {
    AgentProgram copy = *program;
    co_await host.put(std::move(copy), facts);
  }
  if (hold.client && !hold.client->session().is_open()) {
    throw UserError("box",
                    "lost the lock of the box " + box.name + " before its agent was replaced",
                    "Its agent goes on as before; try again.");
  }
  HandedOver done = co_await host.hand_over(facts.agent->pid, false);
  if (!done.why.empty()) {
    throw UserError("agent", "the new agent of the box " + box.name + " does not run: " + done.why,
                    "The one before runs there again.");
  }
  wire::Info info;
  std::string wrong;
  try {
    info = co_await ask_info(context, box);
    wrong = info.agent != facts.agent->agent ? "it is another one than before" : "";
  } catch (const UserError& error) {
    wrong = error.what();
  }
  if (!wrong.empty()) {
    co_await roll_back(context, box, host, done.agent.pid, wrong);
  }
  co_return info;
}

// That the agent at hand is the one that the scripts find there, and that they can start.
void check_installed(const Box& box, const std::string& ssh_host, const HostFacts& facts,
                     const Hold& hold) {
  std::string shown = wire::printable(ssh_host, 200);
  std::string again = "`sandbox boxes install " + box.name +
                      (ssh_host == box.name ? "" : " --host " + wire::shell_quote(ssh_host)) + "`";
  if (!facts.agent) {
    throw UserError("box", "no agent that was installed runs on " + shown,
                    again + " starts it. Nothing was changed.");
  }
  if (hold.client && facts.agent->agent != hold.info.agent) {
    throw UserError("box",
                    "the agent of the box " + box.name + " is not the one that runs on " + shown,
                    "Is the box's address another machine's? Nothing was changed.");
  }
  if (!facts.serving) {
    throw UserError("box", "the agent on " + shown + " was started by hand, not by install",
                    "End it there when nobody uses it, then " + again + ". Nothing was changed.");
  }
}

// Under the lock: looks, and replaces the agent if it has to.
os::awaitable<BoxUpdate> update_held(Context& context, Box box, Program program, Hold& hold) {
  BoxUpdate update;
  update.box = box.name;
  update.from = hold.info.version;
  update.to = hold.info.version;
  auto ssh_host = installed_host(box);
  if (!ssh_host) {
    update.outcome = UpdateOutcome::not_installed;
    co_return update;
  }
  if (hold.client && compare_versions(hold.info.version, SANDBOX_VERSION) == BoxStatus::newer) {
    update.to = SANDBOX_VERSION;
    update.outcome = UpdateOutcome::newer;
    co_return update;
  }
  InstallHost host(context, *ssh_host);
  HostFacts facts = co_await host.look();
  check_installed(box, *ssh_host, facts, hold);
  if (facts.running == program->sum) {
    update.outcome = UpdateOutcome::current;
    co_return update;
  }
  wire::Info info = co_await replace(context, box, host, facts, program, hold);
  update.to = info.version;
  update.outcome = UpdateOutcome::updated;
  co_return update;
}

// Throws UserError; `refused` gets the reason of a lock that was not granted.
os::awaitable<BoxUpdate> update_box(Context& context, Box box, Program program,
                                    std::chrono::milliseconds time,
                                    std::optional<wire::Refused>& refused) {
  Hold hold;
  refused = co_await take_or_force(context, box, time, hold);
  BoxUpdate update;
  update.box = box.name;
  if (refused) {
    update.outcome = UpdateOutcome::skipped;
    update.from = hold.info.version;
    update.why = refused_error(*refused, box.name).what();
    co_await hold.client->finish();
    co_return update;
  }
  update = co_await update_held(context, box, program, hold);
  if (hold.client && update.outcome != UpdateOutcome::updated) {
    co_await hold.client->release();
    co_await hold.client->finish();
  }
  co_return update;
}

void print(Output& output, const std::vector<BoxUpdate>& updates) {
  json::array boxes;
  for (const auto& update : updates) {
    boxes.push_back(update_json(update));
  }
  json::object answer;
  answer["Boxes"] = std::move(boxes);
  output.json_line(answer);
}

os::awaitable<int> update_one(Context& context, std::string name, Program program) {
  if (name == kLocalBox) {
    throw misuse("the box `local` is this machine's own agent, the one beside this program",
                 "One that still runs from before ends by itself when nobody uses it.");
  }
  Box box = find_box(context.paths, name);
  std::optional<wire::Refused> refused;
  BoxUpdate update = co_await update_box(context, box, program, kConnectTime, refused);
  if (refused) {
    UserError error = refused_error(*refused, box.name);
    error.next = "The agent was not touched: update never waits.";
    throw error;
  }
  if (update.outcome == UpdateOutcome::not_installed) {
    throw misuse("the box " + box.name + " was not installed from here",
                 "`sandbox boxes install " + box.name +
                     " --host SSH_HOST` makes it so. Nothing was changed.");
  }
  if (context.output.json()) {
    print(context.output, {update});
  } else {
    context.output.line(update_line(update));
  }
  co_return update.outcome == UpdateOutcome::newer ? kFailed : 0;
}

os::awaitable<int> update_all(Context& context, Program program) {
  std::vector<BoxUpdate> updates;
  int status = 0;
  for (const Box& box : read_boxes(context.paths)) {
    BoxUpdate update;
    std::optional<wire::Refused> refused;
    try {
      update = co_await update_box(context, box, program, kContactTime, refused);
    } catch (const UserError& error) {
      update.box = box.name;
      update.to = SANDBOX_VERSION;
      update.why = std::string(error.what()) + (error.next.empty() ? "" : ". ") + error.next;
      status = kFailed;
    }
    if (!context.output.json()) {
      context.output.line(update_line(update));
      if (update.outcome == UpdateOutcome::skipped) {
        context.output.note("sandbox: " + update.why);
      }
    }
    updates.push_back(update);
  }
  if (context.output.json()) {
    print(context.output, updates);
  } else if (updates.empty()) {
    context.output.line("No boxes. `sandbox boxes install NAME` installs one.");
  }
  co_return status;
}

}  // namespace

os::awaitable<int> run_update(Context& context) {
  bool all = context.arguments.has("all");
  auto named = all && !context.arguments.has("box")
                   ? std::nullopt
                   : chosen_box(context.arguments, context.environment);
  if (all && named) {
    throw misuse("--box and --all exclude each other");
  }
  if (!all && !named) {
    throw misuse("which box? --box NAME or --all is missing", "`sandbox boxes` shows them.");
  }
  AgentProgram read = co_await read_agent_program(context);
  auto program = std::make_shared<const AgentProgram>(std::move(read));
  int status = 0;
  if (all) {
    status = co_await update_all(context, program);
  } else {
    status = co_await update_one(context, *named, program);
  }
  co_return status;
}

}  // namespace cli
