// Backpressure in both directions, and what happens to those who stop reading.
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "protocol/os/wakeup.h"
#include "tests/support/catch.h"
#include "tests/support/delay_proxy.h"
#include "tests/support/raw_ssh.h"
#include "tests/support/ssh_world.h"

using namespace test;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMemoryIsOurs = false;  // a sanitizer keeps what was freed
#else
constexpr bool kMemoryIsOurs = true;
#endif

std::size_t resident_bytes() {
  std::size_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

// Bytes whose place can be told from their value.
char pattern(std::size_t place) { return static_cast<char>((place * 2654435761u) >> 13); }

std::string pattern_block(std::size_t start, std::size_t size) {
  std::string block(size, '\0');
  for (std::size_t i = 0; i < size; ++i) block[i] = pattern(start + i);
  return block;
}

bool is_pattern(std::span<const std::byte> block, std::size_t start) {
  for (std::size_t i = 0; i < block.size(); ++i) {
    if (static_cast<char>(block[i]) != pattern(start + i)) return false;
  }
  return true;
}

awaitable<void> send_pattern(os::ByteStream& stream, std::size_t size) {
  for (std::size_t sent = 0; sent < size;) {
    const std::string block = pattern_block(sent, std::min<std::size_t>(100'000, size - sent));
    auto written = co_await stream.write(bytes(block));
    if (!written) co_return;
    sent += block.size();
  }
}

// Takes `step` bytes at a time. How many came, if all were right.
awaitable<std::size_t> receive_pattern(os::ByteStream& stream, std::size_t step) {
  std::vector<std::byte> buffer(step);
  std::size_t total = 0;
  for (;;) {
    auto count = co_await stream.read_some(buffer);
    if (!count) co_return std::size_t{0};
    if (*count == 0) co_return total;
    if (!is_pattern(std::span(buffer).first(*count), total)) co_return std::size_t{0};
    total += *count;
  }
}

awaitable<void> pattern_command(std::shared_ptr<ssh::ServerChannel> channel,
                                ssh::ExecRequest request) {
  channel->accept();
  co_await send_pattern(*channel, std::stoul(request.command));
  (void)co_await channel->exit_status(0);
}

// Reads slowly, in small pieces: each step of the reader is one turn of the loop.
awaitable<void> slow_reader_command(std::shared_ptr<ssh::ServerChannel> channel, ssh::ExecRequest) {
  channel->accept();
  const std::size_t total = co_await receive_pattern(*channel, 1000);
  const std::string text = std::to_string(total);
  (void)co_await channel->write(bytes(text));
  (void)co_await channel->exit_status(0);
}

}  // namespace

TEST_CASE("eight MiB arrive whole at a reader that takes a little at a time") {
  SshWorld world({}, pattern_command);
  const auto read = [](SshWorld& w) -> awaitable<std::size_t> {
    auto connection = must(co_await w.connect());
    auto stream = must(co_await connection->exec(std::to_string(8 << 20)));
    co_return co_await receive_pattern(*stream, 1000);
  };
  CHECK(world.run(read(world)) == 8u << 20);
}

TEST_CASE("eight MiB reach a command that takes a little at a time") {
  SshWorld world({}, slow_reader_command);
  const auto write = [](SshWorld& w) -> awaitable<std::string> {
    auto connection = must(co_await w.connect());
    auto stream = must(co_await connection->exec("count"));
    co_await send_pattern(*stream, 8 << 20);
    must(co_await stream->shutdown_write());
    co_return must(co_await read_all(*stream));
  };
  CHECK(world.run(write(world)) == std::to_string(8 << 20));
}

TEST_CASE("both directions move at the same time") {
  SshWorld world;
  const auto echo = [](SshWorld& w) -> awaitable<std::size_t> {
    auto connection = must(co_await w.connect());
    std::shared_ptr<os::ByteStream> stream = must(co_await connection->exec("cat"));
    const auto send = [](std::shared_ptr<os::ByteStream> s) -> awaitable<void> {
      co_await send_pattern(*s, 32 << 20);
      (void)co_await s->shutdown_write();
    };
    w.loop.start(send(stream));
    co_return co_await receive_pattern(*stream, 65536);
  };
  CHECK(world.run(echo(world)) == 32u << 20);
}

TEST_CASE("a client that does not read costs a bounded amount of memory, and delays nobody else") {
  SshWorld world({}, [](auto channel, ssh::ExecRequest request) -> awaitable<void> {
    if (request.command == "cat") {
      co_await standard_command(channel, request);
    } else {
      co_await pattern_command(channel, request);
    }
  });
  const auto stall = [](SshWorld& w) -> awaitable<std::size_t> {
    auto connection = must(co_await w.connect());
    const std::size_t before = resident_bytes();
    std::vector<std::unique_ptr<os::ByteStream>> stalled;
    for (int i = 0; i < 4; ++i) {
      stalled.push_back(must(co_await connection->exec(std::to_string(1u << 30))));
    }
    for (int i = 0; i < 200; ++i) {
      auto stream = must(co_await connection->exec("cat"));
      must(co_await stream->write(bytes("hello")));
      must(co_await stream->shutdown_write());
      if (must(co_await read_all(*stream)) != "hello")
        throw std::runtime_error("another stream broke");
    }
    const std::size_t after = resident_bytes();
    // Closing them ends their writers.
    stalled.clear();
    while (w.server.open_channels > 0) {
      co_await os::pause(w.loop.executor(), std::chrono::milliseconds{1});
    }
    co_return after > before ? after - before : 0;
  };
  const std::size_t grown = world.run(stall(world));
  if (kMemoryIsOurs) CHECK(grown < 48u << 20);
}

// Many small reads, each of which opens libssh's window again, let 286 MB pile up behind one slow
// reader.
TEST_CASE("a reader that takes a little at a time costs a bounded amount of memory") {
  SshWorld world({}, pattern_command);
  const auto trickle = [](SshWorld& w) -> awaitable<std::size_t> {
    auto connection = must(co_await w.connect());
    auto stream = must(co_await connection->exec(std::to_string(1u << 30)));
    const std::size_t before = resident_bytes();
    std::vector<std::byte> buffer(1000);
    for (int i = 0; i < 400; ++i) {
      must(co_await stream->read_some(buffer));
      co_await os::pause(w.loop.executor(), std::chrono::milliseconds{1});  // the sender's turn
    }
    const std::size_t after = resident_bytes();
    co_return after > before ? after - before : 0;
  };
  const std::size_t grown = world.run(trickle(world));
  if (kMemoryIsOurs) CHECK(grown < 32u << 20);
}

// libssh takes what the peers' windows allow into a buffer without bound, whatever the socket does.
TEST_CASE("a client that stops reading its socket costs a bounded amount of memory") {
  std::atomic<bool> go{false}, measured{false};
  SshWorld world({}, [&](auto channel, ssh::ExecRequest request) -> awaitable<void> {
    channel->accept();
    while (!go) co_await os::pause(world.loop.executor(), std::chrono::milliseconds{1});
    co_await send_pattern(*channel, std::stoul(request.command));
  });
  std::size_t grown = 0;
  const auto measure = [&]() -> awaitable<void> {
    while (!go) co_await os::pause(world.loop.executor(), std::chrono::milliseconds{1});
    const std::size_t before = resident_bytes();
    co_await os::pause(world.loop.executor(), std::chrono::milliseconds{500});
    const std::size_t after = resident_bytes();
    grown = after > before ? after - before : 0;
    measured = true;
  };
  world.loop.start(measure());
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    constexpr std::size_t kWindow = 4 << 20;
    const std::unique_ptr<char[]> room(new char[kWindow]);
    for (int i = 0; i < 30; ++i) {
      auto& channel = client.exec(std::to_string(1u << 30));
      (void)ssh_channel_read_timeout(channel.handle, room.get(), kWindow, 0, 0);
    }
    go = true;
    while (!measured) std::this_thread::yield();
  });
  if (kMemoryIsOurs) CHECK(grown < 40u << 20);
}

