// Ends a sandbox and makes a new one in its place: what reset and exec --reset have in common.
#pragma once

#include "cli/starter.h"

namespace cli {

using Replaced = Resolver::Replaced;

// `id`: what --id said, after aim_at(); empty: the sandbox of the target. Takes its lock first, so
// that nobody's command is ended, but with --force and --force-command. Throws UserError; nothing
// has changed when the lock is refused, a command runs there without it, or the box cannot be
// reached.
protocol::os::awaitable<Replaced> replace_sandbox(Context& context, const Target& target,
                                                  BoxStarter& starter, std::string id);

}  // namespace cli
