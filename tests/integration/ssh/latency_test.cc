// Round trips, counted at a proxy that makes the line long. Each is a tenth of a second on a slow
// line.
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

// libssh grants 32000 bytes at first: a pack sent ahead would wait for more.
TEST_CASE("what is written at once goes in one flight, up to a pack's first credit and more") {
  SshWorld world;
  DelayProxy proxy(world.server.port(), kEachWay);
  auto options = world.client_options(proxy.port());
  auto connection = must(world.run(ssh::connect(world.loop.executor(), world.key, options)));
  const auto begin = std::chrono::steady_clock::now();
  world.run(exec_and_hear(*connection, 300'000));
  // Open and exec: two round trips, and some for a machine that is busy. Three windows of 32000
  // bytes would be many more.
  CHECK(std::chrono::steady_clock::now() - begin < 4 * 2 * kEachWay);
}

TEST_CASE("bulk moves at more than a window of libssh per round trip") {
  SshWorld world;
  DelayProxy proxy(world.server.port(), kEachWay);
  auto options = world.client_options(proxy.port());
  auto connection = must(world.run(ssh::connect(world.loop.executor(), world.key, options)));
  const auto pull = [](ssh::ClientConnection& c) -> awaitable<std::size_t> {
    auto stream = must(co_await c.exec("bytes 33554432"));
    co_return must(co_await read_all(*stream)).size();
  };
  const auto begin = std::chrono::steady_clock::now();
  CHECK(world.run(pull(*connection)) == 32u << 20);
  // With 1.28 MB per window, half of which is granted again at a time, it takes 50 round trips and
  // more.
  CHECK(std::chrono::steady_clock::now() - begin < 30 * 2 * kEachWay);
}
