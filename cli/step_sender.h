// Sends the steps of one request, from sync_start to lock_released, ahead of any answer: the pack
// is made on a pool thread and goes out under credit. Knows nothing of what is answered.
#pragma once

#include <boost/asio/thread_pool.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/prepared.h"
#include "cli/session.h"
#include "protocol/os/wakeup.h"

namespace cli {

class StepSender {
 public:
  struct Steps {
    std::uint32_t request = 0;
    std::shared_ptr<protocol::sync::Origin> origin;
    std::shared_ptr<const Prepared> prepared;
    std::vector<std::string> haves;  // commits that the box has: the pack is thin against them
    std::optional<protocol::wire::Exec> exec;
    bool sync = true;     // false: neither sync_start nor a pack; `origin` is not looked at
    bool release = true;  // false: the lock is kept
  };

  // Begins to send. `pool` must outlive it. A pack that cannot be made to its end closes the
  // session: the agent must not wait for the rest.
  static std::shared_ptr<StepSender> begin(const protocol::os::executor& executor,
                                           boost::asio::thread_pool& pool,
                                           std::shared_ptr<Session> session, Steps steps);

  // Sends no more; what is queued is dropped.
  void stop();
  // stop(), and returns when nothing of it runs any more.
  protocol::os::awaitable<void> end();
  // Why the steps could not be sent; empty: they were, or were stopped.
  const std::string& failure() const { return failure_; }

 private:
  StepSender(const protocol::os::executor& executor, boost::asio::thread_pool& pool,
             std::shared_ptr<Session> session, Steps steps);
  static protocol::os::awaitable<void> send(std::shared_ptr<StepSender> self);
  static protocol::os::awaitable<void> send_all(std::shared_ptr<StepSender> self);
  void send_work();
  // Whether the whole pack was sent.
  static protocol::os::awaitable<bool> send_pack(std::shared_ptr<StepSender> self);

  protocol::os::executor executor_;
  boost::asio::thread_pool& pool_;
  std::shared_ptr<Session> session_;
  Steps steps_;
  bool stopped_ = false;
  bool done_ = false;
  std::string failure_;
  protocol::os::Wakeup ended_;
};

// Whether a message can be sent: one that is too large is encoded as another.
bool fits(const protocol::wire::Message& message);

}  // namespace cli
