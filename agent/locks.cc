#include "agent/locks.h"

#include <algorithm>
#include <utility>

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;

Locks::Locks(os::executor ex, const os::Clock& clock, LockTableOptions options)
    : clock_(clock), table_(std::move(options)), changed_(ex) {
  os::spawn(ex, "lock deadlines", keep_deadlines(alive_, *this));
}

Locks::~Locks() {
  *alive_ = false;
  changed_.notify();
}

os::awaitable<void> Locks::keep_deadlines(std::shared_ptr<bool> alive, Locks& locks) {
  while (*alive) {
    auto due = locks.table_.next_deadline();
    if (!due) {
      co_await locks.changed_.wait();
      continue;
    }
    bool earlier = co_await locks.changed_.wait_until(*due);
    if (!earlier && *alive) {
      locks.tell(locks.table_.tick(locks.clock_.now()));
    }
  }
}

LockOwner Locks::join(LockClient& client) {
  clients_[++last_owner_] = &client;
  return last_owner_;
}

void Locks::gone(LockOwner owner) { tell(table_.gone(owner, clock_.now())); }

void Locks::leave(LockOwner owner) {
  clients_.erase(owner);
  tell(table_.gone(owner, clock_.now()));
  tell(table_.reaped(owner, clock_.now()));
}

void Locks::request(LockOwner owner, const std::string& sandbox, const std::string& user,
                    const std::string& scope, const wire::LockRequested& request) {
  LockRequest wanted;
  wanted.owner = owner;
  wanted.sandbox = sandbox;
  wanted.user = user;
  wanted.scope = scope;
  wanted.verb = request.verb;
  wanted.command = request.command;
  wanted.wait = wait_budget(request.wait_seconds);
  wanted.force = request.force;
  tell(table_.request(std::move(wanted), clock_.now()));
}

void Locks::release(LockOwner owner) {
  if (table_.waits(owner)) {
    tell(table_.gone(owner, clock_.now()));
  } else {
    tell(table_.release(owner, clock_.now()));
  }
}

void Locks::active(LockOwner owner) { table_.activity(owner, clock_.now()); }

std::vector<wire::Holder> Locks::holders(const std::string& sandbox) const {
  return table_.holders(sandbox, clock_.now());
}

std::vector<wire::Holder> Locks::waiting(const std::string& sandbox) const {
  return table_.waiting(sandbox, clock_.now());
}

std::optional<wire::Refused> Locks::refuses_plain(LockOwner owner, const std::string& user) const {
  return table_.refuses_plain(owner, user, clock_.now());
}

std::vector<wire::Holder> Locks::all_holders() const { return table_.all_holders(clock_.now()); }

std::vector<wire::Holder> Locks::all_waiting() const { return table_.all_waiting(clock_.now()); }

std::optional<wire::Holder> Locks::standing(LockOwner owner) const {
  return table_.standing(owner, clock_.now());
}

std::optional<wire::Refused> Locks::refuses_end(LockOwner owner, const std::string& sandbox,
                                                const std::string& user, const std::string& scope,
                                                bool box_counts) const {
  return table_.refuses_end(owner, sandbox, user, scope, box_counts, clock_.now());
}

bool Locks::transfer(LockOwner from, LockOwner to, const std::string& job) {
  return table_.transfer(from, to, job);
}

os::Clock::steady Locks::steady_at(os::Clock::system date) const {
  auto age = std::max<std::chrono::steady_clock::duration>(
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(clock_.date() - date),
      std::chrono::steady_clock::duration::zero());
  return clock_.now() - age;
}

void Locks::adopt(LockRequest request, std::int64_t since) {
  table_.adopt(std::move(request), steady_at(os::Clock::system(std::chrono::seconds(since))));
}

void Locks::user_lock(UserLock lock) {
  auto since = os::parse_utc(lock.since);
  lock.at = since ? steady_at(*since) : clock_.now();
  tell(table_.lock(std::move(lock), clock_.now()).second);
}

std::optional<wire::Holder> Locks::user_lock_holder() const {
  return table_.user_lock_holder(clock_.now());
}

void Locks::user_unlock(const std::string& user, const std::string& scope, bool force) {
  tell(table_.unlock(user, scope, force, clock_.now()).second);
}

void Locks::tell(LockEvents events) {
  for (LockEvent& event : events) {
    events_.push_back(std::move(event));
  }
  changed_.notify();  // the next deadline may be another
  if (std::exchange(telling_, true)) {
    return;  // the loop below, further up the stack, goes on with them in order
  }
  while (!events_.empty()) {
    LockEvent event = std::move(events_.front());
    events_.pop_front();
    auto found = clients_.find(event.owner);
    if (found == clients_.end()) {
      continue;
    }
    LockClient& client = *found->second;
    if (const auto* granted = std::get_if<wire::Granted>(&event.what)) {
      client.lock_granted(*granted);
    } else if (const auto* queued = std::get_if<wire::Queued>(&event.what)) {
      client.lock_queued(*queued);
    } else if (const auto* refused = std::get_if<wire::Refused>(&event.what)) {
      client.lock_refused(*refused);
    } else if (const auto* bypassed = std::get_if<Bypassed>(&event.what)) {
      client.lock_bypassed(bypassed->by);
    } else {
      client.lock_lapsed();
    }
  }
  telling_ = false;
}

}  // namespace agent
