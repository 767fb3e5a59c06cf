// The lock table: who may run a locked command in which sandbox of this box, who waits for it, and
// who has reserved the whole box. A pure state machine: it reads no clock, sends nothing and stores
// nothing. Every call gets the time, and gives back what has to be told to whom, oldest first.
//
// One arrival list per box. It is walked in order on every change; a request is granted when its
// sandbox has no holder, a slot is free and no other user's user lock covers the box. It takes all
// or nothing, so nobody holds a part and waits for the rest, and sandboxes wait for each other only
// for slots. A request may also ask for the whole box: it waits for every holder, and nobody who
// came later passes it.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "protocol/wire/limits.h"
#include "protocol/wire/messages.h"

namespace agent {

// Whoever asks: a session, an SSH connection of a stock client, a job. Made by the caller, never
// used twice in the life of one table. An owner has one sandbox, and there one request or one lock
// at a time.
using LockOwner = std::uint64_t;

// Grants in the order in which they were made, across restarts of the agent: the epoch is new at
// each start.
struct Fence {
  std::uint64_t epoch = 0;
  std::uint64_t counter = 0;
  auto operator<=>(const Fence&) const = default;
};
std::string text(const Fence& fence);  // "epoch.counter"

struct LockRequest {
  LockOwner owner = 0;
  std::string sandbox;  // empty: the whole box
  std::string user;
  std::string scope;  // which CI job of that user; empty: the person
  std::string verb;
  std::string command;
  std::optional<std::chrono::seconds>
      wait;            // std::nullopt: without limit; zero or less: refused at once
  bool force = false;  // granted whatever holds it, with a fence of its own
  std::string job;     // set by transfer() and for adopt(): the job that owns the lock
};
// Of the `wait_seconds` on the wire: below zero is without limit.
std::optional<std::chrono::seconds> wait_budget(std::int64_t wait_seconds);

// A person's reservation of the whole box. It never expires.
struct UserLock {
  std::string user;
  std::string since;   // RFC 3339
  std::string reason;  // may be empty
  // Of one CI job of that user alone; empty: the user's, under whatever scope.
  std::string scope = {};
  std::chrono::steady_clock::time_point at = {};  // when that was; lock() fills in its now
  bool operator==(const UserLock&) const = default;
  bool is_of(const std::string& who, const std::string& which) const {
    return user == who && (scope.empty() || scope == which);
  }
};

// The holder was silent for too long: end what it runs, then say reaped(). It is the holder until
// then.
struct Lapsed {};
// Somebody was let in beside this holder by force. It keeps its lock.
struct Bypassed {
  protocol::wire::Holder by;
};

struct LockEvent {
  LockOwner owner = 0;
  std::variant<protocol::wire::Granted, protocol::wire::Queued, protocol::wire::Refused, Lapsed,
               Bypassed>
      what;
};
using LockEvents = std::vector<LockEvent>;

struct LockTableOptions {
  std::string box;          // its name, for refusals
  std::uint64_t epoch = 1;  // greater at each start of the agent
  std::size_t slots = 1;    // commands at once on the box; 0: no limit
  std::chrono::seconds ttl = protocol::wire::kDefaultLockTtl;  // of silence; above zero
  std::size_t max_queue = protocol::wire::kMaxQueue;
};

class LockTable {
 public:
  using Time = std::chrono::steady_clock::time_point;

  explicit LockTable(LockTableOptions options);

  // Asks for the command lock. Nothing expires here, only in tick(). Answered at once by granted,
  // queued or refused; queued is followed by more of them when the place changes, and ends with
  // granted or refused. An owner that holds it already is granted it with the same fence; one that
  // waits already is told its place again; one that is ending is refused.
  LockEvents request(LockRequest request, Time now);
  // The owner gives its lock back, and promises that nothing of it runs. No effect from anybody
  // else, nor from an owner that is ending: only reaped() ends that.
  LockEvents release(LockOwner owner, Time now);
  // The owner's client is gone. Waiting: it leaves the line. Holding: its lock is ending, that is
  // kept from the others until reaped().
  LockEvents gone(LockOwner owner, Time now);
  // All that an ending owner ran is reaped: its lock passes on. No effect from one that is not
  // ending.
  LockEvents reaped(LockOwner owner, Time now);

  // The owner's client has proved itself alive.
  void activity(LockOwner owner, Time now);
  // One step: the lock of `from` is the job `to`'s, under the same fence. Silence does not end a
  // job's lock. False when `from` holds nothing or is ending.
  bool transfer(LockOwner from, LockOwner to, const std::string& job);
  // A job that outlived an earlier agent and still holds its lock. Granted whatever holds it;
  // silence does not end it. Requires an owner that the table does not know.
  Fence adopt(LockRequest request, Time since);

