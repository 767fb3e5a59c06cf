// Two byte streams in memory, joined back to back, that can be told to trickle, stall and break.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "protocol/os/byte_stream.h"
#include "protocol/os/wakeup.h"

namespace test {

class MemoryStream : public protocol::os::ByteStream {
 public:
  // What one end writes the other reads. A write waits while `capacity` bytes are unread.
  static std::pair<std::unique_ptr<MemoryStream>, std::unique_ptr<MemoryStream>> pair(
      protocol::os::executor ex, std::size_t capacity = 64 * 1024);
  ~MemoryStream() override;

  // Turns knobs of an end that was handed over already.
  struct Control {
    std::size_t trickle = SIZE_MAX;            // bytes that one read gives at most
    std::optional<std::uint64_t> break_after;  // that many bytes are read, then the link is gone
    std::optional<std::uint64_t> fail_write;   // that many bytes are written, then the link is gone
    bool stalled = false;                      // nothing is read (call changed() after)
    std::uint64_t bytes_read = 0, bytes_written = 0;
    std::uint64_t writes = 0;  // calls
    bool write_ended = false, closed = false;
  };
  std::shared_ptr<Control> control() const { return control_; }
  void changed();  // look at the knobs again

  protocol::os::awaitable<protocol::os::result<std::size_t>> read_some(
      std::span<std::byte> buffer) override;
  protocol::os::awaitable<protocol::os::result<void>> write(
      std::span<const std::byte> bytes) override;
  protocol::os::awaitable<protocol::os::result<void>> shutdown_write() override;
  void close() noexcept override;

 private:
  struct Link;
  MemoryStream(std::shared_ptr<Link> link, int end);
  std::shared_ptr<Link> link_;
  std::shared_ptr<Control> control_;
  int end_;
};

}  // namespace test
