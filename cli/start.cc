// sandbox start: this project's sandbox, made now or found.
#include <boost/json.hpp>

#include "cli/boxes.h"
#include "cli/command_runs.h"
#include "cli/report.h"
#include "cli/sandbox_session.h"
#include "cli/starter.h"
#include "cli/target.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr int kMostRounds = 5;

struct Found {
  Entry entry;
  std::string url;
  std::string status;  // ready, starting
  bool made = false;
  std::optional<CycleOutcome> setup;  // of one that was made
};

// Is the entry's sandbox still there? Says so, or forgets it.
os::awaitable<bool> still_there(Context& context, Connection& connection, const Entry& entry,
                                const Config& config) {
  Entry asked = entry;
  std::string demanded = demanded_isolation(context, config, asked.key.box);
  auto client = co_await bind_sandbox(context, connection, asked, std::string(kNoOrigin));
  std::optional<BindFailed> gone;
  try {
    co_await client->bound();
    co_await require_isolation(context, *client, demanded);
  } catch (const BindFailed& failure) {
    gone = failure;
  }
  if (gone) {
    co_await forget_if_gone(context, *client, asked, *gone);
    co_return false;
  }
  co_await take_and_release(context, *client, "start", asked.key.box);
  co_await client->finish();
  co_return true;
}

// --id: an existing sandbox becomes the one of this project and branch.
os::awaitable<Found> adopt(Context& context, const Target& target, std::string id) {
  Entry entry = co_await named_entry(context, target, id, true);
  auto connection = co_await connect(context, entry.key.box);
  auto client = co_await bind_sandbox(context, *connection, entry, std::string(kNoOrigin));
  std::optional<wire::Failed> failed;
  wire::Bound bound;
  try {
    bound = co_await client->bound();
  } catch (const BindFailed& failure) {
    failed = failure.failed;
  }
  if (failed) {
    throw UserError("agent", "there is no sandbox " + entry.id + " on the box " + entry.key.box,
                    "`sandbox list` shows them.");
  }
  std::string demanded = demanded_isolation(context, target.config, entry.key.box);
  co_await require_isolation(context, *client, demanded);
  co_await take_and_release(context, *client, "start", entry.key.box);
  co_await client->finish();
  Resolver resolver = make_resolver(context);
  auto storage = co_await resolver.lock();
  Entry* here = storage->find(target.key);
  if (here != nullptr && here->id != entry.id && here->state != EntryState::failed) {
    throw UserError(
        "project", "this project has the sandbox " + here->id + " already",
        "`sandbox stop` ends it; or use the other one with exec --id " + entry.id + ".");
  }
  storage->erase(entry.id);
  if (here = storage->find(target.key); here != nullptr) {
    storage->erase(here->id);
  }
  std::string box = entry.key.box;
  std::string machine = entry.key.machine;
  entry.key = target.key;
  entry.key.box = box;
  entry.key.machine = machine;
  entry.agent = bound.agent;
  entry.state = EntryState::ready;
  if (entry.created_at.empty()) {
    entry.created_at = timestamp();
  }
  entry.config_digest = target.config.digest;
  storage->entries().push_back(entry);
  storage->save();
  Found found{entry, connection->url(entry.id), "ready", false, {}};
  co_return found;
}

os::awaitable<Found> find_or_make(Context& context, const Target& target) {
  for (int round = 0; round < kMostRounds; ++round) {
    Resolver resolver = make_resolver(context);
    BoxStarter starter(context, target);
    co_await adopt_detached(context, target);
    ResolveRequest request = target.request();
    request.wait = context.arguments.has("wait");
    request.wait_seconds = lock_wait(context.arguments, context.environment, request.key.box);
    Resolved resolved = co_await resolver.resolve(request, starter);
    std::shared_ptr<Connection> connection = starter.connection();
    if (!connection) {
      connection = co_await connect(context, resolved.entry.key.box);
    }
    Found found{resolved.entry, connection->url(resolved.entry.id),
                resolved.entry.state == EntryState::ready ? "ready" : "starting", resolved.made,
                starter.setup()};
    if (resolved.made || resolved.entry.state == EntryState::starting) {
      if (auto client = starter.take_client()) {
        co_await client->finish();
      }
      co_return found;
    }
    bool there = co_await still_there(context, *connection, resolved.entry, target.config);
    if (there) {
      note_changed_config(context, target.config, resolved.entry);
      co_return found;
    }
  }
  throw UserError("agent", "the sandbox is gone each time that a command comes",
                  "Does something stop it all the time?");
}

}  // namespace

os::awaitable<int> run_start(Context& context) {
  Target target = find_target(context);
  lock_wait(context.arguments, context.environment,
            target.key.box);  // misuse shows before anything is made
  Found found;
  if (auto id = context.arguments.value("id")) {
    found = co_await adopt(context, target, *id);
  } else {
    found = co_await find_or_make(context, target);
  }
  Output& output = context.output;
  if (output.json()) {
    json::object answer;
    answer["RunID"] = found.entry.id;
    answer["RunURL"] = found.url;
    answer["ConfigFile"] = json_text(found.entry.key.config);
    answer["Status"] = found.status;
    answer["Created"] = found.made;
    answer["Box"] = json_text(found.entry.key.box);
    add_setup(answer, found.setup);
    output.json_line(answer);
  } else {
    std::string what = found.made                ? "Started sandbox: "
                       : found.status == "ready" ? "Sandbox is already running: "
                                                 : "Sandbox is being started by another process: ";
    output.line(what + found.entry.id);
    if (!found.url.empty()) {
      output.line(found.url);
    }
  }
  co_return found.setup ? exit_status(*found.setup) : 0;
}

}  // namespace cli
