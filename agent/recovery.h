// What becomes of a command whose supervisor was lost sight of: its lock may pass on only when it
// is known to have ended.
#pragma once

#include <string>

#include "agent/services.h"

namespace agent {

// Asks the sandbox's supervisor, starting one where none runs: one that follows a killed one ends
// what that has left before it answers, and where only our connection to it broke it is told to end
// all that came on that (`connection`: its name in hello), which it would keep for an agent that
// comes back, and may not have read yet. `job` (empty: none is known to run) is for supervisors
// that do not know connections by name. Results stay owed to their origin. Not where the sandbox is
// being removed: then its supervisor was told to go. Tries until it is done, the sandbox is gone or
// the agent stops.
protocol::os::awaitable<void> recover(Services& services, std::string sandbox, std::string user,
                                      std::string connection, std::string job);

}  // namespace agent