  // When tick() is due; std::nullopt: not before something else happens.
  std::optional<Time> next_deadline() const;
  // Ends waits whose budget ran out (refused: expired), and what was silent for the whole ttl: a
  // waiter is refused (expired), a holder lapses.
  LockEvents tick(Time now);

  enum class UserLockChange {
    done,       // the box is locked or unlocked now, and was not
    unchanged,  // the caller's own lock is in place already, or there is nothing to unlock
    refused     // somebody else's is in place: user_lock() says whose
  };
  const std::optional<UserLock>& user_lock() const { return user_lock_; }
  std::optional<protocol::wire::Holder> user_lock_holder(Time now) const;
  // What lock and unlock would answer: the caller writes the change to disk between this and them.
  UserLockChange may_lock(const std::string& user, const std::string& scope) const;
  UserLockChange may_unlock(const std::string& user, const std::string& scope, bool force) const;
  // Running commands go on; other users' requests wait from here on, or are refused.
  std::pair<UserLockChange, LockEvents> lock(UserLock wanted, Time now);
  std::pair<UserLockChange, LockEvents> unlock(const std::string& user, const std::string& scope,
                                               bool force, Time now);

  // The owner's fence while it holds; std::nullopt when it waits, is ending or is not known.
  // Nothing of an owner without one may touch the sandbox.
  std::optional<Fence> fence(LockOwner owner) const;
  bool waits(LockOwner owner) const;
  // As others see the owner: what it holds or waits for; std::nullopt: neither.
  std::optional<protocol::wire::Holder> standing(LockOwner owner, Time now) const;
  // Why a command that takes no lock (a stock client's plain one) is refused all the same: another
  // user's user lock, or others hold every slot. std::nullopt: it may run.
  std::optional<protocol::wire::Refused> refuses_plain(LockOwner owner, const std::string& user,
                                                       Time now) const;
  // Why the owner's user may not end this sandbox now: another owner holds it; or, where the rest
  // of the box counts, too, as in refuses_plain.
  std::optional<protocol::wire::Refused> refuses_end(LockOwner owner, const std::string& sandbox,
                                                     const std::string& user,
                                                     const std::string& scope, bool box_counts,
                                                     Time now) const;
  std::vector<protocol::wire::Holder> holders(const std::string& sandbox, Time now) const;
  std::vector<protocol::wire::Holder> all_holders(Time now) const;
  std::vector<protocol::wire::Holder> all_waiting(Time now) const;
  // Those in line, first first. Their held_seconds says for how long they have waited.
  std::vector<protocol::wire::Holder> waiting(const std::string& sandbox, Time now) const;
  bool idle() const { return held_.empty() && line_.empty(); }

 private:
  struct Held {
    LockRequest request;
    Fence fence;
    Time since;
    Time active;
    bool mortal = true;  // silence ends it
    bool ending = false;
  };
  struct Waiting {
    LockRequest request;
    Time since;
    Time active;
    std::optional<Time> deadline;
    // As last told: the place, and what stood in the way.
    std::int64_t position = 0;
    std::vector<std::uint64_t> behind;
  };

  const Held* held(LockOwner owner) const;
  Held* held(LockOwner owner);
  std::vector<Waiting>::iterator in_line(LockOwner owner);
  bool locked_against(const LockRequest& request) const;
  bool slots_taken() const { return options_.slots != 0 && held_.size() >= options_.slots; }
  bool eligible(const LockRequest& request) const;
  bool behind_whole_box(const LockRequest& request) const;
  std::optional<protocol::wire::Refused> refuses_beside(const LockRequest& who, Time now) const;
  std::vector<const Held*> in_the_way(const LockRequest& request) const;
  std::vector<protocol::wire::Holder> shown_in_the_way(const LockRequest& request, Time now) const;
  std::vector<std::uint64_t> names_of_the_way(const LockRequest& request) const;
  protocol::wire::Refused refusal(const LockRequest& request, const char* why, Time now) const;
  protocol::wire::Queued place(const Waiting& waiter, Time now) const;
  std::int64_t position(const Waiting& waiter) const;
  protocol::wire::Granted grant(LockRequest request, Time now, Time active);
  LockEvents force(LockRequest request, Time now);
  LockEvents pass_on(LockOwner owner, Time now);
  void walk(LockEvents& events, Time now);

  LockTableOptions options_;
  std::uint64_t counter_ = 0;
  std::vector<Held> held_;     // in the order of their grants
  std::vector<Waiting> line_;  // in the order of their arrival
  std::optional<UserLock> user_lock_;
};

}  // namespace agent
