// Commands over SSH, both ends real: streams, statuses, the order at the end.
#include "tests/support/catch.h"
#include "tests/support/raw_ssh.h"
#include "tests/support/ssh_world.h"

using namespace test;

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
  (void)co_await stream->shutdown_write();  // it may be over already
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
  const Ran ran = world.run(exec_once(world, "both"));
  CHECK(ran.out == "out");
  CHECK(ran.err == "err");
}

TEST_CASE("input written at once reaches the command, and its end too") {
  SshWorld world;
  CHECK(world.run(exec_once(world, "cat", "hello")).out == "hello");
  CHECK(world.run(exec_once(world, "cat", "")).out.empty());
}

TEST_CASE("the exit status comes before the end of file, and that before the close") {
  SshWorld world;
  RawSsh::End both, zero, killed, unknown;
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    both = client.run("both");
    zero = client.run("exit 0");
    killed = client.run("signal KILL");
    unknown = client.run("nothing");
  });
  CHECK(both.out == "out");
  CHECK(both.err == "err");
  CHECK(both.status == 7);
  CHECK(both.order == "status eof close");
  CHECK(zero.status == 0);
  CHECK(killed.signal == "KILL");
  CHECK_FALSE(killed.status);
  CHECK(killed.order == "signal eof close");
  CHECK(unknown.status == 127);
  CHECK(unknown.err == "no such command\n");
}

TEST_CASE("a channel can be closed without a status: how a lock is refused") {
  SshWorld world;
  RawSsh::End end;
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    end = client.run("close");
  });
  CHECK_FALSE(end.status);
  CHECK(end.signal.empty());
  CHECK(end.order == "eof close");
}

TEST_CASE("a command that is refused breaks the stream with Errc::refused") {
  SshWorld world;
  world.server.refuse = true;
  const auto attempt = [](SshWorld& w) -> awaitable<Errc> {
    auto connection = must(co_await w.connect());
    auto stream = must(co_await connection->exec("cat"));
    (void)co_await stream->write(bytes("too early"));
    auto all = co_await read_all(*stream);
    co_return all ? Errc::io : all.error().code;
  };
  CHECK(world.run(attempt(world)) == Errc::refused);
}

TEST_CASE("a hundred commands share one connection") {
  ssh::ServerOptions options;
  options.max_channels = 100;
  SshWorld world(options);
  const auto many = [](SshWorld& w) -> awaitable<int> {
    auto connection = must(co_await w.connect());
    std::vector<std::unique_ptr<os::ByteStream>> streams;
    for (int i = 0; i < 100; ++i) streams.push_back(must(co_await connection->exec("cat")));
    int good = 0;
    for (int i = 0; i < 100; ++i) {
      const std::string text = "number " + std::to_string(i);
      must(co_await streams[i]->write(bytes(text)));
      must(co_await streams[i]->shutdown_write());
    }
    for (int i = 99; i >= 0; --i) {
      const std::string text = must(co_await read_all(*streams[i]));
      if (text == "number " + std::to_string(i)) ++good;
    }
    co_return good;
  };
  CHECK(world.run(many(world)) == 100);
  world.loop.settle();
  CHECK(world.server.open_channels == 0);
}

TEST_CASE("a thousand commands one after the other leave nothing behind") {
  SshWorld world;
  const auto many = [](SshWorld& w) -> awaitable<int> {
    auto connection = must(co_await w.connect());
    int good = 0;
    for (int i = 0; i < 1000; ++i) {
      const Ran ran = co_await exec(connection, "both");
      if (ran.out == "out" && ran.err == "err") ++good;
    }
    co_return good;
  };
  CHECK(world.run(many(world)) == 1000);
}

// Its number on the other side is not known: anything said about it would be said about another
// one.
TEST_CASE("a channel that was refused, or given up while it was opened, leaves the others alone") {
  ssh::ServerOptions options;
  options.max_channels = 1;
  SshWorld world(options);
  const auto work = [](SshWorld& w) -> awaitable<std::string> {
    auto connection = must(co_await w.connect());
    auto first = must(co_await connection->exec("cat"));
    for (int i = 0; i < 3; ++i) {
      auto second = co_await connection->exec("cat");
      if (second || second.error().code != Errc::refused) throw std::runtime_error("not refused");
    }
    must(co_await first->write(bytes("still here")));
    must(co_await first->shutdown_write());
    co_return must(co_await read_all(*first));
  };
  CHECK(world.run(work(world)) == "still here");
}

TEST_CASE("the host's key is shown once, and a stranger's ends the connection") {
  SshWorld world;
  auto options = world.client_options();
  int shown = 0;
  options.check_host_key = [&](const ssh::PublicKey& key) {
    ++shown;
    CHECK(key == world.server.host_key());
    return false;
  };
  auto connection = world.run(ssh::connect(world.loop.executor(), world.key, options));
  REQUIRE_FALSE(connection);
  CHECK(connection.error().code == Errc::refused);
  CHECK(shown == 1);
  world.loop.settle();
  CHECK(world.server.let_in == 0);
}
