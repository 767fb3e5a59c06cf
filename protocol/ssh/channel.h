// One libssh channel as a byte stream. What both ends share: data in both directions, end of file,
// close.
//
// Incoming: libssh's data callback copies into a queue, up to a bound; beyond it libssh keeps the
// data, and the peer's window closes. When the queue is empty, one big read takes everything and
// opens the window to its full size: many small reads would each re-open it, and memory would grow
// without end under a slow reader. Outgoing: only while the peer's window is open and libssh's own
// buffer is empty, because libssh buffers without bound. End: end of file, then close, and the
// handle is freed only when the peer has closed too: until then libssh goes on calling back.
#pragma once

#include <libssh/callbacks.h>

#include <cstddef>
#include <span>
#include <string>

#include "protocol/os/byte_stream.h"
#include "protocol/ssh/pump.h"

namespace protocol::ssh {

class Channel : public std::enable_shared_from_this<Channel> {
 public:
  Channel(std::shared_ptr<Pump> pump, ssh_channel handle);
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  virtual ~Channel() = default;

  // As os::ByteStream. Two writers are allowed, one per lane.
  enum class Lane { output, error };
  awaitable<result<std::size_t>> read_some(std::span<std::byte> buffer);
  awaitable<result<void>> write(std::span<const std::byte> bytes, Lane lane = Lane::output);
  awaitable<result<void>> shutdown_write();
  void close() noexcept;

  // Returns when the peer has closed, or nobody can any more.
  awaitable<void> closed();

  // Takes what libssh holds for us and opens the window to its full size.
  void open_window();

  // ---- for the pump ----
  // Acts on what the callbacks have noted.
  virtual void stepped();
  // The session is over; its handles go away after this.
  void session_ended();
  ssh_channel handle() const { return handle_; }
  // We have sent our close and only wait for the peer's.
  bool hung_up() const { return hung_up_; }

 protected:
  // Sends end of file and close, once.
  void hang_up();
  // Waits until nobody is in write().
  awaitable<void> writers_gone();
  // A client's channel is not yet one: until then there is nobody to send anything to.
  void set_opened(bool opened) { opened_ = opened; }
  bool closing() const { return closing_; }
  bool open() const { return handle_ != nullptr && !closing_ && !peer_closed_; }
  Pump& pump() { return *pump_; }
  os::Wakeup& changed() { return changed_; }
  // libssh's handle is about to be freed.
  virtual void releasing() {}
  // Nothing that came counts, not even an end of file.
  virtual bool refused() const { return false; }
  // Why the stream is broken.
  virtual Failure failure() const;

  // From callbacks: copy and return.
  virtual void take_error(std::string_view) noexcept {}
  virtual void take_signal(std::string_view) noexcept {}
  // Frees a handle that was never opened.
  void drop() { release(); }

 private:
  static int on_data(ssh_session, ssh_channel, void* data, std::uint32_t length, int is_error,
                     void* self) noexcept;
  static void on_eof(ssh_session, ssh_channel, void* self) noexcept;
  static void on_close(ssh_session, ssh_channel, void* self) noexcept;
  static void on_signal(ssh_session, ssh_channel, const char* name, void* self) noexcept;

  int take(const std::byte* data, std::size_t length) noexcept;
  std::size_t unread() const { return in_.size() - in_start_; }
  std::size_t write_now(std::span<const std::byte> bytes, Lane lane);
  void absorb(std::uint32_t count);
  void clear_queue();
  void release();

  std::shared_ptr<Pump> pump_;
  ssh_channel handle_;  // the session owns it
  ssh_channel_callbacks_struct callbacks_{};
  os::Wakeup changed_;

  std::string in_;  // bytes, from in_start_
  std::size_t in_start_ = 0;
  std::size_t consumed_ = 0;  // by the reader, since the window was opened to its full size
  std::uint64_t total_in_ = 0;
  std::uint32_t window_;
  int writers_ = 0;

  bool held_ = false;       // libssh holds data that the queue had no room for
  bool absorbing_ = false;  // a big read is under way: callbacks leave the data to it
  bool touched_ = false;    // a callback has noted something
  bool over_limit_ = false;
  bool opened_ = true;
  bool eof_ = false;
  bool peer_closed_ = false;
  bool closing_ = false;  // closed by us: nobody reads or writes any more
  bool wrote_eof_ = false;
  bool hung_up_ = false;
};

// A Channel as what the rest of the project knows; closes it at the end of its life.
class ChannelStream final : public os::ByteStream {
 public:
  explicit ChannelStream(std::shared_ptr<Channel> channel) : channel_(std::move(channel)) {}
  ~ChannelStream() override { channel_->close(); }

  awaitable<result<std::size_t>> read_some(std::span<std::byte> buffer) override {
    return channel_->read_some(buffer);
  }
  awaitable<result<void>> write(std::span<const std::byte> bytes) override {
    return channel_->write(bytes);
  }
  awaitable<result<void>> shutdown_write() override { return channel_->shutdown_write(); }
  void close() noexcept override { channel_->close(); }

 private:
  std::shared_ptr<Channel> channel_;
};

}  // namespace protocol::ssh
