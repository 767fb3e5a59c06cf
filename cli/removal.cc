#include "cli/removal.h"

#include "cli/resolve.h"
#include "cli/session_locks.h"
#include "cli/target.h"
#include "protocol/os/offload.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

os::awaitable<Removal> remove_if_idle(Context& context, SessionClient& client, std::string id,
                                      RemovalOptions options) {
  Removal removal;
  SessionLocks locks(context.paths.sessions());
  auto lock = co_await locks.take(context.executor, id);
  if (!lock) {
    removal.outcome = Removal::Outcome::in_use;
    removal.why = "another command on this machine uses it";
    co_return removal;
  }
  wire::End end;
  end.sandbox = id;
  end.user = user_name(context.environment);
  end.if_idle = true;
  end.keep_unpulled = !options.discard;
  end.dry_run = options.dry_run;
  wire::Message answer = co_await client.ask(end);
  if (std::holds_alternative<wire::Ended>(answer)) {
    removal.outcome = Removal::Outcome::removed;
    co_return removal;
  }
  const auto* failed = std::get_if<wire::Failed>(&answer);
  removal.why = failed != nullptr ? wire::printable(failed->message, 1000)
                                  : "the box does not answer what it was asked";
  switch (failed != nullptr ? wire::errc_from_name(failed->code) : wire::Errc::io) {
    case wire::Errc::not_found:
      removal.outcome = Removal::Outcome::gone;
      break;
    case wire::Errc::busy:
      removal.outcome = Removal::Outcome::in_use;
      break;
    case wire::Errc::refused:
      removal.outcome = Removal::Outcome::unpulled;
      break;
    default:
      removal.outcome = Removal::Outcome::failed;
  }
  co_return removal;
}

UserError unpulled_error(const std::string& id, const std::string& lost) {
  return UserError(
      "sync", "the sandbox " + id + " was kept: " + wire::printable(lost, 1000),
      "`sandbox pull --id " + id +
          "` brings it back, and what no command of yours changed `sandbox push` in its "
          "project; with --discard the sandbox is ended all the same.");
}

os::awaitable<void> forget_sandbox(Context& context, const Entry& known) {
  Entry entry = known;
  {
    Resolver resolver = make_resolver(context);
    auto storage = co_await resolver.lock();
    if (storage->find_id(entry.id) != nullptr) {
      storage->erase(entry.id);
      storage->save();
    }
  }
  protocol::sync::OriginOptions options;
  options.work_tree = entry.key.project;
  options.store = context.paths.origins() / entry.key.origin_name();
  auto forget = [options, id = entry.id] {
    std::error_code error;
    if (std::filesystem::exists(options.store, error) &&
        std::filesystem::exists(options.work_tree, error)) {
      if (auto origin = protocol::sync::Origin::open(options)) {
        (*origin)->forget(id);
      }
    }
    return true;
  };
  co_await os::offload(context.pool, std::move(forget));
}

}  // namespace cli
