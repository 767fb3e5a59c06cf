// The lock table at work: its clock and timers, and who is told. The rules are the table's
// (agent/lock_table.h); this only asks it, keeps its deadlines, and passes its answers on.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/lock_table.h"
#include "protocol/os/async.h"
#include "protocol/os/clock.h"
#include "protocol/os/wakeup.h"
#include "protocol/wire/messages.h"

namespace agent {

// What the owner of a request hears, perhaps before its call to Locks returns.
class LockClient {
 public:
  virtual ~LockClient() = default;
  virtual void lock_granted(const protocol::wire::Granted& granted) = 0;
  virtual void lock_queued(const protocol::wire::Queued& queued) = 0;
  virtual void lock_refused(const protocol::wire::Refused& refused) = 0;
  // It was silent for too long: it has to end what it runs and then to leave. The lock is kept from
  // others until it has left.
  virtual void lock_lapsed() = 0;
  // Somebody was let in beside it by force; its lock stays.
  virtual void lock_bypassed(const protocol::wire::Holder& by) = 0;
};

class Locks {
 public:
  Locks(protocol::os::executor ex, const protocol::os::Clock& clock, LockTableOptions options);
  ~Locks();

  // A new owner; `client` must stay until leave().
  LockOwner join(LockClient& client);
  // The owner's client is gone, but what it ran may still have to be reaped: it leaves the line; a
  // lock is kept from the others.
  void gone(LockOwner owner);
  // Nothing of it runs: gives back what it has, and forgets it.
  void leave(LockOwner owner);

  // An empty `sandbox` is the whole box.
  void request(LockOwner owner, const std::string& sandbox, const std::string& user,
               const std::string& scope, const protocol::wire::LockRequested& request);
  // Gives its lock back, or leaves the line. Requires that nothing of it runs.
  void release(LockOwner owner);
  // The client has proved itself alive.
  void active(LockOwner owner);

  // The lock of `from` is the job's from here on, whose owner is `to`. False when `from` holds none
  // or its client is gone.
  bool transfer(LockOwner from, LockOwner to, const std::string& job);
  // A job of an earlier agent's life has its lock still, and has had it since then (seconds since
  // 1970). Only before anybody else asks.
  void adopt(LockRequest request, std::int64_t since);

  std::vector<protocol::wire::Holder> holders(const std::string& sandbox) const;
  std::vector<protocol::wire::Holder> waiting(const std::string& sandbox) const;
  std::vector<protocol::wire::Holder> all_holders() const;
  std::vector<protocol::wire::Holder> all_waiting() const;
  std::optional<protocol::wire::Holder> standing(LockOwner owner) const;
  std::optional<protocol::wire::Refused> refuses_plain(LockOwner owner,
                                                       const std::string& user) const;
  std::optional<protocol::wire::Refused> refuses_end(LockOwner owner, const std::string& sandbox,
                                                     const std::string& user,
                                                     const std::string& scope,
                                                     bool box_counts) const;
  bool waits(LockOwner owner) const { return table_.waits(owner); }
  bool holds(LockOwner owner) const { return table_.fence(owner).has_value(); }
  bool idle() const { return table_.idle(); }

  // Reservations of the whole box, after the disk has them: agent/user_locks.h.
  const LockTable& table() const { return table_; }
  // `at` follows from its `since`.
  void user_lock(UserLock lock);
  std::optional<protocol::wire::Holder> user_lock_holder() const;
  void user_unlock(const std::string& user, const std::string& scope, bool force);

 private:
  // When it was that time, on the steady clock; now for what is still to come.
  protocol::os::Clock::steady steady_at(protocol::os::Clock::system date) const;
  static protocol::os::awaitable<void> keep_deadlines(std::shared_ptr<bool> alive, Locks& locks);
  void tell(LockEvents events);

  const protocol::os::Clock& clock_;
  LockTable table_;
  protocol::os::Wakeup changed_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::map<LockOwner, LockClient*> clients_;
  LockOwner last_owner_ = 0;
  std::deque<LockEvent> events_;  // not yet told
  bool telling_ = false;
};

// An owner for as long as this value lives.
class OwnLock {
 public:
  OwnLock(Locks& locks, LockClient& client) : locks_(locks), owner_(locks.join(client)) {}
  ~OwnLock() { locks_.leave(owner_); }
  OwnLock(const OwnLock&) = delete;
  OwnLock& operator=(const OwnLock&) = delete;
  LockOwner id() const { return owner_; }

 private:
  Locks& locks_;
  LockOwner owner_;
};

}  // namespace agent
