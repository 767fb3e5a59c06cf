#include "tests/support/delay_proxy.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cstdint>
#include <deque>
#include <list>
#include <string>
#include <thread>

namespace test {

namespace asio = boost::asio;
using tcp = asio::ip::tcp;
using Clock = std::chrono::steady_clock;
using boost::system::error_code;

namespace {

constexpr std::size_t kChunk = 64 * 1024;
constexpr std::size_t kMaxHeld = 64 * 1024 * 1024;  // bytes under way in one direction

auto token(error_code& error) { return asio::redirect_error(asio::use_awaitable, error); }

}  // namespace

struct DelayProxy::State {
  State(std::uint16_t to, std::chrono::milliseconds each_way)
      : target(to), delay(each_way), acceptor(io, {asio::ip::address_v4::loopback(), 0}) {}

  struct Link;

  // One direction of one connection.
  struct Lane {
    explicit Lane(asio::io_context& context) : changed(context, Clock::time_point::max()) {}
    struct Piece {
      Clock::time_point due;
      std::string bytes;
    };
    std::deque<Piece> held;
    std::size_t held_bytes = 0;
    bool ended = false;
    asio::steady_timer changed;
  };

  struct Link {
    explicit Link(asio::io_context& context)
        : client(context), server(context), up(context), down(context) {}
    tcp::socket client, server;
    Lane up, down;
    std::uint64_t budget = UINT64_MAX;
    bool client_owes = false;  // it has been spoken to and has not said anything since

    void close() {
      error_code ignored;
      client.close(ignored);
      server.close(ignored);
      up.changed.cancel();
      down.changed.cancel();
    }
  };

  asio::awaitable<void> listen() {
    for (;;) {
      error_code error;
      auto socket = co_await acceptor.async_accept(token(error));
      if (error) co_return;
      ++connections;
      auto link = std::make_shared<Link>(io);
      link->client = std::move(socket);
      link->budget = budget;
      links.push_back(link);
      asio::co_spawn(io, attend(link), asio::detached);
    }
  }

  asio::awaitable<void> attend(std::shared_ptr<Link> link) {
    error_code error;
    co_await link->server.async_connect({asio::ip::address_v4::loopback(), target}, token(error));
    if (error) {
      link->close();
      co_return;
    }
    link->client.set_option(tcp::no_delay(true), error);
    link->server.set_option(tcp::no_delay(true), error);
    asio::co_spawn(io, read(link, link->client, link->up, true), asio::detached);
    asio::co_spawn(io, write(link, link->server, link->up, true), asio::detached);
    asio::co_spawn(io, read(link, link->server, link->down, false), asio::detached);
    asio::co_spawn(io, write(link, link->client, link->down, false), asio::detached);
  }

  asio::awaitable<void> read(std::shared_ptr<Link> link, tcp::socket& from, Lane& lane,
                             bool upwards) {
    std::string buffer(kChunk, '\0');
    std::uint64_t left = upwards ? link->budget : UINT64_MAX;
    while (left > 0) {
      error_code error;
      const std::size_t count = co_await from.async_read_some(
          asio::buffer(buffer, std::min<std::uint64_t>(left, kChunk)), token(error));
      left -= count;
      if (error) break;
      if (upwards && std::exchange(link->client_owes, false)) ++round_trips;
      (upwards ? up_bytes : down_bytes) += count;
      lane.held.push_back({Clock::now() + delay, buffer.substr(0, count)});
      lane.held_bytes += count;
      lane.changed.cancel();
      while ((lane.held_bytes > kMaxHeld || (client_stalled && !upwards)) && from.is_open()) {
        co_await lane.changed.async_wait(token(error));
      }
    }
    lane.ended = true;
    lane.changed.cancel();
  }

  asio::awaitable<void> write(std::shared_ptr<Link> link, tcp::socket& to, Lane& lane,
                              bool upwards) {
    asio::steady_timer due(io);
    error_code error;
    while (to.is_open()) {
      if (stalled || (client_stalled && !upwards) || (lane.held.empty() && !lane.ended)) {
        co_await lane.changed.async_wait(token(error));
        continue;
      }
      if (lane.held.empty()) {
        if (link->budget != UINT64_MAX && upwards) break;
        to.shutdown(tcp::socket::shutdown_send, error);
        co_return;
      }
      due.expires_at(lane.held.front().due);
      co_await due.async_wait(token(error));
      // What follows closely belongs to the same burst: the client must not seem to answer it in
      // parts.
      std::string batch;
      while (!lane.held.empty() && lane.held.front().due <= Clock::now() + delay / 4) {
        batch += lane.held.front().bytes;
        lane.held.pop_front();
      }
      lane.held_bytes -= batch.size();
      lane.changed.cancel();
      if (stalled) continue;
      if (!upwards) link->client_owes = true;
      co_await asio::async_write(to, asio::buffer(batch), token(error));
      if (error) break;
    }
    link->close();
  }

  const std::uint16_t target;
  const std::chrono::milliseconds delay;
  asio::io_context io{1};
  tcp::acceptor acceptor;
  std::list<std::shared_ptr<Link>> links;
  bool stalled = false, client_stalled = false;  // of the thread
  std::atomic<std::uint64_t> budget{UINT64_MAX};
  std::atomic<int> connections{0}, round_trips{0};
  std::atomic<std::uint64_t> up_bytes{0}, down_bytes{0};
  std::thread thread;
};

DelayProxy::DelayProxy(std::uint16_t target, std::chrono::milliseconds each_way)
    : state_(std::make_unique<State>(target, each_way)) {
  asio::co_spawn(state_->io, state_->listen(), asio::detached);
  state_->thread = std::thread([state = state_.get()] { state->io.run(); });
}

DelayProxy::~DelayProxy() {
  state_->io.stop();
  state_->thread.join();
}

std::uint16_t DelayProxy::port() const { return state_->acceptor.local_endpoint().port(); }
int DelayProxy::connections() const { return state_->connections; }
int DelayProxy::round_trips() const { return state_->round_trips; }
std::uint64_t DelayProxy::bytes_to_server() const { return state_->up_bytes; }
std::uint64_t DelayProxy::bytes_to_client() const { return state_->down_bytes; }

void DelayProxy::stall(bool on) {
  asio::post(state_->io, [state = state_.get(), on] {
    state->stalled = on;
    for (const auto& link : state->links) {
      link->up.changed.cancel();
      link->down.changed.cancel();
    }
  });
}

void DelayProxy::stall_client(bool on) {
  asio::post(state_->io, [state = state_.get(), on] {
    state->client_stalled = on;
    for (const auto& link : state->links) link->down.changed.cancel();
  });
}

void DelayProxy::cut_after(std::uint64_t bytes) { state_->budget = bytes; }

void DelayProxy::drop() {
  asio::post(state_->io, [state = state_.get()] {
    for (const auto& link : state->links) link->close();
    state->links.clear();
  });
}

}  // namespace test
