#include "protocol/ssh/channel.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>

namespace protocol::ssh {

namespace asio = boost::asio;
using wire::Errc;

namespace {

// The window we grant. libssh's own 1.28 MB (32 kB at first) costs a round trip in the first flight
// and half the speed at 100 ms; a channel that has shown itself to be bulk gets more.
constexpr std::uint32_t kWindow = 2 * 1024 * 1024;
constexpr std::uint32_t kBulkWindow = 4 * 1024 * 1024;
constexpr std::uint64_t kBulk = 8 * 1024 * 1024;  // so much read: bulk
// It is opened again when so small a part of it was read: what is granted late is missing for a
// round trip.
constexpr std::uint32_t kGrants = 8;

// The queue takes data while it is below this; one delivery may take it above, at most by a window.
constexpr std::size_t kQueueBytes = 256 * 1024;
// libssh accepts data beyond the window; a peer that sends so much more means harm.
constexpr std::size_t kBeyondWindow = 4 * 1024 * 1024;

constexpr std::size_t kChunk = 64 * 1024;
constexpr int kChunksPerTurn = 8;  // then others on this thread have theirs

// libssh wants a buffer as large as the window is to be. Only what it really reads is ever touched.
std::byte* scratch() {
  static thread_local const std::unique_ptr<std::byte[]> buffer(new std::byte[kBulkWindow]);
  return buffer.get();
}

}  // namespace

Channel::Channel(std::shared_ptr<Pump> pump, ssh_channel handle)
    : pump_(std::move(pump)), handle_(handle), changed_(pump_->executor()), window_(kWindow) {
  if (handle_ == nullptr) return;
  callbacks_.userdata = this;
  callbacks_.channel_data_function = on_data;
  callbacks_.channel_eof_function = on_eof;
  callbacks_.channel_close_function = on_close;
  callbacks_.channel_signal_function = on_signal;
  ssh_callbacks_init(&callbacks_);
  ssh_set_channel_callbacks(handle_, &callbacks_);
}

// ---- from libssh ------------------------------------------------------------------------------

int Channel::on_data(ssh_session, ssh_channel, void* data, std::uint32_t length, int is_error,
                     void* self) noexcept {
  auto& channel = *static_cast<Channel*>(self);
  channel.touched_ = true;
  if (is_error == 0) return channel.take(static_cast<const std::byte*>(data), length);
  if (!channel.closing_) channel.take_error({static_cast<const char*>(data), length});
  return static_cast<int>(length);
}

// `data` is all that libssh holds. Returns how much of it we have taken: all or nothing.
int Channel::take(const std::byte* data, std::size_t length) noexcept {
  if (closing_) return static_cast<int>(length);
  if (length > window_ + kBeyondWindow) {
    over_limit_ = true;
    return static_cast<int>(length);
  }
  if (absorbing_ || unread() >= kQueueBytes) {
    held_ = true;
    return 0;
  }
  in_.append(reinterpret_cast<const char*>(data), length);
  held_ = false;
  return static_cast<int>(length);
}

void Channel::on_eof(ssh_session, ssh_channel, void* self) noexcept {
  auto& channel = *static_cast<Channel*>(self);
  channel.eof_ = true;
  channel.touched_ = true;
}

void Channel::on_close(ssh_session, ssh_channel, void* self) noexcept {
  auto& channel = *static_cast<Channel*>(self);
  channel.peer_closed_ = true;
  channel.touched_ = true;
}

void Channel::on_signal(ssh_session, ssh_channel, const char* name, void* self) noexcept {
  auto& channel = *static_cast<Channel*>(self);
  channel.touched_ = true;
  if (!channel.closing_) channel.take_signal(name);
}

// ---- from the pump ----------------------------------------------------------------------------

void Channel::stepped() {
  if (writers_ > 0) changed_.notify();
  if (!std::exchange(touched_, false)) return;
  if (over_limit_) {
    pump_->end(Failure(Errc::too_large, "the peer sent more than the window it was given"));
    return;
  }
  if (peer_closed_ && handle_ != nullptr) {
    if (held_ && !closing_ && pump_->alive()) absorb(window_);
    hang_up();
    release();
  }
  changed_.notify();
}

void Channel::session_ended() {
  if (handle_ != nullptr) {
    ssh_remove_channel_callbacks(handle_, &callbacks_);
    releasing();
    handle_ = nullptr;
  }
  changed_.notify();
}

// Both sides have closed: nothing more can come.
void Channel::release() {
  ssh_remove_channel_callbacks(handle_, &callbacks_);
  releasing();
  ssh_channel_free(std::exchange(handle_, nullptr));
}

// ---- reading ----------------------------------------------------------------------------------

void Channel::absorb(std::uint32_t count) {
  absorbing_ = true;
  const int taken = ssh_channel_read_timeout(handle_, scratch(), count, 0, 0);
  absorbing_ = false;
  if (taken > 0)
    in_.append(reinterpret_cast<const char*>(scratch()), static_cast<std::size_t>(taken));
  held_ = taken == static_cast<int>(count);
}

void Channel::open_window() {
  if (handle_ == nullptr || closing_ || !pump_->alive()) return;
  if (total_in_ > kBulk) window_ = kBulkWindow;
  // A read that found something leaves libssh's own window; the next one opens ours.
  const bool held = held_;
  absorb(window_);
  if (held && handle_ != nullptr) absorb(window_);
  consumed_ = 0;
  pump_->kick();
}

void Channel::clear_queue() {
  in_start_ = 0;
  in_.clear();
  if (in_.capacity() > 2 * kQueueBytes) std::string().swap(in_);
}

awaitable<result<std::size_t>> Channel::read_some(std::span<std::byte> buffer) {
  const auto self = shared_from_this();
  for (;;) {
    if (closing_) co_return Failure(Errc::gone, "the channel was closed here");
    if (unread() == 0) {
      clear_queue();
      if (held_ || consumed_ >= window_ / kGrants) open_window();
    }
    if (unread() > 0) {
      const std::size_t count = std::min(buffer.size(), unread());
      std::memcpy(buffer.data(), in_.data() + in_start_, count);
      in_start_ += count;
      consumed_ += count;
      total_in_ += count;
      if (in_start_ > kQueueBytes && in_start_ > unread()) {
        in_.erase(0, in_start_);
        in_start_ = 0;
      }
      co_return count;
    }
    if (refused()) co_return failure();
    if (eof_) co_return std::size_t{0};
    if (handle_ == nullptr || peer_closed_) co_return failure();
    co_await changed_.wait();
  }
}

Failure Channel::failure() const {
  if (pump_->ended()) return Failure(Errc::gone, pump_->why().what);
  return Failure(Errc::gone, "the peer closed the channel");
}

// ---- writing ----------------------------------------------------------------------------------

// How much was taken: 0 when the peer's window is closed or keys are being exchanged.
std::size_t Channel::write_now(std::span<const std::byte> bytes, Lane lane) {
  const std::size_t room = std::min<std::size_t>(ssh_channel_window_size(handle_), kChunk);
  const auto count = static_cast<std::uint32_t>(std::min(bytes.size(), room));
  if (count == 0) return 0;
  const int written = lane == Lane::output ? ssh_channel_write(handle_, bytes.data(), count)
                                           : ssh_channel_write_stderr(handle_, bytes.data(), count);
  pump_->kick();
  return written > 0 ? static_cast<std::size_t>(written) : 0;
}

awaitable<result<void>> Channel::write(std::span<const std::byte> bytes, Lane lane) {
  const auto self = shared_from_this();
  struct Guard {
    Channel& channel;
    ~Guard() {
      --channel.writers_;
      channel.changed_.notify();
    }
  } guard{*this};
  ++writers_;

  int chunks = 0;
  while (!bytes.empty()) {
    if (!open() || wrote_eof_) co_return failure();
    const std::size_t written = pump_->can_write() ? write_now(bytes, lane) : 0;
    bytes = bytes.subspan(written);
    if (written == 0) {
      chunks = 0;
      co_await changed_.wait();
    } else if (++chunks == kChunksPerTurn && !bytes.empty()) {
      chunks = 0;
      co_await asio::post(asio::use_awaitable);
    }
  }
  co_return result<void>();
}

awaitable<void> Channel::writers_gone() {
  while (writers_ > 0) co_await changed_.wait();
}

awaitable<result<void>> Channel::shutdown_write() {
  const auto self = shared_from_this();
  co_await writers_gone();
  if (!open() || !pump_->alive()) co_return failure();
  if (!std::exchange(wrote_eof_, true)) {
    ssh_channel_send_eof(handle_);
    pump_->kick();
  }
  co_return result<void>();
}

// ---- the end ----------------------------------------------------------------------------------

void Channel::hang_up() {
  if (handle_ == nullptr || !opened_ || hung_up_ || !pump_->alive()) return;
  hung_up_ = true;
  // Close alone, with output not yet sent, would send its end of file and forget the close.
  ssh_channel_send_eof(handle_);
  if (ssh_channel_close(handle_) == SSH_AGAIN) ssh_channel_close(handle_);
  pump_->kick();
}

void Channel::close() noexcept {
  if (std::exchange(closing_, true)) return;
  clear_queue();
  hang_up();
  changed_.notify();
}

awaitable<void> Channel::closed() {
  const auto self = shared_from_this();
  while (handle_ != nullptr && !peer_closed_) co_await changed_.wait();
}

}  // namespace protocol::ssh
