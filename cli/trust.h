// Asking whether a configuration file may reach beyond the sandbox.
#pragma once

#include "cli/config.h"
#include "cli/context.h"

namespace cli {

// Shows what the file asks for, asks, and writes a yes down. Requires can_ask() (confirm.h).
protocol::os::awaitable<bool> ask_for_trust(Context& context, const Untrusted& untrusted);

// Runs the command; when it stops at a file that is not trusted yet and there is somebody to ask,
// asks, and runs it again. Commands look at their configuration before they do anything.
protocol::os::awaitable<int> run_asking(Context& context,
                                        protocol::os::awaitable<int> (*run)(Context&));

}  // namespace cli
