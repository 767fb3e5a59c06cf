// Both ends of SSH in one process and one thread: a loop, keys, and a server on the loopback whose
// commands are written in the test. Requires protocol_ssh.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <exception>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "protocol/ssh/client.h"
#include "protocol/ssh/server.h"
#include "tests/support/loop.h"

namespace test {

namespace asio = boost::asio;
namespace os = protocol::os;
namespace ssh = protocol::ssh;
using os::awaitable;
using protocol::wire::Errc;
using protocol::wire::result;

// A result's value, or an exception that says what went wrong.
template <class T>
T must(result<T> r) {
  if (!r) throw std::runtime_error(std::string(name(r.error().code)) + ": " + r.error().what);
  if constexpr (!std::is_void_v<T>) return std::move(*r);
}

std::span<const std::byte> bytes(std::string_view text);

// What a command of the test server does; it ends the channel by itself.
using Command =
    std::function<awaitable<void>(std::shared_ptr<ssh::ServerChannel>, ssh::ExecRequest)>;
using Forward = std::function<awaitable<void>(std::unique_ptr<ssh::ForwardRequest>)>;

// `cat`, `both` (out, err, status 7), `exit N`, `signal NAME`, `bytes N`, `env`, `hang`, `count`
// (stdin's bytes), `events` (until end of input), `close` (no status).
awaitable<void> standard_command(std::shared_ptr<ssh::ServerChannel> channel,
                                 ssh::ExecRequest request);

// Reads to the end.
awaitable<result<std::string>> read_all(os::ByteStream& stream);

class SshServer {
 public:
  explicit SshServer(Loop& loop, ssh::ServerOptions options = {},
                     Command command = standard_command);
  ~SshServer();

  std::uint16_t port() const { return port_; }
  const ssh::PublicKey& host_key() const { return public_host_key_; }

  // Who may come in. Default: everybody.
  ssh::Authorize authorize;
  Forward forward;
  // Refuse every exec.
  bool refuse = false;
  // SO_SNDBUF of the connections to come, when not 0: small, so that libssh has to keep output.
  int send_buffer = 0;

  int accepted = 0, let_in = 0, open_channels = 0;
  std::vector<std::string> refusals;  // words of the handshakes that failed
  std::vector<std::shared_ptr<ssh::ServerConnection>> connections;

 private:
  struct State;
  awaitable<void> listen();
  awaitable<void> attend(std::shared_ptr<ssh::ServerConnection> connection);
  awaitable<void> attend_channel(std::shared_ptr<ssh::ServerChannel> channel);

  Loop& loop_;
  ssh::ServerOptions options_;
  Command command_;
  ssh::PrivateKey host_key_;
  ssh::PublicKey public_host_key_;
  asio::ip::tcp::acceptor acceptor_;
  std::uint16_t port_;
};

// The loop, a server and a client's key.
struct SshWorld {
  explicit SshWorld(ssh::ServerOptions options = {}, Command command = standard_command)

      : server(loop, options, std::move(command)), key(must(ssh::PrivateKey::generate_ed25519())) {}
  ~SshWorld();

  ssh::ClientOptions client_options(std::uint16_t port = 0) const;
  awaitable<result<std::shared_ptr<ssh::ClientConnection>>> connect() {
    return ssh::connect(loop.executor(), key, client_options());
  }
  template <class T>
  T run(awaitable<T> work) {
    return loop.run(std::move(work));
  }
  // Runs a function that blocks, on a thread beside the loop, to its end.
  void run_beside(std::function<void()> blocking);

  Loop loop;
  SshServer server;
  ssh::PrivateKey key;
};

}  // namespace test
