#include "protocol/ssh/client_pump.h"

#include <fcntl.h>
#include <unistd.h>

#include "protocol/ssh/client_channel.h"

// libssh calls its message mode deprecated; without it nothing that a host asks is ever answered.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace protocol::ssh {

using wire::Errc;

ClientPump::ClientPump(const os::executor& ex, PrivateKey key, ClientOptions options)
    : Pump(ex), key_(std::move(key)), options_(std::move(options)) {}

result<void> ClientPump::begin(int fd) {
  SessionHandle session(ssh_new());
  if (!session) {
    ::close(fd);
    return Failure(Errc::io, "libssh has no memory");
  }
  const bool no = false;  // ~/.ssh/config is for ssh
  const long seconds =
      std::chrono::duration_cast<std::chrono::seconds>(options_.timeout).count() + 1;
  ssh_options_set(session.get(), SSH_OPTIONS_PROCESS_CONFIG, &no);
  ssh_options_set(session.get(), SSH_OPTIONS_TIMEOUT, &seconds);
  ssh_options_set(session.get(), SSH_OPTIONS_USER, options_.user.c_str());
  ssh_options_set(session.get(), SSH_OPTIONS_FD, &fd);
  ssh_set_blocking(session.get(), 0);
  if (ssh_connect(session.get()) == SSH_ERROR) {
    const std::string why = ssh_get_error(session.get());
    if (ssh_get_fd(session.get()) != fd) ::close(fd);
    return Failure(Errc::gone, why);
  }
  // libssh makes the socket blocking when it first finds it connected; start() undoes that.
  return start(std::move(session), fd);
}

// A host has nothing to ask of us.
void ClientPump::stepped() {
  while (alive()) {
    const MessageHandle message(ssh_message_get(session()));
    if (!message) return;
    ssh_message_reply_default(message.get());
    kick();
  }
}

awaitable<result<void>> ClientPump::handshake(int fd) {
  const auto self = shared_from_this();
  if (auto begun = begin(fd); !begun) co_return begun;
  auto exchanged = co_await exchange_keys();
  if (!exchanged) co_return exchanged;
  if (auto checked = check_host_key(); !checked) co_return checked;
  auto authenticated = co_await authenticate();
  if (!authenticated) co_return authenticated;
  watch_silence(options_.silence_limit);
  co_return result<void>();
}

awaitable<result<void>> ClientPump::exchange_keys() {
  for (;;) {
    if (ended()) co_return why();
    const int rc = ssh_connect(session());
    if (rc == SSH_OK) co_return result<void>();
    if (rc != SSH_AGAIN) co_return Failure(Errc::gone, error_text());
    kick();
    co_await progress();
  }
}

result<void> ClientPump::check_host_key() {
  ssh_key key = nullptr;
  if (ssh_get_server_publickey(session(), &key) != SSH_OK) {
    return Failure(Errc::refused, "the host has no key");
  }
  const PublicKey host_key(std::shared_ptr<ssh_key_struct>(key, LibsshDeleter{}));
  if (options_.check_host_key && !options_.check_host_key(host_key)) {
    return Failure(Errc::refused, "the host's key is " + host_key.fingerprint());
  }
  return {};
}

// Without asking first whether the key would do: that is a round trip.
awaitable<result<void>> ClientPump::authenticate() {
  for (;;) {
    if (ended()) co_return why();
    const int rc = ssh_userauth_publickey(session(), nullptr, key_.handle());
    kick();
    if (rc == SSH_AUTH_SUCCESS) co_return result<void>();
    if (rc == SSH_AUTH_DENIED || rc == SSH_AUTH_PARTIAL) {
      co_return Failure(Errc::denied,
                        "the key " + key_.public_key().fingerprint() + " is not accepted");
    }
    if (rc != SSH_AUTH_AGAIN) co_return Failure(Errc::gone, error_text());
    co_await progress();
  }
}

awaitable<result<std::unique_ptr<os::ByteStream>>> ClientPump::exec(
    std::string command, std::function<void(std::string_view)> on_error) {
  const auto self = shared_from_this();
  if (ended()) co_return why();
  ssh_channel handle = alive() ? ssh_channel_new(session()) : nullptr;
  if (handle == nullptr) co_return Failure(Errc::gone, error_text());
  auto channel =
      std::make_shared<CommandChannel>(self, handle, std::move(command), std::move(on_error));
  add(channel);
  auto stream = std::make_unique<ChannelStream>(channel);  // closes it if nobody waits to the end
  auto opened = co_await channel->opened();
  if (!opened) co_return opened.error();
  std::unique_ptr<os::ByteStream> handed = std::move(stream);
  co_return result<std::unique_ptr<os::ByteStream>>(std::move(handed));
}

}  // namespace protocol::ssh
