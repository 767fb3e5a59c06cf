// A host that asks things of its client: libssh keeps what it does not answer itself.
#include <libssh/server.h>
#include <sys/socket.h>

#include <thread>

#include "protocol/ssh/handles.h"
#include "tests/support/catch.h"
#include "tests/support/ssh_world.h"

using namespace test;

// libssh calls its message mode deprecated; its callbacks cannot put off an answer.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace {

// A server by libssh alone, blocking, for one client: lets it in, and then does what the test says.
class BlockingHost {
 public:
  explicit BlockingHost(asio::ip::tcp::acceptor& acceptor, const ssh::PrivateKey& key) {
    const ssh::BindHandle bind(ssh_bind_new());
    const bool no = false;
    ssh_bind_options_set(bind.get(), SSH_BIND_OPTIONS_PROCESS_CONFIG, &no);
    ssh_key copy = ssh_key_dup(key.handle());
    ssh_bind_options_set(bind.get(), SSH_BIND_OPTIONS_IMPORT_KEY, copy);
    session_.reset(ssh_new());
    const int fd = acceptor.accept().release();
    if (ssh_bind_accept_fd(bind.get(), session_.get(), fd) != SSH_OK ||
        ssh_handle_key_exchange(session_.get()) != SSH_OK) {
      throw std::runtime_error("no client came");
    }
    for (;;) {
      const ssh::MessageHandle message(ssh_message_get(session_.get()));
      if (!message) throw std::runtime_error("the client went away");
      if (ssh_message_type(message.get()) == SSH_REQUEST_SERVICE) {
        ssh_message_service_reply_success(message.get());
      } else if (ssh_message_type(message.get()) == SSH_REQUEST_AUTH) {
        ssh_message_auth_reply_success(message.get(), 0);
        break;
      } else {
        ssh_message_reply_default(message.get());
      }
    }
  }
  ssh_session session() const { return session_.get(); }

 private:
  ssh::SessionHandle session_;
};

}  // namespace

TEST_CASE("a host that opens channels to its client is refused") {
  SshWorld world;
  asio::ip::tcp::acceptor acceptor(world.loop.context(), {asio::ip::address_v4::loopback(), 0});
  const auto key = must(ssh::PrivateKey::generate_ed25519());
  auto options = world.client_options(acceptor.local_endpoint().port());
  options.check_host_key = {};
  std::shared_ptr<ssh::ClientConnection> connection;
  const auto come = [&]() -> awaitable<void> {
    connection = must(co_await ssh::connect(world.loop.executor(), world.key, options));
  };
  world.loop.start(come());
  world.run_beside([&] {
    const BlockingHost host(acceptor, key);
    const long seconds = 20;
    ssh_options_set(host.session(), SSH_OPTIONS_TIMEOUT, &seconds);
    for (int i = 0; i < 3; ++i) {
      ssh_channel channel = ssh_channel_new(host.session());
      CHECK(ssh_channel_open_reverse_forward(channel, "127.0.0.1", 1, "127.0.0.1", 2) == SSH_ERROR);
      CHECK(ssh_is_connected(host.session()) != 0);
      ssh_channel_free(channel);
    }
  });
  CHECK(connection);
}
