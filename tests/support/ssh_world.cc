#include "tests/support/ssh_world.h"

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <thread>

#include "protocol/os/wakeup.h"

namespace test {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

awaitable<result<std::string>> read_all(os::ByteStream& stream) {
  std::string all;
  std::vector<std::byte> buffer(64 * 1024);
  for (;;) {
    auto count = co_await stream.read_some(buffer);
    if (!count) co_return count.error();
    if (*count == 0) co_return all;
    all.append(reinterpret_cast<const char*>(buffer.data()), *count);
  }
}

awaitable<void> standard_command(std::shared_ptr<ssh::ServerChannel> channel,
                                 ssh::ExecRequest request) {
  channel->accept();
  const std::string word = request.command.substr(0, request.command.find(' '));
  const std::string rest =
      word.size() < request.command.size() ? request.command.substr(word.size() + 1) : "";
  std::vector<std::byte> buffer(64 * 1024);
  int status = 0;
  if (word == "cat") {
    for (;;) {
      auto count = co_await channel->read_some(buffer);
      if (!count || *count == 0) break;
      if (!co_await channel->write(std::span(buffer).first(*count))) break;
    }
  } else if (word == "both") {
    (void)co_await channel->write(bytes("out"));
    (void)co_await channel->write_error(bytes("err"));
    status = 7;
  } else if (word == "exit") {
    status = std::stoi(rest);
  } else if (word == "signal") {
    (void)co_await channel->exit_signal(rest, false);
    co_return;
  } else if (word == "bytes") {
    std::string block(64 * 1024, 'x');
    for (std::size_t left = std::stoul(rest); left > 0;) {
      const std::size_t count = std::min(left, block.size());
      auto written = co_await channel->write(bytes(std::string_view(block).substr(0, count)));
      if (!written) co_return;
      left -= count;
    }
  } else if (word == "count") {
    std::size_t total = 0;
    for (;;) {
      auto count = co_await channel->read_some(buffer);
      if (!count || *count == 0) break;
      total += *count;
    }
    const std::string text = std::to_string(total);
    (void)co_await channel->write(bytes(text));
  } else if (word == "env") {
    std::string text;
    for (const auto& [name, value] : request.env) text += name + "=" + value + "\n";
    if (request.terminal) {
      text += request.terminal->term + " " + std::to_string(request.terminal->rows) + "x" +
              std::to_string(request.terminal->columns) + "\n";
    }
    (void)co_await channel->write(bytes(text));
  } else if (word == "events") {
    (void)co_await channel->write(bytes("ready\n"));
    for (;;) {
      auto event = co_await channel->next_event();
      if (!event) break;
      std::string text;
      if (const auto* window = std::get_if<ssh::WindowChange>(&*event)) {
        text =
            "window " + std::to_string(window->rows) + "x" + std::to_string(window->columns) + "\n";
      } else {
        text = "signal " + std::get<ssh::SignalRequest>(*event).name + "\n";
      }
      (void)co_await channel->write(bytes(text));
      if (text == "signal TERM\n") break;
    }
  } else if (word == "hang") {
    co_await channel->closed();
    co_return;
  } else if (word == "close") {
    channel->close();
    co_return;
  } else {
    (void)co_await channel->write_error(bytes("no such command\n"));
    status = 127;
  }
  (void)co_await channel->exit_status(status);
}

SshServer::SshServer(Loop& loop, ssh::ServerOptions options, Command command)
    : authorize([](const ssh::PublicKey&, const std::string&) { return ssh::Identity{"tester"}; }),
      loop_(loop),
      options_(std::move(options)),
      command_(std::move(command)),
      host_key_(must(ssh::PrivateKey::generate_ed25519())),
      public_host_key_(host_key_.public_key()),
      acceptor_(loop.context(), {asio::ip::address_v4::loopback(), 0}),
      port_(acceptor_.local_endpoint().port()) {
  os::spawn(loop_.executor(), "listen", listen());
}

SshServer::~SshServer() = default;

awaitable<void> SshServer::listen() {
  for (;;) {
    boost::system::error_code error;
    auto socket = co_await acceptor_.async_accept(asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return;
    ++accepted;
    if (send_buffer > 0) {
      socket.set_option(asio::socket_base::send_buffer_size(send_buffer), error);
    }
    auto connection = ssh::serve(std::move(socket), host_key_, options_,
                                 [this](const ssh::PublicKey& key, const std::string& user) {
                                   return authorize(key, user);
                                 });
    connections.push_back(connection);
    os::spawn(loop_.executor(), "attend", attend(std::move(connection)));
  }
}

awaitable<void> SshServer::attend(std::shared_ptr<ssh::ServerConnection> connection) {
  auto identity = co_await connection->handshake();
  if (!identity) {
    refusals.push_back(std::string(name(identity.error().code)) + ": " + identity.error().what);
  } else {
    ++let_in;
    for (;;) {
      auto request = co_await connection->next();
      if (!request) break;
      if (auto* channel = std::get_if<std::shared_ptr<ssh::ServerChannel>>(&*request)) {
        os::spawn(loop_.executor(), "channel", attend_channel(std::move(*channel)));
      } else if (forward) {
        os::spawn(loop_.executor(), "forward",
                  forward(std::move(std::get<std::unique_ptr<ssh::ForwardRequest>>(*request))));
      }
    }
  }
  std::erase(connections, connection);
}

awaitable<void> SshServer::attend_channel(std::shared_ptr<ssh::ServerChannel> channel) {
  ++open_channels;
  auto request = co_await channel->request();
  if (request && refuse) {
    channel->refuse();
    co_await channel->closed();
  } else if (request) {
    co_await command_(channel, *request);
  }
  --open_channels;
}

SshWorld::~SshWorld() {
  server.connections.clear();
  loop.settle();
}

ssh::ClientOptions SshWorld::client_options(std::uint16_t port) const {
  ssh::ClientOptions options;
  options.host = "127.0.0.1";
  options.port = port != 0 ? port : server.port();
  options.user = "sandbox";
  const ssh::PublicKey pinned = server.host_key();
  options.check_host_key = [pinned](const ssh::PublicKey& offered) { return offered == pinned; };
  return options;
}

void SshWorld::run_beside(std::function<void()> blocking) {
  struct Progress {
    explicit Progress(const os::executor& ex) : ended(ex) {}
    bool done = false;
    os::Wakeup ended;
  };
  const auto progress = std::make_shared<Progress>(loop.executor());
  std::exception_ptr thrown, hung;
  std::thread thread([&] {
    try {
      blocking();
    } catch (...) {
      thrown = std::current_exception();
    }
    asio::post(loop.executor(), [progress] {
      progress->done = true;
      progress->ended.notify();
    });
  });
  const auto wait = [](std::shared_ptr<Progress> p) -> awaitable<void> {
    while (!p->done) co_await p->ended.wait();
  };
  try {
    loop.run(wait(progress), std::chrono::seconds{60});
  } catch (...) {
    // Without connections the thread comes to an end too.
    hung = std::current_exception();
    server.connections.clear();
    loop.settle();
  }
  thread.join();
  if (hung) std::rethrow_exception(hung);
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace test
