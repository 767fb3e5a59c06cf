// A question to the person at the terminal, before something that cannot be taken back.
#pragma once

#include <string>

#include "cli/context.h"

namespace cli {

// Is there somebody to ask: a terminal on stdin and on stderr, and no --json?
bool can_ask(const Context& context);

// Asks on stderr; true for y or yes. An empty answer, the end of input and all else mean no. Throws
// UserError (status 2) when nobody can be asked: stdin or stderr is no terminal, or --json was
// given. `option` is what says yes without being asked.
protocol::os::awaitable<bool> confirm(Context& context, const std::string& question,
                                      const std::string& option);

}  // namespace cli
