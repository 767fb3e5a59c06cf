// A stock libssh client, blocking, for a thread of its own (SshWorld::run_beside): for what our
// client does not do. Throws with libssh's words when something fails.
#pragma once

#include <libssh/callbacks.h>
#include <libssh/libssh.h>

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <string>

#include "protocol/ssh/key.h"

namespace test {

class RawSsh {
 public:
  // Connects, does not authenticate.
  explicit RawSsh(std::uint16_t port, const std::string& user = "sandbox");
  ~RawSsh();
  RawSsh(const RawSsh&) = delete;
  RawSsh& operator=(const RawSsh&) = delete;

  // SSH_AUTH_SUCCESS, SSH_AUTH_DENIED, SSH_AUTH_ERROR ...
  int authenticate(const protocol::ssh::PrivateKey& key);
  void login(const protocol::ssh::PrivateKey& key);
  ssh_session session() const { return session_; }
  bool connected() const { return ssh_is_connected(session_) != 0; }
  std::string error() const { return ssh_get_error(session_); }

  struct End {
    std::optional<int> status;
    std::string signal;
    std::string out, err;
    std::string order;  // of the peer's last messages: "status eof close"
    bool closed = false;
  };
  struct Channel {
    ssh_channel handle = nullptr;
    End end;  // so far
    ssh_channel_callbacks_struct callbacks{};
  };
  // A session channel. Lives as long as this.
  Channel& open();
  // With the command running.
  Channel& exec(const std::string& command);
  // A direct-tcpip channel; null when it was refused.
  Channel* forward(const std::string& host, int port);

  // Works until the condition holds. Throws when it does not come true.
  void until(const std::function<bool()>& condition);
  // Reads both streams to the end and the close.
  End finish(Channel& channel);
  End run(const std::string& command);

 private:
  Channel& make();

  ssh_session session_;
  std::list<Channel> channels_;
};

}  // namespace test
