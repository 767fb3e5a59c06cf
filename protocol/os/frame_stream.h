// Frames over a byte stream: control ahead of bulk, bulk under credit. Used by client, agent and
// supervisor alike. Does not know what messages mean, but for two that never wait (see send). Wire
// rules: protocol/WIRE.md, "Frames" and "Credit".
//
// All calls on one executor. Destroying it closes it: calls that wait then end with Errc::gone, and
// may still do so after the object is gone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/os/byte_stream.h"
#include "protocol/wire/frames.h"
#include "protocol/wire/messages.h"

namespace protocol::os {

class FrameStream {
 public:
  explicit FrameStream(executor ex, std::unique_ptr<ByteStream> stream);
  ~FrameStream();  // closes
  FrameStream(const FrameStream&) = delete;
  FrameStream& operator=(const FrameStream&) = delete;

  // The next frame, oldest first; std::nullopt at a clean end. Credit frames are consumed here, not
  // delivered, unless relay_credit is set. Errc::gone, bad_input or too_large: hang up. One reader
  // at a time. Must be awaited all the time: credit arrives only while somebody reads. A peer that
  // sends more than kFullCredit of a stream ahead of consumed() is Errc::too_large.
  awaitable<result<std::optional<wire::Frame>>> read();

  // Queues a control frame; it goes out before any queued bulk, but behind the end of a stream of
  // the same request that was queued before it: `exited` never overtakes the output's end. `signal`
  // and `window` overtake that too. Never waits. Dropped when the stream is broken; breaks it when
  // the peer lets kMaxQueuedControlBytes pile up.
  void send(std::uint32_t request, const wire::Message& message);
  // Queues a raw frame as it is, for relays (its credit is the endpoints' business). The order is
  // send's. The caller keeps the bound: see drained.
  void forward(wire::Frame frame);

  // Sends bytes of a bulk stream in frames of at most kMaxBulkBytes, waiting for credit and for the
  // queue to drain. Returns when the last frame is queued; `bytes` must live until then. Errc::gone
  // when the stream broke, Errc::cancelled when the request was dropped. One call at a time per
  // stream.
  awaitable<result<void>> send_bulk(wire::FrameKind kind, std::uint32_t request,
                                    std::string_view bytes);
  // Returns when send_bulk could queue at least one byte at once: what a reader of a pipe waits for
  // before it reads. Errors as send_bulk.
  awaitable<result<void>> sendable(wire::FrameKind kind, std::uint32_t request);
  // The empty frame that ends a stream. Needs no credit; goes out after what send_bulk queued.
  void end_bulk(wire::FrameKind kind, std::uint32_t request);

  // The reader has dealt with so many bytes of a stream: gives the peer new credit, up to
  // kFullCredit outstanding. Nothing for a stream of which nothing has come.
  void consumed(wire::FrameKind kind, std::uint32_t request, std::size_t bytes);
  // Forgets a request's streams and ends its waiting send_bulk calls with Errc::cancelled.
  void drop(std::uint32_t request);

  // Credit frames are then delivered by read() and must be forwarded by the caller; what the peer
  // sends ahead is not counted here.
  void set_relay_credit(bool relay);

  // Returns when everything queued so far was written; Errc::gone when that will not be.
  awaitable<result<void>> flush();
  // flush, then ends our direction. What is queued meanwhile is dropped.
  awaitable<result<void>> finish();
  void close() noexcept;
  bool is_open() const noexcept;
  // Bytes queued and not yet written: a relay stops reading its other side above a bound.
  std::size_t queued_bytes() const noexcept;
  // Those of them that kMaxQueuedControlBytes bounds.
  std::size_t queued_control_bytes() const noexcept;
  // Returns when queued_bytes() is at most `bytes`, or the stream broke.
  awaitable<void> drained(std::size_t bytes);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace protocol::os
