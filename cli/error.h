// What the user is told when a command cannot go on: a sentence, the next step, and an exit status.
// Thrown anywhere below a command, caught once, in run() (program.cc). Failures that a caller can
// act on are results (protocol/wire/result.h) until somebody knows the sentence.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "protocol/wire/result.h"

namespace cli {

// Exit statuses that are ours; every other one is the command's.
inline constexpr int kMisuse = 2;
inline constexpr int kBusy = 75;
inline constexpr int kTimedOut = 124;
inline constexpr int kNotExecutable = 126;
inline constexpr int kNotFound = 127;
inline constexpr int kNobodyReads = 141;  // as SIGPIPE ends others: `sandbox list | head -1`
inline constexpr int kIncomplete =
    254;  // the command ended with 0; its changes or its output could not all be brought here
inline constexpr int kFailed = 255;

// With an empty message nothing is said, because nobody reads our stdout any more.
struct UserError : std::runtime_error {
  // `part` is one word: arguments, config, project, storage, box, agent, lock, sync, setup,
  // command.
  UserError(std::string part, const std::string& message, std::string next_step = {},
            int exit_status = kFailed)
      : std::runtime_error(message),
        origin(std::move(part)),
        next(std::move(next_step)),
        status(exit_status) {}

  std::string origin;
  std::string next;  // what to do about it, a sentence; may be empty
  int status;
};

}  // namespace cli
