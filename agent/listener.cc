#include "agent/listener.h"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "agent/connection.h"
#include "agent/lifetime.h"
#include "agent/log.h"
#include "protocol/os/fd.h"
#include "protocol/os/wakeup.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using boost::asio::ip::tcp;
using wire::Failure;

namespace {

constexpr std::chrono::milliseconds kAcceptPause{200};  // when descriptors have run out

}  // namespace

wire::result<std::unique_ptr<Listener>> Listener::open(Services& services, AuthorizedKeys& keys,
                                                       protocol::ssh::PrivateKey host_key,
                                                       const std::string& host,
                                                       std::uint16_t port) {
  std::string where = host + ":" + std::to_string(port);
  boost::system::error_code error;
  tcp::resolver resolver(services.executor);
  auto found = resolver.resolve(host, std::to_string(port),
                                tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) {
    return Failure(wire::Errc::not_found, "cannot resolve " + where + ": " + error.message());
  }
  tcp::endpoint endpoint = *found.begin();
  tcp::acceptor acceptor(services.executor);
  acceptor.open(endpoint.protocol(), error);
  if (!error) {
    acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  }
  if (!error) {
    acceptor.bind(endpoint, error);
  }
  if (!error) {
    acceptor.listen(boost::asio::socket_base::max_listen_connections, error);
  }
  if (error) {
    return os::errno_failure(error.value(), "cannot listen on " + where);
  }
  return std::make_unique<Listener>(services, keys, std::move(host_key), std::move(acceptor));
}

Listener::Listener(Services& services, AuthorizedKeys& keys, protocol::ssh::PrivateKey host_key,
                   tcp::acceptor acceptor)
    : services_(services),
      keys_(keys),
      host_key_(std::move(host_key)),
      acceptor_(std::move(acceptor)) {}

std::string Listener::address() const {
  boost::system::error_code error;
  auto endpoint = acceptor_.local_endpoint(error);
  std::string host = endpoint.address().to_string();
  if (endpoint.address().is_v6()) {
    host = "[" + host + "]";
  }
  return host + ":" + std::to_string(endpoint.port());
}

os::awaitable<void> Listener::run() {
  while (!closed_) {
    boost::system::error_code error;
    tcp::endpoint from;
    tcp::socket socket = co_await acceptor_.async_accept(
        from, boost::asio::redirect_error(boost::asio::use_awaitable, error));
    if (closed_) {
      co_return;
    }
    if (error) {
      log::peer("accept_failed", {{"error", error.message()}});
      co_await os::pause(services_.executor, kAcceptPause);
      continue;
    }
    std::string peer = from.address().to_string();
    if (unknown_ >= kMaxUnknown || unknown_of_[peer] >= kMaxUnknownPerPeer ||
        connections_.size() >= kMaxConnections) {
      log::peer("connection_refused", {{"peer", peer}, {"why", "too many"}});
      continue;  // closes it
    }
    os::spawn(services_.executor, "connection", serve(*this, std::move(socket), std::move(peer)));
  }
}

os::awaitable<void> Listener::serve(Listener& self, tcp::socket socket, std::string peer) {
  // Counts who has not yet shown a key.
  struct Unknown {
    Listener& listener;
    std::string peer;
    bool counted = true;
    Unknown(Listener& l, std::string p) : listener(l), peer(std::move(p)) {
      ++listener.unknown_;
      ++listener.unknown_of_[peer];
    }
    void known() {
      if (std::exchange(counted, false)) {
        --listener.unknown_;
        if (--listener.unknown_of_[peer] == 0) {
          listener.unknown_of_.erase(peer);
        }
      }
    }
    ~Unknown() { known(); }
  } unknown(self, std::move(peer));
  struct Open {
    Listener& listener;
    std::shared_ptr<protocol::ssh::ServerConnection> connection;
    ~Open() { listener.connections_.erase(connection); }
  };
  boost::system::error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  protocol::ssh::ServerOptions options;
  options.silence_limit = std::chrono::seconds(self.services_.info.ttl_seconds);
  auto authorize = [&self](const protocol::ssh::PublicKey& key,
                           const std::string&) -> std::optional<protocol::ssh::Identity> {
    auto user = self.keys_.user_of(key);
    if (!user) {
      return std::nullopt;
    }
    return protocol::ssh::Identity{*user};
  };
  Open open{self, protocol::ssh::serve(std::move(socket), self.host_key_, options, authorize)};
  self.connections_.insert(open.connection);
  Lifetime::Enlisted enlisted(
      self.services_.lifetime,
      [&] {
        if (unknown.counted) {
          open.connection->close();
        }
      },
      true);
  auto identity = co_await open.connection->handshake();
  unknown.known();
  if (!identity) {
    log::peer("not_let_in", {{"peer", open.connection->peer()}, {"error", identity.error().what}});
    co_return;
  }
  log::peer("connected", {{"peer", open.connection->peer()}, {"user", identity->name}});
  co_await serve_connection(self.services_, open.connection, identity->name);
  log::peer("disconnected", {{"peer", open.connection->peer()}, {"user", identity->name}});
}

void Listener::close() {
  closed_ = true;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
}

void Listener::close_connections() {
  auto all = connections_;
  for (const auto& connection : all) {
    connection->close();
  }
}

}  // namespace agent
