// A condition variable for the coroutines of one thread: wait in a loop that looks at the condition
// again. A waiter may outlive the Wakeup; it is then never woken, so notify before it goes.
#pragma once

#include <chrono>
#include <memory>

#include "protocol/os/async.h"

namespace protocol::os {

class Wakeup {
 public:
  using time_point = std::chrono::steady_clock::time_point;

  explicit Wakeup(executor ex);

  // Returns at the next notify.
  awaitable<void> wait();
  // True at the next notify, false at the deadline.
  awaitable<bool> wait_until(time_point deadline);
  // Wakes all that wait now. Never resumes one before it returns.
  void notify();

 private:
  struct Waiters;
  std::shared_ptr<Waiters> waiters_;
};

// Returns after this long.
awaitable<void> pause(executor ex, std::chrono::steady_clock::duration time);

}  // namespace protocol::os
