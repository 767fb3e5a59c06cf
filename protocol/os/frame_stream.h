// Frames over a byte stream: control ahead of bulk, bulk under credit. Used by client, agent and supervisor alike.
// Does not know what messages mean. Wire rules: protocol/WIRE.md, "Frames" and "Credit".
#pragma once

#include "protocol/os/byte_stream.h"
#include "protocol/wire/frames.h"
#include "protocol/wire/messages.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace protocol::os {

class FrameStream {
 public:
  explicit FrameStream(executor ex, std::unique_ptr<ByteStream> stream);
  ~FrameStream();  // closes
  FrameStream(const FrameStream&) = delete;
  FrameStream& operator=(const FrameStream&) = delete;

  // The next frame, oldest first; std::nullopt at a clean end. Credit frames are consumed here, not delivered, unless relay_credit is set.
  // Errc::gone, bad_input or too_large: hang up. One reader at a time. Must be awaited all the time: credit arrives only while somebody reads.
  awaitable<result<std::optional<wire::Frame>>> read();

  // Queues a control frame; it goes out before any queued bulk. Never waits. Dropped when the stream is broken.
  void send(std::uint32_t request, const wire::Message& message);
  // Queues a raw frame as it is, for relays (its credit is the endpoints' business).
  void forward(wire::Frame frame);

  // Sends bytes of a bulk stream in frames of at most kMaxBulkBytes, waiting for credit and for the queue to drain.
  // Returns when the last frame is queued. Errc::gone when the stream broke or the request was dropped.
  awaitable<result<void>> send_bulk(wire::FrameKind kind, std::uint32_t request, std::string_view bytes);
  // The empty frame that ends a stream. Needs no credit; goes out after what send_bulk queued.
  void end_bulk(wire::FrameKind kind, std::uint32_t request);

  // The reader has dealt with so many bytes of a stream: gives the peer new credit, up to kFullCredit outstanding.
  void consumed(wire::FrameKind kind, std::uint32_t request, std::size_t bytes);
  // Forgets a request's streams and ends its waiting send_bulk calls with Errc::cancelled.
  void drop(std::uint32_t request);

  // Credit frames are then delivered by read() and must be forwarded by the caller.
  void set_relay_credit(bool relay);

  // Returns when everything queued so far was written.
  awaitable<result<void>> flush();
  // flush, then ends our direction.
  awaitable<result<void>> finish();
  void close() noexcept;
  bool is_open() const noexcept;
  // Bytes queued and not yet written: a relay stops reading its other side above a bound.
  std::size_t queued_bytes() const noexcept;
  // Returns when queued_bytes() is at most `bytes`, or the stream broke.
  awaitable<void> drained(std::size_t bytes);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace protocol::os
