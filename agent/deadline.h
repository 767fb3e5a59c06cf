// A bound on how long a wait may take.
#pragma once

#include <chrono>
#include <functional>

#include "protocol/os/async.h"

namespace agent {

// Awaits `work`. When it has not ended by itself within `limit`, calls `cut`, which has to make it
// end, and goes on awaiting it. True when it needed no cut.
protocol::os::awaitable<bool> within(protocol::os::executor ex,
                                     std::chrono::steady_clock::duration limit,
                                     protocol::os::awaitable<void> work, std::function<void()> cut);

}  // namespace agent
