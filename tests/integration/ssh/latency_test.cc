// Round trips, counted at a proxy that makes the line long. Each is a tenth of a second on a slow
// line.
#include "protocol/os/wakeup.h"
#include "tests/support/catch.h"
#include "tests/support/delay_proxy.h"
#include "tests/support/ssh_world.h"

using namespace test;

namespace {

constexpr std::chrono::milliseconds kEachWay{40};

// Sends one command and waits for all of its output.
awaitable<std::unique_ptr<os::ByteStream>> exec_and_hear(ssh::ClientConnection& connection,
                                                         std::size_t size) {
  auto stream = must(co_await connection.exec("cat"));
  const std::string block(size, 'x');
  must(co_await stream->write(bytes(block)));
  std::vector<std::byte> buffer(65536);
  for (std::size_t heard = 0; heard < size;) heard += must(co_await stream->read_some(buffer));
  co_return stream;
}

}  // namespace

TEST_CASE("the first byte of a command's output costs seven round trips, of the next one two") {
  SshWorld world;
  DelayProxy proxy(world.server.port(), kEachWay);
  auto options = world.client_options(proxy.port());
  auto connection = must(world.run(ssh::connect(world.loop.executor(), world.key, options)));
  CHECK(proxy.round_trips() + 1 == 5);  // TCP's own is the one
  auto first = world.run(exec_and_hear(*connection, 5));
  CHECK(proxy.round_trips() + 1 == 7);
  auto second = world.run(exec_and_hear(*connection, 5));
  CHECK(proxy.round_trips() + 1 == 9);
}

// libssh grants 32000 bytes at first: a pack sent ahead would wait a round trip for more.
TEST_CASE("what is written at once goes in one flight, up to a pack's first credit and more") {
  constexpr std::size_t kSize = 300'000;
  SshWorld world({}, [](auto channel, ssh::ExecRequest) -> awaitable<void> {
    channel->accept();
    std::vector<std::byte> buffer(65536);
    for (std::size_t got = 0; got < kSize;) got += must(co_await channel->read_some(buffer));
    must(co_await channel->write(bytes("all")));
    co_await channel->closed();
  });
  DelayProxy proxy(world.server.port(), kEachWay);
  auto options = world.client_options(proxy.port());
  auto connection = must(world.run(ssh::connect(world.loop.executor(), world.key, options)));
  const int before = proxy.round_trips();
  const auto send = [](ssh::ClientConnection& c) -> awaitable<std::unique_ptr<os::ByteStream>> {
    auto stream = must(co_await c.exec("take"));
    const std::string block(kSize, 'x');
    must(co_await stream->write(bytes(block)));
    std::vector<std::byte> buffer(16);
    must(co_await stream->read_some(buffer));
    co_return stream;
  };
  const auto stream = world.run(send(*connection));
  CHECK(proxy.round_trips() - before == 2);  // open, exec
}

// libssh's own window is 1.28 MB, half of which is granted again at a time: 6 MB/s at 100 ms.
TEST_CASE("a channel that moves much has more than three MiB under way") {
  SshWorld world;
  DelayProxy proxy(world.server.port(), std::chrono::milliseconds{0});
  auto options = world.client_options(proxy.port());
  auto connection = must(world.run(ssh::connect(world.loop.executor(), world.key, options)));
  const auto pull = [](SshWorld& w, ssh::ClientConnection& c, DelayProxy& p) -> awaitable<void> {
    auto stream = must(co_await c.exec("bytes 1000000000"));
    std::vector<std::byte> buffer(256 * 1024);
    std::size_t got = 0;
    while (got < 32u << 20) got += must(co_await stream->read_some(buffer));
    // Nobody reads from here on: what still comes is what was granted.
    while (p.bytes_to_client() - got < 3u << 20) {
      co_await os::pause(w.loop.executor(), std::chrono::milliseconds{1});
    }
  };
  world.run(pull(world, *connection, proxy));
}