// Data waits for the socket, answers do not: libssh would keep them all.
TEST_CASE("a client that asks on and on and reads no answer is sent away") {
  SshWorld world;
  world.server.send_buffer = 8192;
  DelayProxy proxy(world.server.port(), std::chrono::milliseconds{0});
  std::atomic<bool> gone{false};
  const auto watch = [&]() -> awaitable<void> {
    while (world.server.let_in == 0 || !world.server.connections.empty()) {
      co_await os::pause(world.loop.executor(), std::chrono::milliseconds{1});
    }
    gone = true;
  };
  world.loop.start(watch());
  world.run_beside([&] {
    RawSsh client(proxy.port());
    client.login(world.key);
    proxy.stall_client(true);
    ssh_set_blocking(client.session(), 0);
    // Each is one packet, and one refusal back once there are enough.
    for (int i = 0; i < 400'000 && !gone && client.connected(); ++i) {
      ssh_channel channel = ssh_channel_new(client.session());
      ssh_channel_open_session(channel);
    }
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    while (!gone && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    CHECK(gone);
    proxy.drop();
  });
}

// One bare close, with output not yet sent, would send end of file and forget the close: 24 of 28
// clients hung.
TEST_CASE("the close is sent although output is still on its way") {
  SshWorld world({}, [](auto channel, ssh::ExecRequest) -> awaitable<void> {
    channel->accept();
    const std::string block(500'000, 'x');
    (void)co_await channel->write(bytes(block));
    (void)co_await channel->exit_status(0);
  });
  world.server.send_buffer = 8192;
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    for (int i = 0; i < 5; ++i) {
      const auto end = client.run("x");
      CHECK(end.out.size() == 500'000);
      CHECK(end.order == "status eof close");
    }
  });
}

TEST_CASE("a writer whose peer stops reading ends with the channel") {
  bool ended = false;
  SshWorld world({}, [&](auto channel, ssh::ExecRequest) -> awaitable<void> {
    channel->accept();
    const std::string block(64 << 20, 'x');
    const auto written = co_await channel->write(bytes(block));
    ended = !written && written.error().code == Errc::gone;
  });
  SECTION("when the peer closes it") {
    world.run_beside([&] {
      RawSsh client(world.server.port());
      client.login(world.key);
      auto& channel = client.open();
      CHECK(ssh_channel_request_exec(channel.handle, "x") == SSH_OK);
      ssh_channel_close(channel.handle);
      client.finish(channel);
    });
  }
  SECTION("when the connection breaks") {
    world.run_beside([&] {
      RawSsh client(world.server.port());
      client.login(world.key);
      client.exec("x");
      ::shutdown(ssh_get_fd(client.session()), SHUT_RDWR);
    });
  }
  world.loop.settle();
  CHECK(ended);
}
