#include "protocol/ssh/server_pump.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "protocol/ssh/server_channel.h"
#include "protocol/wire/limits.h"

// libssh calls its message mode deprecated; its callbacks cannot put off an answer.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace protocol::ssh {

namespace asio = boost::asio;
using wire::Errc;

namespace {

// libssh drops a request with a wrong signature without a word. A packet that brought neither a
// message nor an answer for this long is taken to have been one.
constexpr std::chrono::seconds kSilentPacket{1};
constexpr int kMaxEarlyMessages = 64;
// Signatures that clients may make: libssh would take SHA-1 too.
constexpr const char* kSignatures =
    "ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,"
    "ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256";
// Channels that we have closed and the peer has not, beside those in use.
constexpr std::size_t kMaxUnclosed = 1024;

std::string describe(const asio::ip::tcp::socket& socket) {
  boost::system::error_code error;
  const auto endpoint = socket.remote_endpoint(error);
  if (error) return "unknown";
  const std::string address = endpoint.address().to_string();
  return (endpoint.address().is_v6() ? "[" + address + "]" : address) + ":" +
         std::to_string(endpoint.port());
}

// What the application sees of a session channel.
class HandedChannel final : public ServerChannel {
 public:
  explicit HandedChannel(std::shared_ptr<SessionChannel> channel) : channel_(std::move(channel)) {}
  ~HandedChannel() override { channel_->close(); }

  awaitable<result<std::size_t>> read_some(std::span<std::byte> buffer) override {
    return channel_->read_some(buffer);
  }
  awaitable<result<void>> write(std::span<const std::byte> bytes) override {
    return channel_->write(bytes);
  }
  awaitable<result<void>> write_error(std::span<const std::byte> bytes) override {
    return channel_->write(bytes, Channel::Lane::error);
  }
  awaitable<result<void>> shutdown_write() override { return channel_->shutdown_write(); }
  void close() noexcept override { channel_->close(); }
  awaitable<result<ExecRequest>> request() override { return channel_->request(); }
  void accept() override { channel_->answer(true); }
  void refuse() override { channel_->answer(false); }
  awaitable<result<std::variant<WindowChange, SignalRequest>>> next_event() override {
    return channel_->next_event();
  }
  awaitable<result<void>> exit_status(int status) override { return channel_->exit_status(status); }
  awaitable<result<void>> exit_signal(const std::string& name, bool core_dumped) override {
    return channel_->exit_signal(name, core_dumped);
  }
  awaitable<void> closed() override { return channel_->closed(); }

 private:
  std::shared_ptr<SessionChannel> channel_;
};

class HandedForward final : public ForwardRequest {
 public:
  HandedForward(std::shared_ptr<ServerPump> pump, std::shared_ptr<PendingForward> forward)
      : pump_(std::move(pump)), forward_(std::move(forward)) {}
  ~HandedForward() override { pump_->refuse(*forward_); }

  const std::string& host() const override { return forward_->host; }
  std::uint16_t port() const override { return forward_->port; }
  std::unique_ptr<os::ByteStream> accept() override { return pump_->accept(*forward_); }
  void refuse() override { pump_->refuse(*forward_); }

 private:
  std::shared_ptr<ServerPump> pump_;
  std::shared_ptr<PendingForward> forward_;
};

}  // namespace

ServerPump::ServerPump(asio::ip::tcp::socket socket, PrivateKey host_key, ServerOptions options,
                       Authorize authorize)
    : Pump(socket.get_executor()),
      socket_(std::move(socket)),
      host_key_(std::move(host_key)),
      options_(std::move(options)),
      authorize_(std::move(authorize)),
      peer_(describe(socket_)),
      grace_timer_(executor()),
      silent_packet_timer_(executor()),
      changed_(executor()) {}

// ---- coming in --------------------------------------------------------------------------------

result<void> ServerPump::begin() {
  const BindHandle bind(ssh_bind_new());
  SessionHandle session(ssh_new());
  if (!bind || !session) return Failure(Errc::io, "libssh has no memory");
  // Else /etc/ssh/libssh_server_config would count.
  const bool no = false;
  ssh_bind_options_set(bind.get(), SSH_BIND_OPTIONS_PROCESS_CONFIG, &no);
  ssh_bind_options_set(bind.get(), SSH_BIND_OPTIONS_BANNER, options_.banner.c_str());
  if (ssh_bind_options_set(bind.get(), SSH_BIND_OPTIONS_PUBKEY_ACCEPTED_KEY_TYPES, kSignatures) !=
      SSH_OK) {
    return Failure(Errc::io, "libssh does not know the signatures we take");
  }
  KeyHandle key(ssh_key_dup(host_key_.handle()));
  if (!key || ssh_bind_options_set(bind.get(), SSH_BIND_OPTIONS_IMPORT_KEY, key.get()) != SSH_OK) {
    return Failure(Errc::io, "libssh does not take the host key");
  }
  (void)key.release();

  boost::system::error_code error;
  const int fd = socket_.release(error);
  if (error) return Failure(Errc::gone, error.message());
  if (ssh_bind_accept_fd(bind.get(), session.get(), fd) != SSH_OK) {
    // libssh may or may not have taken it over by now; freeing the session closes it if it has.
    const std::string why = ssh_get_error(bind.get());
    if (ssh_get_fd(session.get()) != fd) ::close(fd);
    return Failure(Errc::io, why);
  }
  ssh_set_blocking(session.get(), 0);
  (void)::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  ssh_set_auth_methods(session.get(), SSH_AUTH_METHOD_PUBLICKEY);
  if (ssh_handle_key_exchange(session.get()) == SSH_ERROR) {
    return Failure(Errc::gone, ssh_get_error(session.get()));
  }
  return start(std::move(session), fd);
}

