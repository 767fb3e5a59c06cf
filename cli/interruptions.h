// What Ctrl+C and other signals mean while a command runs in a sandbox: the first goes to the
// command, the second ends it, the third leaves it to the box.
#pragma once

#include <optional>
#include <string>

#include "cli/command_streams.h"
#include "cli/context.h"
#include "cli/session_client.h"
#include "protocol/os/pty.h"

namespace cli {

// The size of the terminal that a command with one gets: that of our stdin, or of our stdout when
// stdin is none. 24 rows of 80 columns when neither is one.
protocol::os::WindowSize command_window(const Environment& environment);

class Interruptions {
 public:
  // `what` runs: "command" or "setup". `terminal`: its terminal follows the size of ours. All
  // references outlive this.
  Interruptions(Context& context, SessionClient& client, CommandStreams& streams, std::string what,
                bool terminal);

  void operator()(int signal);
  // The last one that was not only a new size.
  std::optional<int> last() const { return last_; }

 private:
  void give_up(int signal, const std::string& message);

  Context& context_;
  SessionClient& client_;
  CommandStreams& streams_;
  std::string what_;
  bool terminal_;
  int count_ = 0;
  bool told_ = false;
  std::optional<int> last_;
};

}  // namespace cli
