// The reservation of the whole box, on the disk and in the lock table. One change at a time; each
// is on the disk before the lock table, and before it is answered.
#pragma once

#include <string>

#include "agent/locks.h"
#include "agent/notices.h"
#include "agent/store.h"
#include "protocol/os/async.h"
#include "protocol/os/clock.h"
#include "protocol/os/wakeup.h"
#include "protocol/wire/messages.h"

namespace agent {

class UserLocks {
 public:
  UserLocks(protocol::os::executor ex, const protocol::os::Clock& clock, std::string box,
            Store& store, Locks& locks, Notices& notices)
      : clock_(clock),
        box_(std::move(box)),
        store_(store),
        locks_(locks),
        notices_(notices),
        changed_(std::move(ex)) {}

  // Once, before anybody is let in.
  awaitable<result<void>> load();

  // What to answer: user_locked, refused or failed.
  awaitable<protocol::wire::Message> lock(std::string user, std::string scope, std::string reason);
  // user_unlocked, refused or failed. One that is forced away from somebody else is recorded, and
  // its holder gets a notice.
  awaitable<protocol::wire::Message> unlock(std::string user, std::string scope, bool force);

 private:
  class Turn;
  awaitable<void> take_turn();
  protocol::wire::Message refused() const;

  const protocol::os::Clock& clock_;
  std::string box_;
  Store& store_;
  Locks& locks_;
  Notices& notices_;
  protocol::os::Wakeup changed_;
  bool changing_ = false;
};

protocol::wire::UserLockInfo info_of(const UserLock& lock);

}  // namespace agent
