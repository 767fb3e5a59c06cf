// When the agent stops, and what has to end before it does. Connections, sessions and waiters
// enlist; the agent tells them all, and waits for the connections.
#pragma once

#include <chrono>
#include <functional>
#include <list>

#include "protocol/os/wakeup.h"

namespace agent {

class Lifetime {
 public:
  explicit Lifetime(protocol::os::executor ex) : changed_(std::move(ex)) {}

  // Calls `on_stop` when the agent stops, for as long as this value lives. Where `counts`, the
  // agent is in use, and waits for it.
  class Enlisted {
   public:
    Enlisted(Lifetime& lifetime, std::function<void()> on_stop, bool counts);
    ~Enlisted();
    Enlisted(const Enlisted&) = delete;
    Enlisted& operator=(const Enlisted&) = delete;

   private:
    Lifetime& lifetime_;
    std::list<std::function<void()>>::iterator place_;
    bool counts_;
  };

  bool stopping() const { return stopping_; }
  std::size_t counted() const { return counted_; }
  // Tells everybody, once.
  void stop();
  // True when nothing that counts is left, false at the deadline.
  protocol::os::awaitable<bool> empty_by(std::chrono::steady_clock::time_point deadline);
  // Notified whenever one of the above changes.
  protocol::os::Wakeup& changed() { return changed_; }

 private:
  protocol::os::Wakeup changed_;
  std::list<std::function<void()>> enlisted_;
  std::size_t counted_ = 0;
  bool stopping_ = false;
};

}  // namespace agent
