// Destroying things while coroutines wait in them ends those with Errc::gone, and touches nothing
// freed (run this under AddressSanitizer).
#include "protocol/os/wakeup.h"
#include "tests/support/catch.h"
#include "tests/support/delay_proxy.h"
#include "tests/support/ssh_world.h"

using namespace test;

namespace {

struct Waiter {
  std::optional<Errc> ended;
};

awaitable<void> wait_in_read(os::ByteStream& stream, Waiter& waiter) {
  std::vector<std::byte> buffer(10);
  auto count = co_await stream.read_some(buffer);
  waiter.ended = count ? Errc::exists : count.error().code;
}

awaitable<void> wait_in_write(os::ByteStream& stream, Waiter& waiter) {
  const std::string block(64 << 20, 'x');
  auto written = co_await stream.write(bytes(block));
  waiter.ended = written ? Errc::exists : written.error().code;
}

struct Client {
  std::shared_ptr<ssh::ClientConnection> connection;
  std::unique_ptr<os::ByteStream> stream;
};

awaitable<Client> make_client(SshWorld& world, std::string command) {
  Client client;
  client.connection = must(co_await world.connect());
  client.stream = must(co_await client.connection->exec(command));
  co_return client;
}

}  // namespace

TEST_CASE("the client's stream, connection or server goes away under a reader and a writer") {
  SshWorld world;
  Client client = world.run(make_client(world, "hang"));
  Waiter reader, writer;
  world.loop.start(wait_in_read(*client.stream, reader));
  world.loop.start(wait_in_write(*client.stream, writer));
  world.loop.settle();
  CHECK_FALSE(reader.ended);
  CHECK_FALSE(writer.ended);
  SECTION("closed stream") { client.stream->close(); }
  SECTION("destroyed stream") { client.stream.reset(); }
  SECTION("closed connection") { client.connection->close(); }
  SECTION("destroyed connection") { client.connection.reset(); }
  SECTION("destroyed connection, then stream") {
    client.connection.reset();
    client.stream.reset();
  }
  SECTION("the server's end") {
    world.server.connections.at(0)->close();
    const auto wait = [](SshWorld& w, Waiter& a) -> awaitable<void> {
      while (!a.ended) co_await os::pause(w.loop.executor(), std::chrono::milliseconds{1});
    };
    world.run(wait(world, reader));
  }
  world.loop.settle();
  CHECK(reader.ended == Errc::gone);
  CHECK(writer.ended == Errc::gone);
}

TEST_CASE("a connection is given up while it is being made") {
  SshWorld world;
  for (int turns = 0; turns < 60; ++turns) {
    // The coroutine is destroyed with the loop's world below, or ends; in between it has gone so
    // many turns.
    SshWorld inner;
    bool done = false;
    const auto work = [](SshWorld& w, bool& flag) -> awaitable<void> {
      auto connection = co_await w.connect();
      if (connection) {
        auto stream = co_await (*connection)->exec("hang");
        (void)stream;
      }
      flag = true;
    };
    inner.loop.start(work(inner, done));
    inner.loop.context().restart();
    for (int i = 0; i < turns; ++i) inner.loop.context().poll_one();
  }
}

TEST_CASE("the server closes the connection at every turn of a client's exec") {
  for (int turns = 0; turns < 120; turns += 3) {
    SshWorld world;
    std::optional<Errc> ended;
    const auto work = [](SshWorld& w, std::optional<Errc>& out) -> awaitable<void> {
      auto connection = co_await w.connect();
      if (!connection) {
        out = connection.error().code;
        co_return;
      }
      auto stream = co_await (*connection)->exec("cat");
      if (!stream) {
        out = stream.error().code;
        co_return;
      }
      (void)co_await (*stream)->write(bytes("hello"));
      auto all = co_await read_all(**stream);
      out = all ? Errc::exists : all.error().code;
    };
    world.loop.start(work(world, ended));
    world.loop.context().restart();
    for (int i = 0; i < turns; ++i) world.loop.context().poll_one();
    for (const auto& connection : world.server.connections) connection->close();
    const auto wait = [](SshWorld& w, std::optional<Errc>& out) -> awaitable<void> {
      while (!out) {
        for (const auto& connection : w.server.connections) connection->close();
        co_await os::pause(w.loop.executor(), std::chrono::milliseconds{1});
      }
    };
    world.run(wait(world, ended));
    CHECK(ended == Errc::gone);
  }
}

