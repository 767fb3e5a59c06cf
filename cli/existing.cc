#include "cli/existing.h"

#include <utility>

#include "cli/sandbox_session.h"
#include "cli/starter.h"

namespace cli {
namespace os = protocol::os;

os::awaitable<Entry> existing_entry(Context& context, const Target& target, bool use) {
  if (auto id = context.arguments.value("id")) {
    Entry named = co_await named_entry(context, target, *id, use);
    co_return named;
  }
  Resolver resolver = make_resolver(context);
  co_await adopt_detached(context, target);
  BoxStarter starter(context, target);
  ResolveRequest request = target.request();
  request.make = false;
  if (context.verb == "push") {  // the others take no lock
    request.wait_seconds = lock_wait(context.arguments, context.environment, request.key.box);
  }
  request.use = use;
  Resolved resolved = co_await resolver.resolve(request, starter);
  co_return resolved.entry;
}

os::awaitable<Existing> open_existing(Context& context, const Target& target, bool with_origin) {
  Entry entry = co_await existing_entry(context, target, true);
  Existing existing = co_await open_existing(context, target, std::move(entry), with_origin);
  co_return existing;
}

os::awaitable<Existing> open_existing(Context& context, const Target& target, Entry entry,
                                      bool with_origin) {
  Existing existing;
  existing.entry = std::move(entry);
  std::string origin_id(32, '0');
  if (with_origin) {
    existing.origin = co_await open_origin(context, target);
    origin_id = existing.origin->id();
  }
  existing.connection = co_await connect(context, existing.entry.key.box);
  existing.url = existing.connection->url(existing.entry.id);
  existing.client = co_await bind_sandbox(context, *existing.connection, existing.entry, origin_id);
  co_return existing;
}

os::awaitable<void> not_there(Context& context, Existing& existing, BindFailed gone) {
  co_await forget_if_gone(context, *existing.client, existing.entry, gone);
  throw UserError("project", "the sandbox " + existing.entry.id + " is gone",
                  "`sandbox start` makes a new one.");
}

}  // namespace cli
