// A two-way stream of bytes: an SSH channel, a unix socket, a pair of pipes. What the session
// channel runs on, so that everything above it is the same whichever way a box is reached.
#pragma once

#include <cstddef>
#include <span>

#include "protocol/os/async.h"

namespace protocol::os {

// One reader and one writer at a time. All calls on one executor.
class ByteStream {
 public:
  virtual ~ByteStream() = default;

  // At least one byte, or 0 when the peer has ended its direction. Errc::gone when the stream broke
  // or was closed. `buffer` must stay alive until the call ends.
  virtual awaitable<result<std::size_t>> read_some(std::span<std::byte> buffer) = 0;

  // Returns when every byte was handed to the system or the library below, which bounds what it
  // buffers (backpressure).
  virtual awaitable<result<void>> write(std::span<const std::byte> bytes) = 0;

  // Ends our direction; reading goes on.
  virtual awaitable<result<void>> shutdown_write() = 0;

  // Ends both directions at once; pending calls end with Errc::gone. Idempotent.
  virtual void close() noexcept = 0;
};

}  // namespace protocol::os
