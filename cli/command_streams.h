// What a command's three streams are connected to here. standard_streams.h has the real one.
#pragma once

#include <optional>
#include <string>

#include "protocol/os/async.h"
#include "protocol/wire/frames.h"

namespace cli {

class CommandStreams {
 public:
  virtual ~CommandStreams() = default;

  // The command runs now / has ended: a terminal is made raw in between.
  virtual void begin() = 0;
  virtual void end() = 0;
  // `stream` is output or error. Returns when all of it was written; Errc::gone when nobody reads
  // it any more; every other failure names the stream.
  virtual protocol::os::awaitable<protocol::wire::result<void>> write(
      protocol::wire::FrameKind stream, std::string bytes) = 0;
  // The next input; std::nullopt at its end or after end(). One reader.
  virtual protocol::os::awaitable<std::optional<std::string>> read_input() = 0;
};

}  // namespace cli
