// The agent's door: accepts TCP connections, lets in whom a key names, and bounds how many may
// stand in it.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <set>
#include <string>

#include "agent/authorized_keys.h"
#include "agent/services.h"
#include "protocol/ssh/key.h"
#include "protocol/ssh/server.h"

namespace agent {

class Listener {
 public:
  static constexpr std::size_t kMaxUnknown = 128;  // connections that have not yet shown a key
  static constexpr std::size_t kMaxUnknownPerPeer = 64;  // of one address
  static constexpr std::size_t kMaxConnections = 1024;

  // Binds and listens. Errc::exists (port taken), denied, not_found (no such host), io.
  static protocol::wire::result<std::unique_ptr<Listener>> open(Services& services,
                                                                AuthorizedKeys& keys,
                                                                protocol::ssh::PrivateKey host_key,
                                                                const std::string& host,
                                                                std::uint16_t port);

  Listener(Services& services, AuthorizedKeys& keys, protocol::ssh::PrivateKey host_key,
           boost::asio::ip::tcp::acceptor acceptor);

  std::string address() const;  // HOST:PORT as bound
  // Accepts until close().
  protocol::os::awaitable<void> run();
  void close();
  // Ends every connection at once.
  void close_connections();

 private:
  static protocol::os::awaitable<void> serve(Listener& self, boost::asio::ip::tcp::socket socket,
                                             std::string peer);

  Services& services_;
  AuthorizedKeys& keys_;
  protocol::ssh::PrivateKey host_key_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::size_t unknown_ = 0;
  std::map<std::string, std::size_t> unknown_of_;  // by address
  std::set<std::shared_ptr<protocol::ssh::ServerConnection>> connections_;
  bool closed_ = false;
};

}  // namespace agent
