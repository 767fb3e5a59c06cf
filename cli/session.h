// One session channel: sends messages, and sorts what comes back into messages (next) and bulk
// streams (bulk). Reads all the time, so that credit arrives. Knows the frames, not their order:
// session_client.h does.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "cli/trace.h"
#include "protocol/os/bulk_queue.h"
#include "protocol/os/byte_stream.h"
#include "protocol/os/frame_stream.h"

namespace cli {

class Session {
 public:
  struct Incoming {
    std::uint32_t request = 0;
    protocol::wire::Message message;
  };

  // `peer` names the box in errors.
  Session(protocol::os::executor executor, std::unique_ptr<protocol::os::ByteStream> stream,
          Trace& trace, std::string peer);
  ~Session();  // closes
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  std::uint32_t new_request();
  void send(std::uint32_t request, const protocol::wire::Message& message);

  // The next message, oldest first. Throws UserError when the other side has gone or talks
  // nonsense.
  protocol::os::awaitable<Incoming> next();
  // The same; std::nullopt when the deadline came first.
  protocol::os::awaitable<std::optional<Incoming>> next_until(
      std::chrono::steady_clock::time_point deadline);
  // The stream of that kind and request, made on first use; kept until drop(). A result's pack is
  // cut when `failed` comes after the result, every stream when the connection is lost.
  std::shared_ptr<protocol::os::BulkQueue> bulk(protocol::wire::FrameKind kind,
                                                std::uint32_t request);
  // Forgets a request's streams, both ways.
  void drop(std::uint32_t request);

  // From now on says regularly that this client is alive.
  void start_heartbeat(std::chrono::seconds ttl);

  protocol::os::FrameStream& frames();
  const std::string& peer() const;
  bool is_open() const;

  // Sends what is queued, ends our direction and closes. Failures do not matter any more.
  protocol::os::awaitable<void> finish();
  void close() noexcept;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Did a step fail? Else it was only a signal or a window size, which nothing depends on.
bool is_of_a_step(const protocol::wire::Failed& failed);

}  // namespace cli
