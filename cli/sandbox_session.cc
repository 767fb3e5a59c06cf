#include "cli/sandbox_session.h"

#include <unistd.h>

#include "cli/resolve.h"
#include "cli/target.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

std::string command_text(const Context& context) {
  return wire::printable(wire::shell_join(context.arguments.command), wire::kMaxTextBytes);
}

os::awaitable<std::shared_ptr<SessionLock>> hold_sandbox(Context& context, const std::string& id,
                                                         const std::string& box) {
  LocalSession session;
  session.sandbox = id;
  session.box = box;
  session.verb = context.verb;
  session.command = command_text(context);
  session.since = timestamp();
  session.pid = static_cast<int>(::getpid());
  SessionLocks locks(context.paths.sessions());
  std::shared_ptr<SessionLock> held =
      co_await locks.hold(context.executor, context.output, std::move(session));
  co_return held;
}

os::awaitable<std::unique_ptr<SessionClient>> bind_sandbox(Context& context, Connection& connection,
                                                           const Entry& entry,
                                                           const std::string& origin_id) {
  wire::Bind bind;
  bind.sandbox = entry.id;
  bind.origin = origin_id;
  bind.user = user_name(context.environment);
  bind.scope = ci_scope(context.environment);
  auto held = co_await hold_sandbox(context, entry.id, entry.key.box);
  auto session = co_await connection.open_session(context.trace);
  auto client = std::make_unique<SessionClient>(context.executor, context.pool, std::move(session),
                                                context.output);
  client->keep(std::move(held));
  client->on_bound([entry](const wire::Bound& bound) {
    if (!entry.agent.empty() && bound.agent != entry.agent) {
      throw another_agent(entry);
    }
  });
  client->bind(bind);
  co_return client;
}

std::string demanded_isolation(const Context& context, const Config& config,
                               const std::string& box) {
  if (auto named = context.arguments.value("isolation")) {
    return *named == "auto" ? std::string() : *named;
  }
  bool ours = box == kLocalBox && context.environment.get("SANDBOX_ISOLATION") == "bwrap";
  return ours && config.isolation != "none" ? "bwrap" : "";
}

os::awaitable<void> require_isolation(const Context& context, SessionClient& client,
                                      std::string wanted) {
  if (wanted.empty()) {
    co_return;
  }
  wire::Bound bound = co_await client.bound();
  bool named = context.arguments.has("isolation");
  bool unknown = bound.isolation.empty();
  if (bound.isolation == wanted || (unknown && !named)) {
    co_return;
  }
  if (unknown) {
    throw UserError("agent",
                    "the agent is older than this and does not say what the sandbox " +
                        bound.sandbox + " runs in",
                    "Update it, or leave out --isolation. Nothing was run.");
  }
  throw UserError("arguments",
                  "isolation " + wanted + " is asked for, but the sandbox " + bound.sandbox +
                      " was made with isolation " + wire::printable(bound.isolation, 80),
                  "`sandbox exec --reset --isolation " + wanted +
                      " ...` makes a new one in its place. Nothing was run.");
}

void note_changed_config(Context& context, const Config& config, const Entry& entry) {
  // With --id it may be one of another file's.
  bool same_file = !entry.config_digest.empty() && entry.key.config == config.file.string();
  if (same_file && entry.config_digest != config.digest) {
    context.output.warn(config.file.string() +
                        " has changed since the sandbox was made: setup, isolation, network and "
                        "limits are as they were then; `sandbox reset` makes a new one");
  }
}

UserError another_agent(const Entry& entry) {
  return UserError(
      "agent",
      "another agent answers for the box " + entry.key.box + " than the one that has this sandbox",
      "If the box was set up anew, `sandbox stop --force --id " + entry.id +
          "` forgets the old sandbox.");
}

os::awaitable<void> forget_if_gone(Context& context, SessionClient& client, const Entry& entry,
                                   const BindFailed& failure) {
  Entry gone = entry;
  wire::Failed failed = failure.failed;
  if (wire::errc_from_name(failed.code) != wire::Errc::not_found) {
    throw failed_error(failed, gone.key.box);
  }
  if (gone.agent.empty()) {
    throw UserError("agent", "there is no sandbox " + gone.id + " on the box " + gone.key.box,
                    "`sandbox list` shows them.");
  }
  wire::Message answer = co_await client.ask(wire::InfoRequest{});
  const auto* info = std::get_if<wire::Info>(&answer);
  if (info == nullptr || info->agent != gone.agent) {
    throw another_agent(gone);
  }
  Resolver resolver = make_resolver(context);
  co_await resolver.forget(gone.id, gone.agent);
}

os::awaitable<std::optional<wire::Refused>> take_lock(SessionClient& client,
                                                      const wire::LockRequested& lock,
                                                      std::string box) {
  std::optional<wire::Refused> refused;
  try {
    refused = co_await client.lock(lock);
  } catch (const BindFailed& failure) {
    throw failed_error(failure.failed, box);
  }
  co_return refused;
}

os::awaitable<void> release_lock(SessionClient& client, std::string box) {
  try {
    co_await client.release();
  } catch (const BindFailed& failure) {
    throw failed_error(failure.failed, box);
  }
}

os::awaitable<void> take_and_release(Context& context, SessionClient& client, std::string verb,
                                     std::string box) {
  if (box == kLocalBox) {
    co_return;  // it has a lock for each sandbox and no limit: there is nothing to be kept out of
  }
  wire::LockRequested lock = lock_request(context, verb, "", box);
  auto refused = co_await take_lock(client, lock, box);
  if (refused) {
    throw refused_error(*refused, box, lock.wait_seconds);
  }
  co_await release_lock(client, box);
}

os::awaitable<wire::result<void>> end_sandbox(Context& context, Connection& connection,
                                              const std::string& id, EndOptions options,
                                              std::string& agent) {
  Entry entry;
  entry.id = id;
  entry.key.box = connection.box().name;
  auto client = co_await bind_sandbox(context, connection, entry, std::string(kNoOrigin));
  wire::result<void> outcome;
  std::optional<wire::Failed> failed;
  std::optional<wire::Refused> refused;
  try {
    wire::Bound bound = co_await client->bound();
    agent = bound.agent;
    if (options.lock) {
      refused = co_await client->lock(*options.lock);
    }
  } catch (const BindFailed& failure) {
    failed = failure.failed;
  }
  if (refused) {
    throw refused_error(*refused, entry.key.box, options.lock->wait_seconds);
  }
  if (failed) {
    wire::Message answer = co_await client->ask(wire::InfoRequest{});
    if (const auto* info = std::get_if<wire::Info>(&answer)) {
      agent = info->agent;
    }
  } else {
    wire::End end;
    end.force = options.force;
    end.keep_unpulled = options.keep_unpulled;
    wire::Message answer = co_await client->ask(end);
    if (const auto* no = std::get_if<wire::Failed>(&answer)) {
      failed = *no;
    } else if (const auto* busy = std::get_if<wire::Refused>(&answer)) {
      throw in_use_error(*busy, entry.key.box, id);
    }
  }
  if (failed) {
    outcome = wire::Failure(wire::errc_from_name(failed->code), failed->message);
  }
  client->session().close();
  co_return outcome;
}

}  // namespace cli
