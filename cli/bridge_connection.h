// A box whose agent is reached through its sshd: the user's own ssh runs `sandbox-agent bridge`
// there, one ssh for each session, and its stdin and stdout are the session's byte stream.
// ssh_config, jump hosts, certificates and second factors work because it is ssh that does them.
// What ssh has to say goes to the user's stderr. Wire: protocol/WIRE.md, "The bridge".
#pragma once

#include "cli/connection.h"

namespace cli {

// The command line of that ssh. `may_ask`: ssh may ask the user for a passphrase and the like;
// otherwise it fails where it would have to. Pure.
std::vector<std::string> bridge_command(const Box& box, const Environment& environment,
                                        std::chrono::seconds connect_time, bool may_ask);

// The first session is opened at once, so that a box that cannot be reached is an error here.
// Throws UserError. Requires box.via_ssh.
protocol::os::awaitable<std::shared_ptr<Connection>> connect_bridge(Context& context, Box box,
                                                                    std::chrono::milliseconds time,
                                                                    bool may_ask);

}  // namespace cli
