// One SSH connection of a client that was let in: its channels, each served by itself, and the
// directives of stock clients. The SSH user name picks the sandbox; the key says whose sandboxes
// there are to pick from.
#pragma once

#include <memory>
#include <string>

#include "agent/services.h"
#include "protocol/ssh/server.h"

namespace agent {

// Returns when the connection has ended and nothing of it runs: its commands are reaped, its lock
// is given back.
protocol::os::awaitable<void> serve_connection(
    Services& services, std::shared_ptr<protocol::ssh::ServerConnection> connection,
    std::string user);

}  // namespace agent
