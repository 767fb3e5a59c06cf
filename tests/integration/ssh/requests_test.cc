// What stock clients ask of a channel beside running a command.
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "protocol/os/wakeup.h"
#include "tests/support/catch.h"
#include "tests/support/raw_ssh.h"
#include "tests/support/ssh_world.h"

using namespace test;

TEST_CASE("environment and terminal come with the command") {
  SshWorld world;
  RawSsh::End end;
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    auto& channel = client.open();
    CHECK(ssh_channel_request_env(channel.handle, "LANG", "C.UTF-8") == SSH_OK);
    CHECK(ssh_channel_request_env(channel.handle, "EMPTY", "") == SSH_OK);
    CHECK(ssh_channel_request_pty_size(channel.handle, "xterm", 100, 40) == SSH_OK);
    CHECK(ssh_channel_change_pty_size(channel.handle, 101, 41) == SSH_OK);
    CHECK(ssh_channel_request_exec(channel.handle, "env") == SSH_OK);
    end = client.finish(channel);
  });
  CHECK(end.out == "EMPTY=\nLANG=C.UTF-8\nxterm 41x101\n");
}

TEST_CASE("an environment without end is refused, not stored") {
  SshWorld world;
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    auto& channel = client.open();
    const std::string big(30000, 'x');
    CHECK(ssh_channel_request_env(channel.handle, "A", big.c_str()) == SSH_OK);
    CHECK(ssh_channel_request_env(channel.handle, "B", big.c_str()) == SSH_OK);
    CHECK(ssh_channel_request_env(channel.handle, "C", big.c_str()) == SSH_ERROR);
    CHECK(ssh_channel_request_env(channel.handle, "D=E", "x") == SSH_ERROR);
    CHECK(ssh_channel_request_exec(channel.handle, "exit 0") == SSH_OK);
    CHECK(client.finish(channel).status == 0);
  });
}

TEST_CASE("signals and window changes arrive in order") {
  SshWorld world;
  RawSsh::End end;
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    auto& channel = client.open();
    CHECK(ssh_channel_request_pty_size(channel.handle, "xterm", 80, 24) == SSH_OK);
    CHECK(ssh_channel_request_exec(channel.handle, "events") == SSH_OK);
    client.until([&] { return channel.end.out == "ready\n"; });
    CHECK(ssh_channel_change_pty_size(channel.handle, 132, 50) == SSH_OK);
    client.until([&] { return channel.end.out.ends_with("132\n"); });
    CHECK(ssh_channel_request_send_signal(channel.handle, "INT") == SSH_OK);
    CHECK(ssh_channel_request_send_signal(channel.handle, "TERM") == SSH_OK);
    end = client.finish(channel);
  });
  CHECK(end.out == "ready\nwindow 50x132\nsignal INT\nsignal TERM\n");
  CHECK(end.status == 0);
}

TEST_CASE("a shell is a request without a command") {
  std::string command = "?";
  SshWorld world({}, [&](auto channel, ssh::ExecRequest request) -> awaitable<void> {
    command = request.command;
    channel->accept();
    (void)co_await channel->exit_status(0);
  });
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    auto& channel = client.open();
    CHECK(ssh_channel_request_shell(channel.handle) == SSH_OK);
    CHECK(client.finish(channel).status == 0);
  });
  CHECK(command.empty());
}

TEST_CASE("there are no subsystems, no X11, no reverse tunnels and no second command") {
  SshWorld world;
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    auto& channel = client.open();
    CHECK(ssh_channel_request_subsystem(channel.handle, "sftp") == SSH_ERROR);
    auto& other = client.open();
    CHECK(ssh_channel_request_x11(other.handle, 0, nullptr, nullptr, 0) == SSH_ERROR);
    CHECK(ssh_channel_request_exec(other.handle, "hang") == SSH_OK);
    CHECK(ssh_channel_request_exec(other.handle, "exit 1") == SSH_ERROR);
    CHECK(ssh_channel_listen_forward(client.session(), "127.0.0.1", 0, nullptr) == SSH_ERROR);
  });
}

TEST_CASE("channels are limited per connection, and closing one makes room") {
  ssh::ServerOptions options;
  options.max_channels = 3;
  SshWorld world(options);
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    auto& first = client.exec("hang");
    client.exec("hang");
    client.exec("hang");
    CHECK_THROWS(client.open());
    ssh_channel_close(first.handle);
    client.finish(first);
    CHECK_NOTHROW(client.exec("hang"));
    CHECK_THROWS(client.open());
  });
}

TEST_CASE("a tunnel is answered when its end is known") {
  SshWorld world;
  std::vector<std::string> asked;
  world.server.forward = [&](std::unique_ptr<ssh::ForwardRequest> request) -> awaitable<void> {
    asked.push_back(request->host() + " " + std::to_string(request->port()));
    co_await os::pause(world.loop.executor(), std::chrono::milliseconds{20});
    if (request->port() == 1) {
      request->refuse();
      co_return;
    }
    if (request->port() == 2) co_return;  // forgotten: refused too
    auto stream = request->accept();
    std::vector<std::byte> buffer(1024);
    for (;;) {
      auto count = co_await stream->read_some(buffer);
      if (!count || *count == 0) break;
      if (!co_await stream->write(std::span(buffer).first(*count))) break;
    }
    (void)co_await stream->shutdown_write();
  };
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    CHECK(client.forward("localhost", 1) == nullptr);
    CHECK(client.forward("localhost", 2) == nullptr);
    auto* tunnel = client.forward("localhost", 8080);
    REQUIRE(tunnel != nullptr);
    CHECK(ssh_channel_write(tunnel->handle, "ping", 4) == 4);
    client.until([&] { return tunnel->end.out == "ping"; });
    CHECK(ssh_channel_request_exec(tunnel->handle, "exit 0") == SSH_ERROR);
    ssh_channel_send_eof(tunnel->handle);
    CHECK(client.finish(*tunnel).order == "eof close");
    // Commands go on beside it.
    CHECK(client.run("exit 5").status == 5);
  });
  CHECK(asked == std::vector<std::string>{"localhost 1", "localhost 2", "localhost 8080"});
}

TEST_CASE("a tunnel's request that outlives its connection is harmless") {
  SshWorld world;
  std::unique_ptr<ssh::ForwardRequest> kept;
  world.server.forward = [&](std::unique_ptr<ssh::ForwardRequest> request) -> awaitable<void> {
    kept = std::move(request);
    world.server.connections.at(0)->close();
    co_return;
  };
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    CHECK(client.forward("localhost", 80) == nullptr);
  });
  REQUIRE(kept);
  auto stream = kept->accept();
  REQUIRE(stream);
  CHECK_FALSE(world.run(stream->write(bytes("x"))));
  kept.reset();
}

TEST_CASE("a farewell reaches the client in words") {
  SshWorld world;
  std::string words;
  world.run_beside([&] {
    RawSsh client(world.server.port());
    client.login(world.key);
    auto& channel = client.exec("hang");
    asio::post(world.loop.executor(), [&] {
      world.loop.start(world.server.connections.at(0)->disconnect("the agent is going down"));
    });
    CHECK_THROWS(client.finish(channel));
    words = client.error();
  });
  CHECK_THAT(words, Catch::Contains("the agent is going down"));
}
