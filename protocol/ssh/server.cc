#include "protocol/ssh/server.h"

#include "protocol/ssh/server_pump.h"

namespace protocol::ssh {

namespace {

class Connection final : public ServerConnection {
 public:
  explicit Connection(std::shared_ptr<ServerPump> pump) : pump_(std::move(pump)) {}
  ~Connection() override { close(); }

  awaitable<result<Identity>> handshake() override { return pump_->handshake(); }
  const std::string& user() const override { return pump_->user(); }
  const std::string& peer() const override { return pump_->peer(); }
  awaitable<result<ChannelRequest>> next() override { return pump_->next(); }
  void close() noexcept override {
    pump_->end(wire::Failure(wire::Errc::gone, "the connection was closed here"));
  }
  awaitable<void> disconnect(const std::string& text) override { return pump_->disconnect(text); }
  std::chrono::steady_clock::time_point last_activity() const override {
    return pump_->last_activity();
  }

 private:
  std::shared_ptr<ServerPump> pump_;
};

}  // namespace

std::shared_ptr<ServerConnection> serve(boost::asio::ip::tcp::socket socket,
                                        const PrivateKey& host_key, const ServerOptions& options,
                                        Authorize authorize) {
  return std::make_shared<Connection>(
      std::make_shared<ServerPump>(std::move(socket), host_key, options, std::move(authorize)));
}

}  // namespace protocol::ssh
