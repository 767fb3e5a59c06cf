// sandbox stop: ends sandboxes. An entry is deleted only when its own agent says that the sandbox
// has ended or is gone, or when --force gives up on a box that cannot be asked.
#include <boost/json.hpp>
#include <map>

#include "cli/boxes.h"
#include "cli/command_runs.h"
#include "cli/removal.h"
#include "cli/sandbox_session.h"
#include "cli/target.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

struct Stopped {
  Entry entry;
  bool was_running = false;
  std::optional<UserError> failed;
};

using Connections = std::map<std::string, std::shared_ptr<Connection>>;

os::awaitable<std::shared_ptr<Connection>> connected(Context& context, Connections& connections,
                                                     std::string box) {
  std::shared_ptr<Connection> connection = connections[box];
  if (!connection) {
    connection = co_await connect(context, box);
    connections[box] = connection;
  }
  co_return connection;
}

// Asks the box to end it. Returns whether it ran. Throws UserError.
os::awaitable<bool> end_on_box(Context& context, Connections& connections, Entry entry) {
  bool force = context.arguments.has("force");
  auto connection = co_await connected(context, connections, entry.key.box);
  for (const auto& id : entry.ending) {
    std::string agent;
    EndOptions by_force;  // they were replaced already
    by_force.force = true;
    auto ended = co_await end_sandbox(context, *connection, id, by_force, agent);
    if (!ended && ended.error().code != wire::Errc::not_found) {
      throw UserError("agent", "the sandbox " + id +
                                   " does not end: " + wire::printable(ended.error().what, 400));
    }
  }
  if (entry.state == EntryState::failed) {
    co_return false;
  }
  // On a box that others use, a stop is a command like every other; --force is not.
  EndOptions options;
  if (entry.key.box != kLocalBox && !force) {
    options.lock = lock_request(context, "stop", "", entry.key.box);
  }
  options.force = force || context.arguments.has("force-command");
  options.keep_unpulled = !context.arguments.has("discard");
  std::string agent;
  auto ended = co_await end_sandbox(context, *connection, entry.id, options, agent);
  if (ended) {
    co_return true;
  }
  wire::Errc code = ended.error().code;
  if (code == wire::Errc::not_found && (entry.agent.empty() || entry.agent == agent)) {
    co_return false;
  }
  if (code == wire::Errc::not_found) {
    throw another_agent(entry);
  }
  if (code == wire::Errc::refused) {
    throw unpulled_error(entry.id, ended.error().what);
  }
  if (code == wire::Errc::busy) {
    throw UserError(
        "lock",
        "the sandbox " + entry.id + " is in use: " + wire::printable(ended.error().what, 400),
        "With --force it is ended all the same.", kBusy);
  }
  throw UserError("agent", "the sandbox " + entry.id +
                               " does not end: " + wire::printable(ended.error().what, 400));
}

os::awaitable<Stopped> stop_one(Context& context, Connections& connections, Entry entry) {
  Stopped stopped;
  stopped.entry = entry;
  bool force = context.arguments.has("force");
  Resolver resolver = make_resolver(context);
  bool on_record = !entry.created_at.empty();
  if (on_record && entry.state == EntryState::starting && !force &&
      !resolver.try_lock_starter(entry.key)) {
    stopped.failed =
        UserError("lock", "the sandbox " + entry.id + " is being started by another process",
                  "Wait for it, or end it all the same with --force.", kBusy);
    co_return stopped;
  }
  try {
    stopped.was_running = co_await end_on_box(context, connections, entry);
  } catch (const UserError& error) {
    stopped.failed = error;
  }
  bool answered =
      stopped.failed && (stopped.failed->status == kBusy || stopped.failed->origin == "sync");
  if (stopped.failed && force && on_record && !answered) {
    context.output.warn(std::string(stopped.failed->what()) + "; the sandbox " + entry.id +
                        " is forgotten here");
    stopped.failed.reset();
  }
  if (stopped.failed) {
    co_return stopped;
  }
  try {
    co_await forget_sandbox(context, entry);
  } catch (const UserError& error) {
    stopped.failed = error;
  }
  co_return stopped;
}

// `failed`: why not all of them were stopped.
void print(Output& output, const std::vector<Stopped>& all,
           const std::optional<UserError>& failed) {
  if (output.json()) {
    json::array stopped;
    for (const auto& one : all) {
      if (!one.failed) {
        json::object object;
        object["RunID"] = one.entry.id;
        object["WasRunning"] = one.was_running;
        stopped.push_back(std::move(object));
      }
    }
    json::object answer;
    answer["Stopped"] = std::move(stopped);
    if (failed) {
      answer["Error"] = error_object(*failed).at("Error");
    }
    output.json_line(answer);
    return;
  }
  for (const auto& one : all) {
    if (!one.failed) {
      output.line((one.was_running ? "Stopped sandbox: " : "Sandbox was stopped already: ") +
                  one.entry.id);
    }
  }
  if (all.empty()) {
    output.line("No sandbox to stop.");
  }
}

os::awaitable<std::vector<Entry>> chosen(Context& context) {
  Resolver resolver = make_resolver(context);
  std::vector<Entry> entries;
  if (context.arguments.has("all")) {
    auto storage = co_await resolver.lock();
    std::string box = chosen_box(context.arguments, context.environment).value_or("");
    for (const auto& entry : storage->entries()) {
      bool here = entry.key.box != kLocalBox || entry.key.machine == machine_id();
      if (here && (box.empty() || box == entry.key.box)) {
        entries.push_back(entry);
      }
    }
    co_return entries;
  }
  if (auto id = context.arguments.value("id")) {
    Target nothing;  // no project is needed
    nothing.key.box = chosen_box(context.arguments, context.environment).value_or(kLocalBox);
    Entry entry = co_await named_entry(context, nothing, *id, false);
    entries.push_back(entry);
    co_return entries;
  }
  Target target = find_target(context);
  co_await adopt_detached(context, target);
  auto storage = co_await resolver.lock();
  ResolveRequest request = target.request();
  if (Entry* entry = choose(*storage, request); entry != nullptr) {
    entries.push_back(*entry);
  }
  co_return entries;
}

}  // namespace

os::awaitable<int> run_stop(Context& context) {
  if (context.arguments.has("all") && context.arguments.has("id")) {
    throw UserError("arguments", "--all and --id exclude each other", {}, kMisuse);
  }
  lock_wait(context.arguments, context.environment, kLocalBox);  // misuse shows first
  std::vector<Entry> entries = co_await chosen(context);
  Connections connections;
  std::vector<Stopped> all;
  std::optional<UserError> failed;
  for (const auto& entry : entries) {
    Stopped stopped = co_await stop_one(context, connections, entry);
    if (stopped.failed && failed) {
      context.output.warn(stopped.failed->what());
    } else if (stopped.failed) {
      failed = stopped.failed;
    }
    all.push_back(std::move(stopped));
  }
  print(context.output, all, failed);
  if (failed && !context.output.json()) {
    context.output.error(*failed);
  }
  co_return failed ? failed->status : 0;
}

}  // namespace cli
