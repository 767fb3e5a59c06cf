// The client's end of one connection.
#pragma once

#include "protocol/ssh/client.h"
#include "protocol/ssh/pump.h"

namespace protocol::ssh {

class ClientPump final : public Pump {
 public:
  ClientPump(const os::executor& ex, PrivateKey key, ClientOptions options);

  // Key exchange and authentication on a connected socket, which is taken over.
  awaitable<result<void>> handshake(int fd);
  awaitable<result<std::unique_ptr<os::ByteStream>>> exec(
      std::string command, std::function<void(std::string_view)> on_error);

 private:
  void stepped() override;
  void over() override {}

  result<void> begin(int fd);
  awaitable<result<void>> exchange_keys();
  awaitable<result<void>> authenticate();
  result<void> check_host_key();

  PrivateKey key_;
  ClientOptions options_;
};

}  // namespace protocol::ssh
