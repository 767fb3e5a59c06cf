// The SSH client end on one Asio thread: one authenticated connection, commands on it as byte
// streams. Costs 7 round trips from TCP connect to the first byte of a command's output, 2 per
// further command.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "protocol/os/byte_stream.h"
#include "protocol/ssh/key.h"

namespace protocol::ssh {

struct ClientOptions {
  std::string host;
  std::uint16_t port = 0;
  std::string user;
  std::chrono::milliseconds timeout{15000};  // for connecting and authenticating, all together
  // An agent from which nothing came for so long, keepalive answers included, is taken for dead.
  std::chrono::milliseconds silence_limit{300'000};
  // Decides about the host's key, once per connection; false ends it with Errc::refused.
  std::function<bool(const PublicKey& host_key)> check_host_key;
};

class ClientConnection {
 public:
  virtual ~ClientConnection() = default;  // closes
  // Opens a channel and runs `command`; the stream is stdin and stdout. Comes back when the channel
  // is open and the exec request is sent, without waiting for its answer: bytes written at once
  // travel with it. A refused request shows as Errc::refused on the first read. stderr of the
  // command is discarded after `on_error` saw it.
  virtual os::awaitable<wire::result<std::unique_ptr<os::ByteStream>>> exec(
      std::string command, std::function<void(std::string_view)> on_error = {}) = 0;
  virtual void close() noexcept = 0;
};

// Errc::gone (nobody answers, with the system's words), timed_out, refused (host key), denied (our
// key is not accepted).
os::awaitable<wire::result<std::shared_ptr<ClientConnection>>> connect(os::executor ex,
                                                                       PrivateKey key,
                                                                       ClientOptions options);

}  // namespace protocol::ssh
