// The SSH server end on one Asio thread: accepts a connection, authenticates it by public key,
// hands out its channels. The rules of libssh (call order, callbacks, tear-down, backpressure) live
// behind this header and nowhere above it.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "protocol/os/byte_stream.h"
#include "protocol/ssh/key.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/messages.h"

namespace protocol::ssh {

using os::awaitable;
using wire::result;

struct ServerOptions {
  std::string banner = "sandbox";  // software version in the SSH banner
  std::chrono::milliseconds login_grace{30'000};
  int max_auth_tries = 6;
  int max_channels = wire::kMaxChannels;
  // A peer from which nothing came for so long, keepalive answers included, is taken for dead.
  // Keepalives are sent at a sixth of it, once a minute at most.
  std::chrono::milliseconds silence_limit{1'800'000};
};

// What a client asks of a fresh session channel, once. PTY and env requests that came before are in
// it.
struct ExecRequest {
  std::string command;  // empty: a shell
  std::map<std::string, std::string> env;
  std::optional<wire::Terminal> terminal;
};
struct WindowChange {
  std::uint16_t rows, columns;
};
struct SignalRequest {
  std::string name;
};  // without SIG

// A session channel. ByteStream: read = stdin, write = stdout.
class ServerChannel : public os::ByteStream {
 public:
  // The exec or shell request; Errc::gone when the channel closed first, Errc::unsupported (already
  // refused) for subsystems.
  virtual awaitable<result<ExecRequest>> request() = 0;
  // Says yes to it (channel success). Must be called before anything is written.
  virtual void accept() = 0;
  virtual void refuse() = 0;
  virtual awaitable<result<void>> write_error(std::span<const std::byte> bytes) = 0;  // stderr
  // The next signal or window change; Errc::gone at the end.
  virtual awaitable<result<std::variant<WindowChange, SignalRequest>>> next_event() = 0;
  // exit-status or exit-signal, then EOF, then close, in that order, after all written bytes. Ends
  // the channel.
  virtual awaitable<result<void>> exit_status(int status) = 0;
  virtual awaitable<result<void>> exit_signal(const std::string& name, bool core_dumped) = 0;
  // Closes without a status: how a lock is refused.
  void close() noexcept override = 0;
  // Returns when the peer closed the channel or the connection ended (a vanished client).
  virtual awaitable<void> closed() = 0;
};

// A direct-tcpip request, answered when the caller knows.
class ForwardRequest {
 public:
  virtual ~ForwardRequest() = default;
  virtual const std::string& host() const = 0;
  virtual std::uint16_t port() const = 0;
  virtual std::unique_ptr<os::ByteStream> accept() = 0;
  virtual void refuse() = 0;
};

using ChannelRequest =
    std::variant<std::shared_ptr<ServerChannel>, std::unique_ptr<ForwardRequest>>;

// Whose key is this? `user` is the SSH user name. std::nullopt: not let in.
struct Identity {
  std::string name;  // who the key says you are
};
using Authorize =
    std::function<std::optional<Identity>(const PublicKey& key, const std::string& user)>;

class ServerConnection {
 public:
  virtual ~ServerConnection() = default;  // closes
  // Key exchange and authentication, within login_grace. Errc::denied when no key was accepted.
  virtual awaitable<result<Identity>> handshake() = 0;
  virtual const std::string& user() const = 0;  // SSH user name
  virtual const std::string& peer() const = 0;  // address:port
  // The next channel or forward; Errc::gone when the connection ended.
  virtual awaitable<result<ChannelRequest>> next() = 0;
  virtual void close() noexcept = 0;  // all channels too
  // Sends a disconnect message with this text after draining (bounded), then closes.
  virtual awaitable<void> disconnect(const std::string& text) = 0;
  // Last moment at which the peer has proved itself alive (any bytes from it, keepalive answers).
  virtual std::chrono::steady_clock::time_point last_activity() const = 0;
};

// Takes over the socket. Nothing happens until handshake().
std::shared_ptr<ServerConnection> serve(boost::asio::ip::tcp::socket socket,
                                        const PrivateKey& host_key, const ServerOptions& options,
                                        Authorize authorize);

}  // namespace protocol::ssh