awaitable<result<Identity>> ServerPump::handshake() {
  const auto self = shared_from_this();
  if (ended()) co_return why();
  grace_timer_.expires_after(options_.login_grace);
  grace_timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto pump = weak.lock();
    if (!error && pump) pump->end(Failure(Errc::timed_out, "no login within the grace time"));
  });
  if (auto begun = begin(); !begun) end(begun.error());
  while (!ended() && !identity_) co_await changed_.wait();
  grace_timer_.cancel();
  if (ended()) co_return why();
  watch_silence(options_.silence_limit);
  co_return *identity_;
}

void ServerPump::service(ssh_message message) {
  const char* name = ssh_message_service_service(message);
  if (name == nullptr || std::string_view(name) != "ssh-userauth") {
    end(Failure(Errc::bad_input, "the peer asked for another service than ssh-userauth"));
    return;
  }
  auth_service_ = true;
  ssh_message_service_reply_success(message);
}

void ServerPump::authenticate(MessageHandle message) {
  ssh_message m = message.get();
  if (identity_ || failures_ >= options_.max_auth_tries) return;
  const char* user = ssh_message_auth_user(m);
  if (user == nullptr || std::string_view(user).size() > wire::kMaxNameBytes) {
    refused();
    return;
  }
  const int method = ssh_message_subtype(m);
  if (method == SSH_AUTH_METHOD_PUBLICKEY) {
    const PublicKey key(
        std::shared_ptr<ssh_key_struct>(ssh_key_dup(ssh_message_auth_pubkey(m)), LibsshDeleter{}));
    const auto state = ssh_message_auth_publickey_state(m);
    const auto identity = key.handle() != nullptr ? authorize_(key, user) : std::nullopt;
    if (ended()) return;
    if (identity && state == SSH_PUBLICKEY_STATE_VALID) {
      user_ = user;
      accepted(m, *identity);
      return;
    }
    if (identity && state == SSH_PUBLICKEY_STATE_NONE) {
      ssh_message_auth_reply_pk_ok_simple(m);
      last_auth_ = std::move(message);
      return;
    }
  }
  ssh_message_reply_default(m);
  last_auth_ = std::move(message);
  // Asking which methods there are is no attempt.
  if (method != SSH_AUTH_METHOD_NONE) refused();
}

void ServerPump::accepted(ssh_message message, Identity identity) {
  ssh_message_auth_reply_success(message, 0);
  identity_ = std::move(identity);
  last_auth_.reset();
  silent_packet_timer_.cancel();
  changed_.notify();
}

void ServerPump::refused() {
  if (++failures_ != options_.max_auth_tries) return;
  os::spawn(executor(), "ssh login refused",
            part(Failure(Errc::denied, "Too many authentication failures")));
}

void ServerPump::notice_silent_packets(std::uint64_t arrived, std::uint64_t answered) {
  if (identity_ || ended()) return;
  if (arrived > 0) silent_packet_timer_.cancel();
  if (arrived <= answered) return;
  silent_packet_timer_.expires_after(kSilentPacket);
  silent_packet_timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto pump = weak.lock();
    if (!error && pump) static_cast<ServerPump&>(*pump).answer_silent_packet();
  });
}

void ServerPump::answer_silent_packet() {
  if (ended() || identity_ || !alive()) return;
  if (!last_auth_) {
    end(Failure(Errc::denied, "the client's signature is wrong"));
    return;
  }
  ssh_message_reply_default(last_auth_.get());
  kick();
  refused();
}

// ---- what the peer asks for -------------------------------------------------------------------

void ServerPump::stepped() {
  const bool was_logging_in = auth_service_;
  const std::uint64_t packets_out_before = packets_out();
  read_messages();
  // A packet that brought no message is answered by libssh itself, or it was dropped. Those that
  // came before the login are of the key exchange.
  const std::uint64_t arrived = packets_in() - seen_packets_in_;
  const std::uint64_t by_libssh = packets_out_before - seen_packets_out_;
  const std::uint64_t by_us = messages_ - seen_messages_;
  if (was_logging_in) notice_silent_packets(arrived, by_libssh + by_us);
  seen_packets_in_ = packets_in();
  seen_packets_out_ = packets_out();
  seen_messages_ = messages_;
}

