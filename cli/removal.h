// Removing a sandbox only if nobody uses it: what prune and exec --rm have in common. Decided
// twice, under this machine's session lock and, on the box, under its own; whoever comes meanwhile
// waits for the decision.
#pragma once

#include <string>

#include "cli/context.h"
#include "cli/session_client.h"
#include "cli/storage.h"

namespace cli {

struct RemovalOptions {
  bool discard = false;  // also what was never pulled
  bool dry_run = false;  // decide, and leave it
};

struct Removal {
  enum class Outcome {
    removed,  // or would be
    gone,     // the box does not have it
    in_use,
    unpulled,  // kept: it has work that was never pulled, which `why` names
    failed
  };
  Outcome outcome = Outcome::failed;
  std::string why;
  bool is_gone() const { return outcome == Outcome::removed || outcome == Outcome::gone; }
};

// Asks on the client's session: an unbound one, or one that is bound to this sandbox and has ended
// its work. The client's own hold must be let go before. Throws UserError when the connection is
// lost.
protocol::os::awaitable<Removal> remove_if_idle(Context& context, SessionClient& client,
                                                std::string id, RemovalOptions options);

// For a sandbox that somebody wants to end, and whose box keeps it: `lost` names what would be
// lost.
UserError unpulled_error(const std::string& id, const std::string& lost);

// What this machine remembers of a sandbox that is there no more.
protocol::os::awaitable<void> forget_sandbox(Context& context, const Entry& entry);

}  // namespace cli
