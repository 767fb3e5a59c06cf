#include "cli/replace.h"

#include "cli/removal.h"
#include "cli/sandbox_session.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

// The old sandbox while its lock is ours.
struct Old {
  Entry entry;
  std::shared_ptr<Connection> connection;
  std::unique_ptr<SessionClient> client;
};

// Of a reset that ends whatever runs there.
bool by_force(const Context& context) {
  return context.arguments.has("force-command") || context.arguments.has("force");
}

bool says_how_long(const Context& context) {
  return context.arguments.has("wait") || !context.environment.get("SANDBOX_LOCK_WAIT").empty() ||
         context.environment.get("CI") == "true";
}

UserError in_use(const Context& context, const wire::Refused& refused, const Entry& entry) {
  return in_use_error(refused, entry.key.box, entry.id,
                      context.verb == "exec" ? "--force-command" : "--force");
}

// Whoever runs something in it without the lock, and what was never pulled, is looked at before
// anything is changed.
os::awaitable<void> refuse_to_lose(Context& context, SessionClient& client, Entry entry) {
  wire::End would_end;
  would_end.force = by_force(context);
  would_end.keep_unpulled = !context.arguments.has("discard");
  would_end.dry_run = true;
  wire::Message answer = co_await client.ask(would_end);
  if (const auto* busy = std::get_if<wire::Refused>(&answer)) {
    throw in_use(context, *busy, entry);
  }
  const auto* failed = std::get_if<wire::Failed>(&answer);
  if (failed != nullptr && wire::errc_from_name(failed->code) == wire::Errc::refused) {
    throw unpulled_error(entry.id, failed->message);
  }
}

os::awaitable<void> take(Context& context, Old& old, Entry entry) {
  old.entry = entry;
  old.connection = co_await connect(context, entry.key.box);
  old.client = co_await bind_sandbox(context, *old.connection, entry, std::string(kNoOrigin));
  wire::LockRequested lock = lock_request(context, "reset", "", entry.key.box);
  lock.force = by_force(context);
  if (!says_how_long(context)) {
    lock.wait_seconds = 0;  // on this machine's own box, too: what runs in it is not to be ended
  }
  std::optional<wire::Refused> refused;
  std::optional<BindFailed> gone;
  try {
    co_await old.client->bound();
    refused = co_await old.client->lock(lock);
  } catch (const BindFailed& failure) {
    gone = failure;
  }
  if (gone) {
    bool never_ready =
        entry.agent.empty() && wire::errc_from_name(gone->failed.code) == wire::Errc::not_found;
    if (!never_ready) {
      co_await forget_if_gone(context, *old.client, entry, *gone);
    }
    old.client.reset();
  }
  if (refused) {
    throw entry.key.box == kLocalBox && lock.wait_seconds == 0
        ? in_use(context, *refused, entry)
        : refused_error(*refused, entry.key.box, lock.wait_seconds);
  }
  if (old.client) {
    co_await refuse_to_lose(context, *old.client, entry);
  }
}

// std::nullopt: it has ended; else why it goes on.
os::awaitable<std::optional<UserError>> end(Context& context, BoxStarter& starter, Old& old) {
  std::optional<UserError> kept;
  if (!old.client) {
    co_return kept;  // it was gone already
  }
  wire::End request;
  request.force = by_force(context);
  wire::Message answer = co_await old.client->ask(request);
  if (const auto* busy = std::get_if<wire::Refused>(&answer)) {
    kept = in_use(context, *busy, old.entry);
  } else if (const auto* failed = std::get_if<wire::Failed>(&answer)) {
    throw failed_error(*failed, old.connection->box().name);
  }
  old.client->session().close();
  if (!kept) {
    starter.replaces(old.entry.id);
  }
  co_return kept;
}

}  // namespace

os::awaitable<Replaced> replace_sandbox(Context& context, const Target& target, BoxStarter& starter,
                                        std::string id) {
  Resolver resolver = make_resolver(context);
  ResolveRequest request = target.request();
  request.wait_seconds = lock_wait(context.arguments, context.environment, request.key.box);
  if (!id.empty()) {
    request.config_named = true;  // exactly the one that `target` was aimed at
  }
  auto old = std::make_shared<Old>();
  auto take_old = [&context, old](Entry entry) { return take(context, *old, std::move(entry)); };
  auto end_old = [&context, &starter, old] { return end(context, starter, *old); };
  Replaced replaced = co_await resolver.replace(request, starter, take_old, end_old);
  co_return replaced;
}

}  // namespace cli
