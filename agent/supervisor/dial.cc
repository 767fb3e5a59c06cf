// Tunnels into the sandbox's network.
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "agent/supervisor/connection.h"
#include "agent/supervisor/connection_request.h"
#include "agent/supervisor/supervisor.h"
#include "protocol/os/fd_stream.h"
#include "protocol/wire/limits.h"

namespace agent::supervisor {

namespace asio = boost::asio;
namespace os = protocol::os;
namespace wire = protocol::wire;
using asio::ip::tcp;
using wire::Errc;
using wire::Failure;
using wire::FrameKind;

namespace {

// Loopback alone, whichever of its two addresses somebody listens on. `cut` is called for an
// attempt to end early, and empty when there is none.
awaitable<result<std::unique_ptr<os::ByteStream>>> connect_loopback(os::executor ex,
                                                                    std::uint16_t port,
                                                                    std::function<void()>& cut) {
  std::string why;
  for (const asio::ip::address& address : {asio::ip::address(asio::ip::address_v4::loopback()),
                                           asio::ip::address(asio::ip::address_v6::loopback())}) {
    tcp::socket socket(ex);
    cut = [&socket] {
      boost::system::error_code ignored;
      socket.close(ignored);
    };
    auto [error] = co_await socket.async_connect(tcp::endpoint(address, port),
                                                 asio::as_tuple(asio::use_awaitable));
    cut = nullptr;
    if (error == asio::error::operation_aborted) break;
    if (error) {
      if (why.empty()) why = error.message();
      continue;
    }
    boost::system::error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    os::Fd fd(socket.release());
    std::unique_ptr<os::ByteStream> stream = os::FdStream::both(ex, std::move(fd));
    co_return stream;
  }
  co_return Failure(Errc::gone, "port " + std::to_string(port) + " of the sandbox: " + why);
}

}  // namespace

awaitable<void> Connection::dial(std::shared_ptr<Connection> self, std::uint32_t number,
                                 std::uint16_t port) {
  if (self->over()) co_return;
  auto cut = self->dialling_.emplace(self->dialling_.end());
  auto connected = co_await connect_loopback(self->supervisor_.executor(), port, *cut);
  self->dialling_.erase(cut);
  Request* of = self->request(number);
  if (!of) co_return;
  if (!connected) {
    of->failed = true;
    self->discard_streams(number, *of);
    self->fail(number, "dial", connected.error());
    co_return;
  }
  if (self->over()) co_return;
  std::shared_ptr<os::ByteStream> stream = std::move(*connected);
  self->dialled_.push_back(stream);
  self->frames_.send(number, wire::Started{});
  self->begin(feed_tunnel(self, number, stream), "tunnel input");
  std::vector<std::byte> buffer(wire::kMaxBulkBytes);
  for (;;) {
    auto room = co_await self->frames_.sendable(FrameKind::output, number);
    if (!room) break;
    auto count = co_await stream->read_some(buffer);
    if (!count || *count == 0) break;
    auto sent = co_await self->frames_.send_bulk(
        FrameKind::output, number,
        std::string_view(reinterpret_cast<const char*>(buffer.data()), *count));
    if (!sent) break;
  }
  self->frames_.end_bulk(FrameKind::output, number);
}

awaitable<void> Connection::feed_tunnel(std::shared_ptr<Connection> self, std::uint32_t number,
                                        std::shared_ptr<os::ByteStream> stream) {
  Request& of = *self->request(number);
  for (;;) {
    auto bytes = co_await of.input.next();
    if (!bytes) break;
    self->buffered_ -= bytes->size();
    auto written = co_await stream->write(std::as_bytes(std::span(*bytes)));
    self->frames_.consumed(FrameKind::input, number, bytes->size());
    if (!written) break;
  }
  auto ended = co_await stream->shutdown_write();
  (void)ended;
}

}  // namespace agent::supervisor
