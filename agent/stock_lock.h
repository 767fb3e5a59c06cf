// The command lock of a stock client: asked for and given back by directives, each on a channel of
// its own, and owned by the SSH connection. `ssh box __rwx_sandbox_lock_requested__` waits in line
// and exits 0 when granted.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "agent/lifetime.h"
#include "agent/locks.h"
#include "agent/services.h"
#include "protocol/os/wakeup.h"
#include "protocol/ssh/server.h"

namespace agent {

class StockLock : public LockClient, public std::enable_shared_from_this<StockLock> {
 public:
  // `on_lapse` has to end what the connection runs; the lock goes with the connection.
  StockLock(Services& services, std::function<void()> on_lapse);

  // Serves one lock_requested channel: queue news on stderr, exit status 0 when granted, closed
  // without a status when refused. A client that closes the channel leaves the line.
  protocol::os::awaitable<void> request(std::shared_ptr<protocol::ssh::ServerChannel> channel,
                                        std::string sandbox, std::string user,
                                        protocol::wire::LockRequested ask);
  void release();
  // The connection is gone; its commands may still have to be reaped. The lock goes with this
  // object.
  void gone() { services_.locks.gone(owner_.id()); }
  LockOwner owner() const { return owner_.id(); }
  bool held() const { return ask_ && ask_->state == State::granted; }

  void lock_granted(const protocol::wire::Granted& granted) override;
  void lock_queued(const protocol::wire::Queued& queued) override;
  void lock_refused(const protocol::wire::Refused& refused) override;
  void lock_lapsed() override;
  void lock_bypassed(const protocol::wire::Holder& by) override;

 private:
  void stop();

  enum class State { waiting, granted, refused };
  struct Ask {
    State state = State::waiting;
    std::string news;  // the last line for stderr
    int tellers = 0;   // channels that wait for its end
  };
  struct Watch {
    bool closed = false;
  };

  Services& services_;
  std::function<void()> on_lapse_;
  protocol::os::Wakeup changed_;
  std::shared_ptr<Ask> ask_;  // the present one
  OwnLock owner_;
  Lifetime::Enlisted enlisted_;
};

// What a waiting or refused client is told, as one line.
std::string queue_news(const protocol::wire::Queued& queued);
std::string refusal_text(const protocol::wire::Refused& refused);

}  // namespace agent
