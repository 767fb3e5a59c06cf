// A byte stream over descriptors: a socket, a pair of pipes, a terminal, also a regular file or
// /dev/null, which epoll refuses. Never blocks the loop.
#pragma once

#include <memory>

#include "protocol/os/byte_stream.h"
#include "protocol/os/fd.h"

namespace protocol::os {

class FdStream : public ByteStream {
 public:
  // `own`: nobody else has these open files, so they are made non-blocking. `shared`: they were
  // inherited (stdin, stdout); their flags stay, because a shell or a pipeline neighbour would feel
  // it, and writes go in small pieces that do not block.
  enum class Sharing { own, shared };

  // A socket, or anything else that is read and written through one descriptor.
  static std::unique_ptr<FdStream> both(executor ex, Fd fd, Sharing sharing = Sharing::own);
  // Either may be empty: reading then ends at once, writing is Errc::gone.
  static std::unique_ptr<FdStream> pair(executor ex, Fd read, Fd write,
                                        Sharing sharing = Sharing::own);
  ~FdStream() override;

  awaitable<result<std::size_t>> read_some(std::span<std::byte> buffer) override;
  awaitable<result<void>> write(std::span<const std::byte> bytes) override;
  awaitable<result<void>> shutdown_write() override;
  void close() noexcept override;

  // What can be read at once, without waiting: 0 at the end, Errc::busy when there is nothing yet.
  result<std::size_t> read_now(std::span<std::byte> buffer);
  // Returns when read_some would not wait, or the stream was closed.
  awaitable<void> readable();
  // Ends a waiting readable(), and makes read_some and write look again.
  void cancel_waits() noexcept;
  int read_fd() const noexcept;  // -1 after close()

 private:
  struct State;
  explicit FdStream(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace protocol::os
