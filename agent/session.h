// The session channel: how our own client talks (protocol/WIRE.md). One session binds to one
// sandbox, asks for its command lock, and has its steps done by the sandbox's supervisor; this
// relays, and decides by agent/steps what may pass and when the lock goes back. It never looks into
// packs or output.
#pragma once

#include <memory>
#include <string>

#include "agent/services.h"
#include "protocol/os/async.h"
#include "protocol/os/byte_stream.h"
#include "protocol/ssh/server.h"

namespace agent {

// Serves a channel whose request was `__rwx_sandbox_session__ ARGUMENT`, for the user that its key
// names. Returns when the client has gone and nothing of it is left: its job is reaped, its result
// kept, its lock given back.
protocol::os::awaitable<void> serve_session(Services& services,
                                            std::shared_ptr<protocol::ssh::ServerChannel> channel,
                                            std::string argument, std::string user);

// The same for a peer on the agent's unix socket, who has first to say `session`: for a user of
// this account.
protocol::os::awaitable<void> serve_local_session(Services& services,
                                                  std::unique_ptr<protocol::os::ByteStream> stream,
                                                  std::string user);

}  // namespace agent