TEST_CASE("a server's channel goes away under everything that waits in it") {
  Waiter reader, writer, requester, events, closed;
  std::shared_ptr<ssh::ServerChannel> kept;
  SshWorld world({}, [&](auto channel, ssh::ExecRequest) -> awaitable<void> {
    channel->accept();
    kept = std::move(channel);
    co_return;
  });
  Client client = world.run(make_client(world, "x"));
  world.loop.settle();
  REQUIRE(kept);
  world.loop.start(wait_in_read(*kept, reader));
  world.loop.start(wait_in_write(*kept, writer));
  const auto wait_for_event = [](ssh::ServerChannel& channel, Waiter& waiter) -> awaitable<void> {
    auto event = co_await channel.next_event();
    waiter.ended = event ? Errc::exists : event.error().code;
  };
  const auto wait_for_close = [](ssh::ServerChannel& channel, Waiter& waiter) -> awaitable<void> {
    co_await channel.closed();
    waiter.ended = Errc::gone;
  };
  world.loop.start(wait_for_event(*kept, events));
  world.loop.start(wait_for_close(*kept, closed));
  world.loop.settle();
  CHECK_FALSE(reader.ended);
  CHECK_FALSE(writer.ended);
  CHECK_FALSE(closed.ended);
  SECTION("destroyed") { kept.reset(); }
  SECTION("closed here") { kept->close(); }
  bool polite = false;
  SECTION("closed by the client") {
    client.stream.reset();
    polite = true;  // it sends its end of file first
  }
  SECTION("connection closed here") { world.server.connections.at(0)->close(); }
  SECTION("connection closed by the client") { client.connection.reset(); }
  const auto wait = [](SshWorld& w, Waiter& a) -> awaitable<void> {
    while (!a.ended) co_await os::pause(w.loop.executor(), std::chrono::milliseconds{1});
  };
  world.run(wait(world, closed));
  world.run(wait(world, writer));
  CHECK(reader.ended == (polite ? Errc::exists : Errc::gone));
  CHECK(writer.ended == Errc::gone);
  CHECK(events.ended == Errc::gone);
  kept.reset();
}

TEST_CASE("a peer that falls silent is taken for dead, one that answers is not") {
  ssh::ServerOptions options;
  options.silence_limit = std::chrono::milliseconds{300};
  SshWorld world(options);
  DelayProxy proxy(world.server.port(), std::chrono::milliseconds{1});
  auto client_options = world.client_options(proxy.port());
  auto connection = must(world.run(ssh::connect(world.loop.executor(), world.key, client_options)));
  const auto idle = [](SshWorld& w) -> awaitable<void> {
    co_await os::pause(w.loop.executor(), std::chrono::milliseconds{700});
  };
  world.run(idle(world));
  REQUIRE(world.server.connections.size() == 1);  // it answered the keepalives
  CHECK(std::chrono::steady_clock::now() - world.server.connections[0]->last_activity() <
        std::chrono::milliseconds{300});
  proxy.stall(true);
  const auto gone = [](SshWorld& w) -> awaitable<void> {
    while (!w.server.connections.empty()) {
      co_await os::pause(w.loop.executor(), std::chrono::milliseconds{5});
    }
  };
  world.run(gone(world));
}

// An answer that came late was once taken for the next question: the peer was not asked again, and
// given up though it was there.
TEST_CASE("a peer whose answers come late is asked again") {
  static constexpr std::chrono::milliseconds kLimit{1200};
  ssh::ServerOptions options;
  options.silence_limit = kLimit;  // asked every 200 ms
  SshWorld world(options);
  std::vector<std::unique_ptr<DelayProxy>> proxies;
  std::vector<Client> clients;
  const auto delayed = [](SshWorld& w, DelayProxy& proxy, Client& client,
                          std::chrono::milliseconds late) -> awaitable<void> {
    client.connection =
        must(co_await ssh::connect(w.loop.executor(), w.key, w.client_options(proxy.port())));
    client.stream = must(co_await client.connection->exec("hang"));
    proxy.stall_client(true);
    co_await os::pause(w.loop.executor(), late);
    // No answer to what it was asked meanwhile.
    (void)co_await client.stream->write(bytes("x"));
    co_await os::pause(w.loop.executor(), std::chrono::milliseconds{60});
    proxy.stall_client(false);
    co_await os::pause(w.loop.executor(), 2 * kLimit);
  };
  for (int i = 0; i < 8; ++i) {
    proxies.push_back(
        std::make_unique<DelayProxy>(world.server.port(), std::chrono::milliseconds{1}));
    clients.emplace_back();
  }
  int done = 0;
  const auto all = [&]() -> awaitable<void> {
    const auto one = [&](int i) -> awaitable<void> {
      co_await delayed(world, *proxies[i], clients[i], std::chrono::milliseconds{400 + 25 * i});
      ++done;
    };
    for (int i = 0; i < 8; ++i) world.loop.start(one(i));
    while (done < 8) co_await os::pause(world.loop.executor(), std::chrono::milliseconds{5});
  };
  world.run(all());
  CHECK(world.server.connections.size() == 8);
}

TEST_CASE("a client that vanishes at any byte of a command leaves no channel behind") {
  SshWorld world;
  DelayProxy proxy(world.server.port(), std::chrono::milliseconds{0});
  const auto options = world.client_options(proxy.port());
  const auto attempt = [](SshWorld& w, ssh::ClientOptions o) -> awaitable<bool> {
    auto connection = co_await ssh::connect(w.loop.executor(), w.key, o);
    if (!connection) co_return false;
    auto stream = co_await (*connection)->exec("cat");
    if (!stream) co_return false;
    const std::string block(100'000, 'x');
    auto written = co_await (*stream)->write(bytes(block));
    if (written) written = co_await (*stream)->shutdown_write();
    auto all = co_await read_all(**stream);
    co_return all && all->size() == block.size();
  };
  int whole = 0;
  for (std::uint64_t cut = 1000; cut < 120'000; cut += cut < 2000 ? 37 : 4999) {
    proxy.cut_after(cut);
    if (world.run(attempt(world, options))) ++whole;
  }
  CHECK(whole > 0);
  CHECK(whole < 10);
  const auto empty = [](SshWorld& w) -> awaitable<void> {
    while (!w.server.connections.empty() || w.server.open_channels > 0) {
      co_await os::pause(w.loop.executor(), std::chrono::milliseconds{1});
    }
  };
  world.run(empty(world));
}
