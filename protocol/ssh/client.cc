#include "protocol/ssh/client.h"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "protocol/ssh/client_pump.h"

namespace protocol::ssh {

namespace asio = boost::asio;
using tcp = asio::ip::tcp;
using wire::Errc;

namespace {

class Connection final : public ClientConnection {
 public:
  explicit Connection(std::shared_ptr<ClientPump> pump) : pump_(std::move(pump)) {}
  ~Connection() override { close(); }

  awaitable<result<std::unique_ptr<os::ByteStream>>> exec(
      std::string command, std::function<void(std::string_view)> on_error) override {
    return pump_->exec(std::move(command), std::move(on_error));
  }
  void close() noexcept override {
    pump_->end(Failure(Errc::gone, "the connection was closed here"));
  }

 private:
  std::shared_ptr<ClientPump> pump_;
};

// What the deadline ends: it may outlive the coroutine that set it.
struct Attempt {
  explicit Attempt(const os::executor& ex) : socket(ex), resolver(ex) {}
  tcp::socket socket;
  tcp::resolver resolver;
  std::shared_ptr<ClientPump> pump;
  bool expired = false;

  void expire() {
    expired = true;
    boost::system::error_code ignored;
    resolver.cancel();
    socket.close(ignored);
    if (pump) pump->end(Failure(Errc::timed_out, "the connection was not made in time"));
  }
};

awaitable<result<void>> connect_socket(std::shared_ptr<Attempt> attempt,
                                       const ClientOptions& options) {
  const std::string where = options.host + ":" + std::to_string(options.port);
  std::vector<tcp::endpoint> endpoints;
  boost::system::error_code error;
  const auto address = asio::ip::make_address(options.host, error);
  if (!error) {
    endpoints.emplace_back(address, options.port);
  } else {
    const auto found =
        co_await attempt->resolver.async_resolve(options.host, std::to_string(options.port),
                                                 asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return Failure(Errc::gone, options.host + ": " + error.message());
    for (const auto& entry : found) endpoints.push_back(entry.endpoint());
  }
  error = asio::error::host_not_found;
  for (const auto& endpoint : endpoints) {
    if (attempt->expired) break;
    boost::system::error_code ignored;
    attempt->socket.close(ignored);
    co_await attempt->socket.async_connect(endpoint,
                                           asio::redirect_error(asio::use_awaitable, error));
    if (!error) co_return result<void>();
  }
  co_return Failure(Errc::gone, where + ": " + error.message());
}

awaitable<result<void>> establish(std::shared_ptr<Attempt> attempt, const ClientOptions& options) {
  auto connected = co_await connect_socket(attempt, options);
  if (!connected) co_return connected;
  boost::system::error_code error;
  attempt->socket.set_option(tcp::no_delay(true), error);
  const int fd = attempt->socket.release(error);
  if (error) co_return Failure(Errc::gone, error.message());
  co_return co_await attempt->pump->handshake(fd);
}

}  // namespace

awaitable<result<std::shared_ptr<ClientConnection>>> connect(os::executor ex, PrivateKey key,
                                                             ClientOptions options) {
  const auto attempt = std::make_shared<Attempt>(ex);
  attempt->pump = std::make_shared<ClientPump>(ex, std::move(key), options);
  // Ends the session when it fails, or when nobody waits for it any more.
  const auto connection = std::make_shared<Connection>(attempt->pump);

  asio::steady_timer deadline(ex, options.timeout);
  deadline.async_wait([attempt](boost::system::error_code error) {
    if (!error) attempt->expire();
  });
  auto established = co_await establish(attempt, options);
  const std::size_t stopped = deadline.cancel();
  if (!established && attempt->expired) {
    co_return Failure(Errc::timed_out, options.host + ":" + std::to_string(options.port) +
                                           " did not answer in time");
  }
  if (!established) co_return established.error();
  if (stopped == 0) co_return Failure(Errc::timed_out, "the connection was not made in time");
  co_return std::shared_ptr<ClientConnection>(connection);
}

}  // namespace protocol::ssh
