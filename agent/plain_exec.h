// A stock client's command or shell: run in the sandbox by its supervisor, as sshd would run it.
// Separate stdout and stderr, stdin, signals and window changes; then exit-status or exit-signal.
// `git-receive-pack '.'` is nothing else.
#pragma once

#include <memory>
#include <string>

#include "agent/services.h"
#include "protocol/ssh/server.h"

namespace agent {

// Serves one channel to its end. When the client vanishes, returns when the command is reaped.
protocol::os::awaitable<void> serve_plain_exec(
    Services& services, std::shared_ptr<protocol::ssh::ServerChannel> channel,
    protocol::ssh::ExecRequest request, std::string sandbox, std::string user);

// Says why on stderr and ends the channel with this status.
protocol::os::awaitable<void> refuse_exec(std::shared_ptr<protocol::ssh::ServerChannel> channel,
                                          std::string text, int status);

}  // namespace agent
