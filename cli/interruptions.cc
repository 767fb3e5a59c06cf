#include "cli/interruptions.h"

#include <signal.h>

#include <utility>

#include "protocol/os/pty.h"
#include "protocol/os/signal_names.h"

namespace cli {
namespace os = protocol::os;

os::WindowSize command_window(const Environment& environment) {
  return os::window(environment.stdin_is_terminal ? 0 : 1).value_or(os::WindowSize{});
}

Interruptions::Interruptions(Context& context, SessionClient& client, CommandStreams& streams,
                             std::string what, bool terminal)
    : context_(context),
      client_(client),
      streams_(streams),
      what_(std::move(what)),
      terminal_(terminal) {}

void Interruptions::operator()(int signal) {
  if (signal == SIGWINCH) {
    if (terminal_) {
      os::WindowSize size = command_window(context_.environment);
      client_.window(size.rows, size.columns);
    }
    return;
  }
  ++count_;
  last_ = signal;
  switch (client_.phase()) {
    case SessionClient::Phase::running:
      if (count_ > 2) {
        give_up(signal, "gave up waiting for the " + what_ + "; the box ends it");
      } else {
        client_.signal(os::signal_name(signal));
        if (count_ == 2 && signal == SIGINT) {
          client_.signal("TERM");
          context_.output.note("sandbox: ending the " + what_ +
                               "; Ctrl+C once more leaves it to the box");
        }
      }
      break;
    case SessionClient::Phase::after:
      if (!told_) {
        told_ = true;
        context_.output.note(
            "sandbox: bringing changed files back; once more leaves them on the box");
      } else {
        give_up(signal, "interrupted; `sandbox pull` brings back what the " + what_ + " changed");
      }
      break;
    default:
      give_up(signal, "interrupted before the " + what_ + " ran");
  }
}

void Interruptions::give_up(int signal, const std::string& message) {
  streams_.end();
  context_.give_up(UserError(what_, message, {}, 128 + signal));
}

}  // namespace cli
