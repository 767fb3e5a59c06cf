#include "agent/local_listener.h"

#include "agent/lifetime.h"
#include "agent/log.h"
#include "agent/session.h"
#include "protocol/os/paths.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr std::chrono::milliseconds kAcceptPause{200};  // when descriptors have run out

// What a session owns of a stream that others may close, too.
class Shared : public os::ByteStream {
 public:
  explicit Shared(std::shared_ptr<os::ByteStream> stream) : stream_(std::move(stream)) {}

  os::awaitable<wire::result<std::size_t>> read_some(std::span<std::byte> buffer) override {
    return stream_->read_some(buffer);
  }
  os::awaitable<wire::result<void>> write(std::span<const std::byte> bytes) override {
    return stream_->write(bytes);
  }
  os::awaitable<wire::result<void>> shutdown_write() override { return stream_->shutdown_write(); }
  void close() noexcept override { stream_->close(); }

 private:
  std::shared_ptr<os::ByteStream> stream_;
};

}  // namespace

wire::result<std::unique_ptr<LocalListener>> LocalListener::open(
    Services& services, const std::filesystem::path& socket) {
  auto listener = os::UnixListener::listen(services.executor, socket);
  if (!listener) {
    return listener.error();
  }
  return std::make_unique<LocalListener>(services, std::move(*listener));
}

os::awaitable<void> LocalListener::run() {
  while (true) {
    auto stream = co_await listener_.accept();
    if (!stream && stream.error().code == wire::Errc::gone) {
      co_return;
    }
    if (!stream) {
      log::peer("accept_failed", {{"error", stream.error().what}});
      co_await os::pause(services_.executor, kAcceptPause);
      continue;
    }
    if (connections_.size() >= kMaxConnections) {
      log::peer("connection_refused", {{"peer", "local"}, {"why", "too many"}});
      continue;  // closes it
    }
    std::shared_ptr<os::ByteStream> shared = std::move(*stream);
    os::spawn(services_.executor, "local session", serve(*this, std::move(shared)));
  }
}

os::awaitable<void> LocalListener::serve(LocalListener& self,
                                         std::shared_ptr<os::ByteStream> stream) {
  struct Open {
    LocalListener& listener;
    std::shared_ptr<os::ByteStream> stream;
    ~Open() { listener.connections_.erase(stream); }
  } open{self, stream};
  self.connections_.insert(stream);
  Lifetime::Enlisted enlisted(
      self.services_.lifetime, [] {}, true);
  std::string user = os::user_name();
  log::peer("connected", {{"peer", "local"}, {"user", user}});
  co_await serve_local_session(self.services_, std::make_unique<Shared>(stream), user);
  log::peer("disconnected", {{"peer", "local"}, {"user", user}});
}

void LocalListener::close() {
  listener_.remove();
  listener_.close();
}

void LocalListener::close_connections() {
  auto all = connections_;
  for (const auto& stream : all) {
    stream->close();
  }
}

}  // namespace agent
