// The agent's door for this account: a unix socket on which sessions are served, to which
// `sandbox-agent bridge` joins who came through the box's own sshd. Only peers of the agent's own
// uid (or root's) get in, and they are the user that the account is called.
#pragma once

#include <filesystem>
#include <memory>
#include <set>

#include "agent/services.h"
#include "protocol/os/unix_socket.h"

namespace agent {

class LocalListener {
 public:
  static constexpr std::size_t kMaxConnections = 256;

  // Makes the socket (0600). Errc::exists, denied, io.
  static protocol::wire::result<std::unique_ptr<LocalListener>> open(
      Services& services, const std::filesystem::path& socket);

  LocalListener(Services& services, protocol::os::UnixListener listener)
      : services_(services), listener_(std::move(listener)) {}

  // Accepts until close().
  protocol::os::awaitable<void> run();
  void close();
  // Ends every session's connection at once.
  void close_connections();

 private:
  static protocol::os::awaitable<void> serve(LocalListener& self,
                                             std::shared_ptr<protocol::os::ByteStream> stream);

  Services& services_;
  protocol::os::UnixListener listener_;
  std::set<std::shared_ptr<protocol::os::ByteStream>> connections_;
};

}  // namespace agent
