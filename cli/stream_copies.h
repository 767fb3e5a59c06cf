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
  // Told once for each stream that cannot be written here: `why` names it.
  using Lost = std::function<void(const std::string& why)>;
  StreamCopies(const protocol::os::executor& executor, Lost lost);

  // Begins to copy the output of `request` to `streams`, and their input to it if there is any to
  // send. `streams` must live until finished() has returned. Once.
  //
  // When nobody reads a stream here any more, the command gets SIGPIPE, as it would here. When one
  // cannot be written for another reason (a full disk), the command goes on: what it has done and
  // still does may be worth more than what it prints, which is lost.
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
