// The line that says what we wait for: after 500 ms, changing each second on a terminal, written
// once otherwise, never with --json. Gone when it is destroyed.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "cli/output.h"
#include "protocol/os/async.h"
#include "protocol/wire/messages.h"

namespace cli {

inline constexpr std::chrono::milliseconds kQuietWait{500};

class WaitingLine {
 public:
  // `text` is what is waited for ("waiting for another sandbox command to finish with the
  // storage").
  WaitingLine(protocol::os::executor executor, Output& output, std::string text);
  ~WaitingLine();
  WaitingLine(const WaitingLine&) = delete;
  WaitingLine& operator=(const WaitingLine&) = delete;

  void set(std::string text);
  // The place in a line, as the agent says it; holding times go on counting here.
  void set(const protocol::wire::Queued& queued);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Of a command's text, so many bytes are shown.
inline constexpr std::size_t kShownCommand = 120;

// "waiting for the lock: place 2 in line; held by alice: exec `make test`, for 12s". `since` is
// added to the holders' times. Commands are shortened or left out so that it fits into `columns`:
// who holds the lock and for how long matters more.
std::string describe_queue(const protocol::wire::Queued& queued, std::chrono::seconds since,
                           std::size_t columns = SIZE_MAX);
// "alice: exec `make test`, for 12s"; `shown_command` 0: without the command.
std::string describe_holder(const protocol::wire::Holder& holder, std::chrono::seconds since,
                            std::size_t shown_command = kShownCommand);
// Is what stands in the way no command, but a person's reservation of the box?
bool is_user_lock(const protocol::wire::Holder& holder);
// "held by " and describe_holder(); of a user lock "locked by alice, for 12s: measuring".
std::string describe_hold(const protocol::wire::Holder& holder, std::chrono::seconds since,
                          std::size_t shown_command = kShownCommand);

}  // namespace cli
