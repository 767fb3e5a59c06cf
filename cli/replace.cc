#include "cli/replace.h"

#include "cli/removal.h"
#include "cli/sandbox_session.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

// The old sandbox while its lock is ours.
struct Old {
  std::shared_ptr<Connection> connection;
  std::unique_ptr<SessionClient> client;
};

// While the lock is ours no command of another adds to it.
os::awaitable<void> refuse_to_lose(SessionClient& client, Entry entry) {
  wire::End would_end;
  would_end.force = true;
  would_end.keep_unpulled = true;
  would_end.dry_run = true;
  wire::Message answer = co_await client.ask(would_end);
  const auto* failed = std::get_if<wire::Failed>(&answer);
  if (failed != nullptr && wire::errc_from_name(failed->code) == wire::Errc::refused) {
    throw unpulled_error(entry.id, failed->message);
  }
}

os::awaitable<void> take(Context& context, Old& old, Entry entry) {
  old.connection = co_await connect(context, entry.key.box);
  old.client = co_await bind_sandbox(context, *old.connection, entry, std::string(kNoOrigin));
  wire::LockRequested lock = lock_request(context, "reset", "", entry.key.box);
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
    throw refused_error(*refused, entry.key.box);
  }
  if (old.client && !context.arguments.has("discard")) {
    co_await refuse_to_lose(*old.client, entry);
  }
}

os::awaitable<void> end(Old& old) {
  if (!old.client) {
    co_return;  // it was gone already
  }
  wire::End request;
  request.force = true;  // those in line behind us find the new one
  wire::Message answer = co_await old.client->ask(request);
  if (const auto* failed = std::get_if<wire::Failed>(&answer)) {
    throw failed_error(*failed, old.connection->box().name);
  }
  old.client->session().close();
}

}  // namespace

os::awaitable<Replaced> replace_sandbox(Context& context, const Target& target, BoxStarter& starter,
                                        std::string id) {
  Resolver resolver = make_resolver(context);
  ResolveRequest request = target.request();
  if (!id.empty()) {
    request.config_named = true;  // exactly the one that `target` was aimed at
  }
  lock_wait(context.arguments, context.environment, request.key.box);  // misuse shows first
  auto old = std::make_shared<Old>();
  auto take_old = [&context, old](Entry entry) { return take(context, *old, std::move(entry)); };
  auto end_old = [old] { return end(*old); };
  Replaced replaced = co_await resolver.replace(request, starter, take_old, end_old);
  co_return replaced;
}

}  // namespace cli
