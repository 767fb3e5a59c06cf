#include "protocol/ssh/pump.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <climits>
#include <cstring>
#include <exception>
#include <utility>

#include "protocol/ssh/channel.h"

namespace protocol::ssh {

namespace asio = boost::asio;
using wire::Errc;

namespace {

// libssh reads 4096 bytes per poll: enough rounds for a full socket buffer, few enough that other
// connections get their turn.
constexpr int kRounds = 64;
constexpr std::chrono::seconds kDrain{2};
// Packets sent that the system did not take, because the peer reads nothing. Data waits for it
// (can_write), answers do not: a peer that asks on and on without reading has so many at most.
constexpr std::uint64_t kMaxUnread = 16 * 1024;
constexpr std::chrono::milliseconds kShortestKeepalive{20};
constexpr std::chrono::milliseconds kLongestKeepalive{60'000};

void set(int fd, int level, int option, int value) {
  (void)::setsockopt(fd, level, option, &value, sizeof value);  // not every socket has every option
}

}  // namespace

Pump::Pump(const os::executor& ex) : ex_(ex), descriptor_(ex), progress_(ex), silence_timer_(ex) {}

Pump::~Pump() { let_go(); }

result<void> Pump::start(SessionHandle session, int fd) {
  session_ = std::move(session);
  const int watched = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (watched < 0) return Failure(Errc::io, std::string("dup: ") + std::strerror(errno));
  boost::system::error_code error;
  descriptor_.assign(watched, error);
  if (error) {
    ::close(watched);
    return Failure(Errc::io, error.message());
  }
  (void)::fcntl(fd, F_SETFD, FD_CLOEXEC);
  // Asio takes the descriptor for non-blocking, and libssh must never block in send().
  (void)::fcntl(watched, F_SETFL, ::fcntl(watched, F_GETFL) | O_NONBLOCK);
  set(watched, IPPROTO_TCP, TCP_NODELAY, 1);

  ssh_set_counters(session_.get(), &socket_bytes_, &packets_);
  event_.reset(ssh_event_new());
  if (!event_ || ssh_event_add_session(event_.get(), session_.get()) != SSH_OK) {
    return Failure(Errc::io, "libssh has no event loop to give: " + error_text());
  }
  last_activity_ = Clock::now();
  kick();
  return {};
}

bool Pump::alive() const {
  return !ended_ && session_ && ssh_is_connected(session_.get()) != 0 &&
         (ssh_get_status(session_.get()) & (SSH_CLOSED | SSH_CLOSED_ERROR)) == 0;
}

bool Pump::can_write() {
  if (!alive() || (ssh_get_status(session_.get()) & SSH_WRITE_PENDING) != 0) return false;
  packets_taken_ = packets_.out_packets;
  return true;
}

std::string Pump::error_text() const {
  const char* text = session_ ? ssh_get_error(session_.get()) : nullptr;
  return text != nullptr ? text : "";
}

std::shared_ptr<Channel> Pump::find(ssh_channel handle) const {
  for (const auto& channel : channels_) {
    if (channel->handle() == handle) return channel;
  }
  return nullptr;
}

void Pump::kick() {
  if (ended_ || posted_) return;
  posted_ = true;
  asio::post(ex_, [self = shared_from_this()] {
    self->posted_ = false;
    self->step();
  });
}

void Pump::step() {
  if (ended_) return;
  const auto self = shared_from_this();
  try {
    pump_once();
  } catch (const std::exception& e) {
    // What stepped() calls may throw; it ends this connection, not the others.
    end(Failure(Errc::io, e.what()));
  }
}

void Pump::pump_once() {
  // The system forgets this option by itself. Without it, a peer that has not switched Nagle off
  // waits 40 ms for our delayed acknowledgement, several times per handshake.
  set(descriptor_.native_handle(), IPPROTO_TCP, TCP_QUICKACK, 1);
  int round = 0;
  for (; round < kRounds; ++round) {
    const int rc = ssh_event_dopoll(event_.get(), 0);
    if (rc == SSH_AGAIN) break;
    if (rc == SSH_ERROR || !alive()) break;
  }
  if (!alive()) {
    end(Failure(Errc::gone, error_text()));
    return;
  }
  settle();
  if (ended_) return;
  if (!alive()) {
    end(Failure(Errc::gone, error_text()));
  } else if (answers_unread()) {
    end(Failure(Errc::too_large, "the peer does not read the answers to what it asks"));
  } else if (round == kRounds || moved()) {
    kick();
  } else {
    arm();
  }
}

bool Pump::moved() const {
  return socket_bytes_.in_bytes != seen_in_ || socket_bytes_.out_bytes != seen_out_;
}

bool Pump::answers_unread() {
  return !can_write() && packets_.out_packets - packets_taken_ > kMaxUnread;
}

// Lets everybody act on what has changed since the last time. What changes meanwhile is for the
// next step.
void Pump::settle() {
  if (!moved()) return;
  if (socket_bytes_.in_bytes != seen_in_) last_activity_ = Clock::now();
  seen_in_ = socket_bytes_.in_bytes;
  seen_out_ = socket_bytes_.out_bytes;

  stepped();
  // Each time another one is first, because the first writer may fill the socket. By index, because
  // this may add channels.
  const std::size_t count = channels_.size();
  ++turn_;
  for (std::size_t i = 0; !ended_ && i < count; ++i) {
    const auto channel = channels_[(i + turn_) % count];
    channel->stepped();
  }
  std::erase_if(channels_, [](const auto& channel) { return channel->handle() == nullptr; });
  progress_.notify();
}

void Pump::arm() {
  const int flags = ssh_get_poll_flags(session_.get());
  if ((flags & SSH_READ_PENDING) != 0) wait_for(descriptor_.wait_read, reading_);
  if ((flags & SSH_WRITE_PENDING) != 0) wait_for(descriptor_.wait_write, writing_);
}

void Pump::wait_for(asio::posix::descriptor_base::wait_type what, bool& waiting) {
  if (waiting) return;
  waiting = true;
  descriptor_.async_wait(what,
                         [self = shared_from_this(), &waiting](boost::system::error_code error) {
                           waiting = false;
                           if (!error) self->step();
                         });
}

void Pump::end(Failure why) {
  if (ended_) return;
  detach(std::move(why));
  boost::system::error_code ignored;
  descriptor_.close(ignored);
  asio::post(ex_, [self = shared_from_this()] { self->let_go(); });
}

void Pump::detach(Failure why) {
  ended_ = true;
  why_ = std::move(why);
  if (why_.what.empty()) why_.what = "the connection was closed";
  silence_timer_.cancel();
  const auto channels = std::exchange(channels_, {});
  for (const auto& channel : channels) channel->session_ended();
  over();
  progress_.notify();
}

void Pump::let_go() noexcept {
  if (event_ && session_) ssh_event_remove_session(event_.get(), session_.get());
  event_.reset();
  session_.reset();  // frees the channels, closes libssh's descriptor
}

void Pump::watch_silence(std::chrono::milliseconds limit) {
  silence_limit_ = limit;
  const int fd = descriptor_.native_handle();
  const int interval = static_cast<int>(keepalive_interval().count() / 1000 + 1);  // in seconds
  // The kernel would give up on unacknowledged bytes after a time of its own, shorter or longer
  // than the limit.
  const long long unacknowledged = limit.count();
  set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
      static_cast<int>(std::min<long long>(unacknowledged, INT_MAX)));
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, interval);
  set(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval);
  set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  arm_silence_timer();
}

