// Carries a running command's streams between a session and the streams here, under credit.
#pragma once

#include <functional>
#include <memory>

#include "cli/command_streams.h"
#include "cli/session.h"
#include "protocol/os/wakeup.h"

namespace cli {

class StreamCopies {
 public:
  // Told once for each stream (output, error) that cannot be written here, and why: Errc::gone when
  // nobody reads it any more. What else comes of it is thrown away.
  using Unwritable = std::function<void(protocol::wire::FrameKind, const protocol::wire::Failure&)>;
  StreamCopies(const protocol::os::executor& executor, Unwritable unwritable);

  // Begins to copy the output of `request` to `streams`, and their input to it if there is any to
  // send. `streams` must live until finished() has returned. Once.
  void begin(const std::shared_ptr<Session>& session, std::uint32_t request,
             CommandStreams& streams, bool with_input);
  // Returns when everything that came was written and nothing is read any more. The command's
  // streams must have ended or been cut, and `streams` have been told its end.
  protocol::os::awaitable<void> finished();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace cli