void ServerPump::read_messages() {
  while (alive()) {
    MessageHandle message(ssh_message_get(session()));
    if (!message) return;
    ++messages_;
    dispatch(std::move(message));
    kick();
  }
}

void ServerPump::dispatch(MessageHandle message) {
  ssh_message m = message.get();
  if (!identity_ && ++early_messages_ > kMaxEarlyMessages) {
    end(Failure(Errc::denied, "too many requests before a login"));
    return;
  }
  switch (ssh_message_type(m)) {
    case SSH_REQUEST_SERVICE:
      service(m);
      return;
    case SSH_REQUEST_AUTH:
      authenticate(std::move(message));
      return;
    case SSH_REQUEST_CHANNEL_OPEN:
      open(std::move(message));
      return;
    case SSH_REQUEST_CHANNEL: {
      // Of a channel that is gone: its handle must not be touched, so there is no answer.
      const auto channel = find(ssh_message_channel_request_channel(m));
      if (!channel || channel->hung_up()) return;
      if (const auto session = std::dynamic_pointer_cast<SessionChannel>(channel)) {
        session->asked(std::move(message));
      } else {
        ssh_message_reply_default(m);  // nothing can be asked of a tunnel
      }
      return;
    }
    default:
      ssh_message_reply_default(m);
  }
}

std::size_t ServerPump::in_use() const {
  const auto open = std::count_if(channels().begin(), channels().end(),
                                  [](const auto& channel) { return !channel->hung_up(); });
  return static_cast<std::size_t>(open) + forwards_.size();
}

void ServerPump::open(MessageHandle message) {
  ssh_message m = message.get();
  if (channels().size() > kMaxUnclosed + static_cast<std::size_t>(options_.max_channels)) {
    end(Failure(Errc::too_large, "the peer does not close its channels"));
    return;
  }
  const int type = ssh_message_subtype(m);
  if (!identity_ || in_use() >= static_cast<std::size_t>(options_.max_channels) ||
      (type != SSH_CHANNEL_SESSION && type != SSH_CHANNEL_DIRECT_TCPIP)) {
    ssh_message_reply_default(m);
    return;
  }
  const auto self = std::static_pointer_cast<ServerPump>(shared_from_this());
  if (type == SSH_CHANNEL_SESSION) {
    // Accepted here, in the order of the messages: a channel's address may be that of an earlier
    // one, and requests for that one must all have been read.
    ssh_channel handle = ssh_message_channel_request_open_reply_accept(m);
    if (handle == nullptr) return;
    auto channel = std::make_shared<SessionChannel>(self, handle);
    add(channel);
    channel->open_window();
    hand_out(std::make_shared<HandedChannel>(std::move(channel)));
  } else {
    auto forward = std::make_shared<PendingForward>();
    forward->host = ssh_message_channel_request_open_destination(m);
    forward->port =
        static_cast<std::uint16_t>(ssh_message_channel_request_open_destination_port(m));
    forward->message = std::move(message);
    forwards_.push_back(forward);
    hand_out(std::make_unique<HandedForward>(self, std::move(forward)));
  }
}

void ServerPump::hand_out(ChannelRequest request) {
  requests_.push_back(std::move(request));
  changed_.notify();
}

awaitable<result<ChannelRequest>> ServerPump::next() {
  const auto self = shared_from_this();
  while (!ended() && requests_.empty()) co_await changed_.wait();
  if (ended()) co_return why();
  ChannelRequest request = std::move(requests_.front());
  requests_.pop_front();
  co_return request;
}

std::unique_ptr<os::ByteStream> ServerPump::accept(PendingForward& forward) {
  std::shared_ptr<Channel> channel;
  if (alive()) read_messages();  // see open()
  if (forward.message && alive()) {
    const MessageHandle message = std::move(forward.message);
    std::erase_if(forwards_, [&](const auto& other) { return other.get() == &forward; });
    if (ssh_channel handle = ssh_message_channel_request_open_reply_accept(message.get())) {
      channel = std::make_shared<Channel>(shared_from_this(), handle);
      add(channel);
      channel->open_window();
    }
    kick();
  }
  if (!channel) channel = std::make_shared<Channel>(shared_from_this(), nullptr);
  return std::make_unique<ChannelStream>(std::move(channel));
}

void ServerPump::refuse(PendingForward& forward) {
  if (!forward.message || !alive()) return;
  const MessageHandle message = std::move(forward.message);
  std::erase_if(forwards_, [&](const auto& other) { return other.get() == &forward; });
  ssh_message_reply_default(message.get());
  kick();
}

void ServerPump::over() {
  grace_timer_.cancel();
  silent_packet_timer_.cancel();
  last_auth_.reset();
  for (const auto& forward : forwards_) forward->message.reset();
  forwards_.clear();
  const auto requests = std::exchange(requests_, {});
  changed_.notify();
}

}  // namespace protocol::ssh
