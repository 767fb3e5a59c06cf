// A stock client's direct-tcpip channel: a connection to a port on the sandbox's own loopback,
// dialled by its supervisor.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "agent/services.h"
#include "protocol/ssh/server.h"

namespace agent {

// Serves one tunnel to its end. Refused when the host is not the loopback, or nothing listens
// there. `cut` is set to what ends it when the client has gone, of which a tunnel that is still
// being made hears nothing by itself.
protocol::os::awaitable<void> serve_tunnel(Services& services,
                                           std::unique_ptr<protocol::ssh::ForwardRequest> request,
                                           std::string sandbox, std::string user,
                                           std::function<void()>& cut);

bool is_loopback(const std::string& host);

}  // namespace agent
