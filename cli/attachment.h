// Watching a detached job: all of its output from the first byte, then live, until it ends or the
// watcher goes. The job does not notice either way.
#pragma once

#include <optional>
#include <string>

#include "cli/command_streams.h"
#include "cli/output.h"
#include "cli/session.h"
#include "cli/stream_copies.h"

namespace cli {

class Attachment {
 public:
  struct Outcome {
    std::optional<protocol::wire::Exited> exited;  // neither: leave() came first
    std::optional<protocol::wire::Failed> failed;
    std::string output_lost;  // why what it printed could not all be written here
  };

  // The session needs no sandbox. `streams` must live until run() has returned.
  Attachment(const protocol::os::executor& executor, std::shared_ptr<Session> session,
             CommandStreams& streams, Output& output);
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;

  // `user`: the claimed name. Returns when the job has ended and its output is written, when the
  // agent refuses, or after leave(). Throws UserError when the connection is lost. Once.
  protocol::os::awaitable<Outcome> run(std::string job, std::string user);
  // Ends run() soon; the job goes on. Closes the session.
  void leave();
  bool left() const { return left_; }

 private:
  protocol::os::awaitable<void> watch();
  void unwritable(protocol::wire::FrameKind stream, const protocol::wire::Failure& why);

  std::shared_ptr<Session> session_;
  CommandStreams& streams_;
  Output& output_;
  StreamCopies copies_;
  std::uint32_t request_ = 0;
  bool started_ = false;
  bool left_ = false;
  Outcome outcome_;
};

}  // namespace cli