std::chrono::milliseconds Pump::keepalive_interval() const {
  return std::clamp(silence_limit_ / 6, kShortestKeepalive, kLongestKeepalive);
}

void Pump::arm_silence_timer() {
  silence_timer_.expires_after(keepalive_interval());
  silence_timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto self = weak.lock();
    if (!error && self && !self->ended_) self->check_silence();
  });
}

void Pump::check_silence() {
  const auto now = Clock::now();
  if (now - last_activity_ >= silence_limit_) {
    // This process may have been stopped for long: what came meanwhile counts, and a peer that was
    // not asked has not been silent.
    step();
    if (ended_) return;
    if (now - last_activity_ >= silence_limit_ && keepalive_sent_) {
      end(Failure(Errc::timed_out, "nothing was heard from the peer for too long"));
      return;
    }
  }
  if (keepalive_sent_ && last_activity_ > *keepalive_sent_) keepalive_sent_.reset();
  if (!keepalive_sent_ && now - last_activity_ >= keepalive_interval() / 2) {
    // Without blocking, libssh sends the request on one call and takes the answer on the next:
    // after two there is a question that has not been answered, whether it is new or an older one,
    // whose answer is late. TCP repeats it.
    ssh_send_keepalive(session_.get());
    ssh_send_keepalive(session_.get());
    keepalive_sent_ = now;
  }
  kick();
  arm_silence_timer();
}

awaitable<void> Pump::part(Failure why) {
  const auto self = shared_from_this();
  // It may have been started while a message is being dealt with.
  co_await asio::post(ex_, asio::use_awaitable);
  const auto drained_by = Clock::now() + kDrain;
  while (alive() && !can_write() && Clock::now() < drained_by) {
    co_await progress_.wait_until(drained_by);
  }
  if (ended_) co_return;
  // libssh sends at once only when it has seen since its last packet that the socket takes more.
  if (alive()) ssh_event_dopoll(event_.get(), 0);
  const bool told = can_write();
  const std::string text = why.what;
  detach(std::move(why));
  if (told) {
    ssh_session_set_disconnect_message(session_.get(), text.c_str());
    ssh_disconnect(session_.get());
    // Closing now, with bytes of the peer unread, would answer it with a reset that can overtake
    // the message.
    ::shutdown(descriptor_.native_handle(), SHUT_WR);
    asio::steady_timer deadline(ex_, kDrain);
    deadline.async_wait([weak = weak_from_this()](boost::system::error_code error) {
      const auto pump = weak.lock();
      boost::system::error_code ignored;
      if (!error && pump) pump->descriptor_.close(ignored);
    });
    char buffer[4096];
    boost::system::error_code error;
    while (!error) {
      co_await descriptor_.async_read_some(asio::buffer(buffer),
                                           asio::redirect_error(asio::use_awaitable, error));
    }
  }
  boost::system::error_code ignored;
  descriptor_.close(ignored);
  let_go();
}

}  // namespace protocol::ssh
