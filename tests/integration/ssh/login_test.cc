// Who may come in, and what becomes of those who may not.
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "protocol/os/wakeup.h"
#include "tests/support/catch.h"
#include "tests/support/delay_proxy.h"
#include "tests/support/raw_ssh.h"
#include "tests/support/ssh_world.h"

using namespace test;

namespace {

awaitable<Errc> connect_code(SshWorld& world) {
  auto connection = co_await world.connect();
  co_return connection ? Errc::exists : connection.error().code;
}

void admit_nobody(SshWorld& world) {
  world.server.authorize = [](const ssh::PublicKey&, const std::string&) {
    return std::optional<ssh::Identity>();
  };
}

// What a plain socket is sent, up to the end.
awaitable<std::string> talk(SshWorld& world, std::string text) {
  boost::system::error_code error;
  asio::ip::tcp::socket socket(world.loop.executor());
  co_await socket.async_connect({asio::ip::address_v4::loopback(), world.server.port()},
                                asio::use_awaitable);
  std::string heard;
  try {
    co_await asio::async_write(socket, asio::buffer(text), asio::use_awaitable);
    co_await asio::async_read(socket, asio::dynamic_buffer(heard), asio::use_awaitable);
  } catch (const boost::system::system_error&) {
  }
  co_return heard;
}

awaitable<void> nobody_connected(SshWorld& world) {
  while (!world.server.connections.empty()) {
    co_await os::pause(world.loop.executor(), std::chrono::milliseconds{1});
  }
}

}  // namespace

TEST_CASE("the key says who it is, under the user name it came with") {
  SshWorld world;
  std::string user;
  ssh::PublicKey offered;
  world.server.authorize = [&](const ssh::PublicKey& key, const std::string& name) {
    user = name;
    offered = key;
    return ssh::Identity{"alice"};
  };
  REQUIRE(world.run(world.connect()));
  CHECK(user == "sandbox");
  CHECK(offered == world.key.public_key());
}

TEST_CASE("a key that nobody knows is denied") {
  SshWorld world;
  admit_nobody(world);
  CHECK(world.run(connect_code(world)) == Errc::denied);
  CHECK(world.server.let_in == 0);
}

TEST_CASE("a client has six tries") {
  SshWorld world;
  admit_nobody(world);
  world.run_beside([&] {
    RawSsh client(world.server.port());
    for (int i = 0; i < 6; ++i) {
      CHECK(client.authenticate(must(ssh::PrivateKey::generate_ed25519())) == SSH_AUTH_DENIED);
    }
    CHECK_THROWS(client.until([] { return false; }));
    CHECK_THAT(client.error(), Catch::Contains("Too many authentication failures"));
  });
  world.loop.settle();
  REQUIRE(world.server.refusals.size() == 1);
  CHECK(world.server.refusals[0] == "denied: Too many authentication failures");
}

TEST_CASE("passwords are not offered") {
  SshWorld world;
  world.run_beside([&] {
    RawSsh client(world.server.port());
    CHECK(ssh_userauth_none(client.session(), nullptr) == SSH_AUTH_DENIED);
    CHECK(ssh_userauth_list(client.session(), nullptr) == SSH_AUTH_METHOD_PUBLICKEY);
    CHECK(ssh_userauth_password(client.session(), nullptr, "secret") == SSH_AUTH_DENIED);
  });
}

TEST_CASE("who only connects is sent away after the grace time") {
  ssh::ServerOptions options;
  options.login_grace = std::chrono::milliseconds{100};
  SshWorld world(options);
  SECTION("silently") { (void)world.run(talk(world, "")); }
  SECTION("after the banner") { (void)world.run(talk(world, "SSH-2.0-slow\r\n")); }
  SECTION("after the key exchange") {
    world.run_beside([&] {
      RawSsh client(world.server.port());
      CHECK_THROWS(client.until([] { return false; }));  // works until the connection is closed
      CHECK_FALSE(client.connected());
    });
  }
  world.loop.settle();
  REQUIRE(world.server.refusals.size() == 1);
  CHECK(world.server.refusals[0].starts_with("timed_out"));
}

TEST_CASE("bytes that are not SSH end the connection") {
  SshWorld world;
  const std::string sent = GENERATE(as<std::string>{}, "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                                    std::string(100000, 'x'), std::string(300, '\0') + "\n",
                                    "SSH-1.5-old\r\n", "SSH-2.0-x\r\n" + std::string(5000, '\xff'),
                                    "\n", "SSH-2.0-x\r\n" + std::string(5000, '\0'));
  (void)world.run(talk(world, sent));
  world.loop.settle();
  CHECK(world.server.refusals.size() == 1);
  CHECK(world.server.connections.empty());
}

TEST_CASE("a client that vanishes while logging in leaves nothing behind") {
  SshWorld world;
  DelayProxy proxy(world.server.port(), std::chrono::milliseconds{0});
  auto options = world.client_options(proxy.port());
  // The handshake is some 1500 bytes of the client: every stage is met.
  for (std::uint64_t cut = 0; cut < 1600; cut += 50) {
    proxy.cut_after(cut);
    auto connection = world.run(ssh::connect(world.loop.executor(), world.key, options));
    if (cut < 1200) CHECK_FALSE(connection);
  }
  world.run(nobody_connected(world));
  CHECK(world.server.connections.empty());
  CHECK(world.run(connect_code(world)) == Errc::exists);
}

TEST_CASE("nobody there is Errc::gone, nobody answering is Errc::timed_out") {
  SshWorld world;
  asio::ip::tcp::acceptor silent(world.loop.context(), {asio::ip::address_v4::loopback(), 0});
  auto options = world.client_options(silent.local_endpoint().port());
  options.timeout = std::chrono::milliseconds{100};
  auto unanswered = world.run(ssh::connect(world.loop.executor(), world.key, options));
  REQUIRE_FALSE(unanswered);
  CHECK(unanswered.error().code == Errc::timed_out);

  silent.close();
  auto refused = world.run(ssh::connect(world.loop.executor(), world.key, options));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Errc::gone);
  CHECK(refused.error().what.find("refused") != std::string::npos);
}

TEST_CASE("a stock client's RSA and ECDSA keys are verified") {
  SshWorld world;
  for (const auto& [type, size] : {std::pair{SSH_KEYTYPE_RSA, 2048}, {SSH_KEYTYPE_ECDSA, 256}}) {
    ssh_key made = nullptr;
    REQUIRE(ssh_pki_generate(type, size, &made) == SSH_OK);
    const ssh::PrivateKey key(std::shared_ptr<ssh_key_struct>(made, ssh_key_free));
    world.run_beside([&] {
      RawSsh client(world.server.port());
      // libssh's client learns only by this which signatures the server takes.
      (void)ssh_userauth_none(client.session(), nullptr);
      client.login(key);
      CHECK(client.run("exit 3").status == 3);
    });
  }
}
