// The server's end of one connection: key exchange, who may come in, and what the peer asks for.
// libssh runs in its message mode: every request is kept until we have decided, and may be answered
// later.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <deque>

#include "protocol/ssh/pump.h"
#include "protocol/ssh/server.h"

namespace protocol::ssh {

// A direct-tcpip request that waits for its answer.
struct PendingForward {
  MessageHandle message;  // none: answered, or the connection ended
  std::string host;
  std::uint16_t port = 0;
};

class ServerPump final : public Pump {
 public:
  ServerPump(boost::asio::ip::tcp::socket socket, PrivateKey host_key, ServerOptions options,
             Authorize authorize);

  // As in ServerConnection.
  awaitable<result<Identity>> handshake();
  awaitable<result<ChannelRequest>> next();
  awaitable<void> disconnect(std::string text) {
    return part(Failure(wire::Errc::cancelled, std::move(text)));
  }
  const std::string& user() const { return user_; }
  const std::string& peer() const { return peer_; }

  // Null when the connection is gone.
  std::unique_ptr<os::ByteStream> accept(PendingForward& forward);
  void refuse(PendingForward& forward);

 private:
  void stepped() override;
  void over() override;

  result<void> begin();
  void read_messages();
  void dispatch(MessageHandle message);
  void service(ssh_message message);
  void authenticate(MessageHandle message);
  void accepted(ssh_message message, Identity identity);
  void refused();
  void notice_silent_packets(std::uint64_t arrived, std::uint64_t answered);
  void answer_silent_packet();
  void open(MessageHandle message);
  void hand_out(ChannelRequest request);
  std::size_t in_use() const;

  boost::asio::ip::tcp::socket socket_;
  PrivateKey host_key_;
  ServerOptions options_;
  Authorize authorize_;
  std::string peer_;
  std::string user_;

  std::optional<Identity> identity_;
  bool auth_service_ = false;  // the peer has asked for ssh-userauth
  int failures_ = 0;
  int early_messages_ = 0;   // of any kind, before it was let in
  MessageHandle last_auth_;  // answered; the only means to answer a request that libssh has dropped
  std::uint64_t messages_ = 0;
  std::uint64_t seen_packets_in_ = 0, seen_packets_out_ = 0, seen_messages_ = 0;
  boost::asio::steady_timer grace_timer_;
  boost::asio::steady_timer silent_packet_timer_;

  os::Wakeup changed_;
  std::deque<ChannelRequest> requests_;  // not yet taken by next()
  std::vector<std::shared_ptr<PendingForward>> forwards_;
};

}  // namespace protocol::ssh
