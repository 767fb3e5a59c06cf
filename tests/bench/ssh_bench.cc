// How long SSH takes, both ends in one process and on one thread each: connect and exec, exec on a
// kept connection, bytes per second in both directions. Prints one line per number.
//
//   ssh_bench [ROUNDS [MEBIBYTES [DELAY_MS]]]      DELAY_MS: each way, through a proxy
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "tests/support/delay_proxy.h"
#include "tests/support/ssh_world.h"

using namespace test;

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

awaitable<void> exec_once(ssh::ClientConnection& connection) {
  auto stream = must(co_await connection.exec("cat"));
  must(co_await stream->write(bytes("x")));
  std::vector<std::byte> buffer(16);
  must(co_await stream->read_some(buffer));
}

awaitable<std::size_t> pull(ssh::ClientConnection& connection, std::size_t size) {
  auto stream = must(co_await connection.exec("bytes " + std::to_string(size)));
  std::vector<std::byte> buffer(256 * 1024);
  std::size_t total = 0;
  while (const std::size_t count = must(co_await stream->read_some(buffer))) total += count;
  co_return total;
}

awaitable<void> push(ssh::ClientConnection& connection, std::size_t size) {
  auto stream = must(co_await connection.exec("count"));
  const std::string block(256 * 1024, 'x');
  for (std::size_t left = size; left > 0; left -= std::min(left, block.size())) {
    must(co_await stream->write(bytes(std::string_view(block).substr(0, left))));
  }
  must(co_await stream->shutdown_write());
  if (must(co_await read_all(*stream)) != std::to_string(size)) throw std::runtime_error("lost");
}

void print(const char* what, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  std::printf("%-28s p50 %8.2f ms   p90 %8.2f ms   n %zu\n", what, times[times.size() / 2],
              times[times.size() * 9 / 10], times.size());
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
  const std::size_t size = (argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 512) << 20;
  const int delay = argc > 3 ? std::atoi(argv[3]) : 0;

  SshWorld world;  // the server's loop runs on a thread of its own
  std::optional<DelayProxy> proxy;
  if (delay > 0) proxy.emplace(world.server.port(), std::chrono::milliseconds{delay});
  auto options = world.client_options(proxy ? proxy->port() : 0);
  std::thread server([&] { world.loop.context().run(); });

  Loop loop;
  const auto connect = [&] {
    return must(loop.run(ssh::connect(loop.executor(), world.key, options)));
  };
  std::vector<double> cold, kept;
  for (int i = 0; i < rounds; ++i) {
    const auto begin = Clock::now();
    auto connection = connect();
    loop.run(exec_once(*connection));
    cold.push_back(milliseconds_since(begin));
  }
  print("connect and exec", cold);
  auto connection = connect();
  for (int i = 0; i < rounds; ++i) {
    const auto begin = Clock::now();
    loop.run(exec_once(*connection));
    kept.push_back(milliseconds_since(begin));
  }
  print("exec on a kept connection", kept);

  auto begin = Clock::now();
  if (loop.run(pull(*connection, size), std::chrono::seconds{600}) != size) return 1;
  std::printf("%-28s %8.1f MiB/s\n", "from the command",
              size / 1048.576 / milliseconds_since(begin));
  begin = Clock::now();
  loop.run(push(*connection, size), std::chrono::seconds{600});
  std::printf("%-28s %8.1f MiB/s\n", "to the command", size / 1048.576 / milliseconds_since(begin));

  connection.reset();
  world.loop.context().stop();
  server.join();
}
