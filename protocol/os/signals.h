// Signals of this process, as values that coroutines wait for. Handled even where the parent had
// them ignored (nohup, a shell's background job).
#pragma once

#include <initializer_list>
#include <memory>

#include "protocol/os/async.h"

namespace protocol::os {

// From construction on these signals do nothing but come out of next().
class SignalStream {
 public:
  SignalStream(executor ex, std::initializer_list<int> signals);
  ~SignalStream();
  SignalStream(const SignalStream&) = delete;
  SignalStream& operator=(const SignalStream&) = delete;

  // The next one; those that came meanwhile are kept. 0 after close().
  awaitable<int> next();
  void close() noexcept;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Every signal gets its default again and none is blocked; SIGPIPE is ignored. First thing in main:
// whatever started us may have left anything.
void reset_signals();
// A broken pipe is then an error of the call that writes. Children get the default back
// (process.h).
void ignore_sigpipe();

}  // namespace protocol::os
