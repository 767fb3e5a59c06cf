// Commands over SSH, both ends real: streams, statuses, ends.
#include "tests/support/catch.h"
#include "tests/support/ssh_world.h"

using namespace tests;

namespace {

struct Ran {
  std::string out, err;
};

awaitable<Ran> exec(std::shared_ptr<ssh::ClientConnection> connection, std::string command,
                    std::string input = {}) {
  Ran ran;
  auto stream =
      must(co_await connection->exec(command, [&](std::string_view text) { ran.err += text; }));
  must(co_await stream->write(bytes(input)));
  must(co_await stream->shutdown_write());
  ran.out = must(co_await read_all(*stream));
  co_return ran;
}

awaitable<Ran> exec_once(SshWorld& world, std::string command, std::string input = {}) {
  auto connection = must(co_await world.connect());
  co_return co_await exec(connection, command, input);
}

}  // namespace

TEST_CASE("a command's output and errors come back apart") {
  SshWorld world;
  const Ran ran = run(world.io, exec_once(world, "both"));
  CHECK(ran.out == "out");
  CHECK(ran.err == "err");
}

TEST_CASE("input written at once reaches the command, and its end too") {
  SshWorld world;
  CHECK(run(world.io, exec_once(world, "cat", "hello")).out == "hello");
  CHECK(run(world.io, exec_once(world, "cat", "")).out.empty());
}
