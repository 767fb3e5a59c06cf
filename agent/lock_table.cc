#include "agent/lock_table.h"

#include <algorithm>
#include <cassert>

namespace agent {
namespace {

using protocol::wire::Granted;
using protocol::wire::Holder;
using protocol::wire::Queued;
using protocol::wire::Refused;
using std::chrono::duration_cast;
using std::chrono::seconds;

// A longer wait is without limit, so that no sum of times overflows.
constexpr seconds kLongestWait{std::chrono::hours{24 * 366}};

Holder shown(const LockRequest& request, LockTable::Time since, LockTable::Time now) {
  return Holder{.user = request.user,
                .verb = request.verb,
                .command = request.command,
                .held_seconds = duration_cast<seconds>(now - since).count(),
                .scope = request.scope,
                .sandbox = request.sandbox,
                .job = request.job};
}

Holder shown(const UserLock& lock, LockTable::Time now) {
  return Holder{.user = lock.user,
                .verb = "lock",
                .command = lock.reason,
                .held_seconds = duration_cast<seconds>(now - lock.at).count(),
                .scope = lock.scope};
}

// Whether the two exclude each other, slots apart.
bool collide(const LockRequest& a, const LockRequest& b) {
  return a.sandbox.empty() || b.sandbox.empty() || a.sandbox == b.sandbox;
}

}  // namespace

std::string text(const Fence& fence) {
  return std::to_string(fence.epoch) + "." + std::to_string(fence.counter);
}

std::optional<seconds> wait_budget(std::int64_t wait_seconds) {
  if (wait_seconds < 0 || wait_seconds > kLongestWait.count()) return std::nullopt;
  return seconds(wait_seconds);
}

LockTable::LockTable(LockTableOptions options) : options_(std::move(options)) {
  assert(options_.ttl > seconds::zero());
}

// ---- what stands where

const LockTable::Held* LockTable::held(LockOwner owner) const {
  const auto found =
      std::ranges::find_if(held_, [&](const Held& h) { return h.request.owner == owner; });
  return found == held_.end() ? nullptr : &*found;
}

LockTable::Held* LockTable::held(LockOwner owner) {
  return const_cast<Held*>(std::as_const(*this).held(owner));
}

std::vector<LockTable::Waiting>::iterator LockTable::in_line(LockOwner owner) {
  return std::ranges::find_if(line_, [&](const Waiting& w) { return w.request.owner == owner; });
}

bool LockTable::locked_against(const LockRequest& request) const {
  return user_lock_ && !user_lock_->is_of(request.user, request.scope);
}

// Whether somebody who came earlier waits for the whole box and only for others to give back.
bool LockTable::behind_whole_box(const LockRequest& request) const {
  for (const Waiting& other : line_) {
    if (other.request.owner == request.owner) return false;
    if (other.request.sandbox.empty() && !locked_against(other.request)) return true;
  }
  return false;
}

bool LockTable::eligible(const LockRequest& request) const {
  return !locked_against(request) && !slots_taken() && !behind_whole_box(request) &&
         std::ranges::none_of(held_, [&](const Held& h) { return collide(h.request, request); });
}

// Those that hold its sandbox or the whole box; when there are none, those that fill the slots or
// keep somebody waiting for the whole box.
std::vector<const LockTable::Held*> LockTable::in_the_way(const LockRequest& request) const {
  std::vector<const Held*> found;
  for (const Held& h : held_) {
    if (collide(h.request, request)) found.push_back(&h);
  }
  if (!found.empty() || !(slots_taken() || behind_whole_box(request))) return found;
  for (const Held& h : held_) found.push_back(&h);
  return found;
}

std::vector<Holder> LockTable::shown_in_the_way(const LockRequest& request, Time now) const {
  std::vector<Holder> out;
  if (locked_against(request)) out.push_back(shown(*user_lock_, now));
  for (const Held* h : in_the_way(request)) out.push_back(shown(h->request, h->since, now));
  return out;
}

// Equal exactly when the same grants stand in the way, and a user lock (0, no fence's counter) or
// none.
std::vector<std::uint64_t> LockTable::names_of_the_way(const LockRequest& request) const {
  std::vector<std::uint64_t> names;
  if (locked_against(request)) names.push_back(0);
  for (const Held* h : in_the_way(request)) names.push_back(h->fence.counter);
  return names;
}

Refused LockTable::refusal(const LockRequest& request, const char* why, Time now) const {
  Refused refused{.why = why, .box = options_.box, .holders = shown_in_the_way(request, now)};
  if (locked_against(request)) {
    refused.since = user_lock_->since;
    refused.reason = user_lock_->reason;
  }
  return refused;
}

// Those ahead that it competes with: for its sandbox and, where slots are counted, for a slot.
std::int64_t LockTable::position(const Waiting& waiter) const {
  std::int64_t ahead = 0;
  for (const Waiting& other : line_) {
    if (&other == &waiter) break;
    if (options_.slots != 0 || collide(other.request, waiter.request)) ++ahead;
  }
  return ahead + 1;
}

Queued LockTable::place(const Waiting& waiter, Time now) const {
  return Queued{.position = waiter.position, .holders = shown_in_the_way(waiter.request, now)};
}

// ---- asking and giving back

LockEvents LockTable::request(LockRequest request, Time now) {
  const LockOwner owner = request.owner;
  if (const Held* mine = held(owner)) {
    if (mine->ending) return {{owner, refusal(request, "busy", now)}};
    return {{owner, Granted{.fence = text(mine->fence), .ttl_seconds = options_.ttl.count()}}};
  }
  if (request.force) return force(std::move(request), now);
  if (const auto waiter = in_line(owner); waiter != line_.end()) {
    waiter->active = now;
    return {{owner, place(*waiter, now)}};
  }
  // Nobody in line is eligible, or the last walk would have granted it: so this one overtakes
  // nobody that it competes with.
  if (eligible(request)) {
    LockEvents events{{owner, grant(std::move(request), now, now)}};
    walk(events, now);
    return events;
  }
  if (request.wait && *request.wait <= seconds::zero()) {
    return {{owner, refusal(request, locked_against(request) ? "locked" : "busy", now)}};
  }
  if (line_.size() >= options_.max_queue) return {{owner, refusal(request, "queue_full", now)}};
  Waiting waiter{.since = now, .active = now};
  if (request.wait && *request.wait <= kLongestWait) waiter.deadline = now + *request.wait;
  waiter.request = std::move(request);
  line_.push_back(std::move(waiter));
  LockEvents events;
  walk(events, now);
  return events;
}

LockEvents LockTable::force(LockRequest request, Time now) {
  LockEvents events;
  std::vector<Holder> bypassed = shown_in_the_way(request, now);
  const Holder by = shown(request, now, now);
  for (const Held* h : in_the_way(request)) events.push_back({h->request.owner, Bypassed{by}});
  if (const auto waiter = in_line(request.owner); waiter != line_.end()) line_.erase(waiter);
  const LockOwner owner = request.owner;
  const bool shared =
      std::ranges::any_of(held_, [&](const Held& h) { return collide(h.request, request); });
  Granted granted = grant(std::move(request), now, now);
  granted.bypassed = std::move(bypassed);
  granted.shared = shared;
  events.insert(events.begin(), {owner, std::move(granted)});
  walk(events, now);
  return events;
}

Granted LockTable::grant(LockRequest request, Time now, Time active) {
  const Fence fence{options_.epoch, ++counter_};
  held_.push_back(
      Held{.request = std::move(request), .fence = fence, .since = now, .active = active});
  return Granted{.fence = text(fence), .ttl_seconds = options_.ttl.count()};
}

LockEvents LockTable::release(LockOwner owner, Time now) {
  const Held* mine = held(owner);
  if (mine == nullptr || mine->ending) return {};
  return pass_on(owner, now);
}

LockEvents LockTable::reaped(LockOwner owner, Time now) {
  const Held* mine = held(owner);
  if (mine == nullptr || !mine->ending) return {};
  return pass_on(owner, now);
}

LockEvents LockTable::pass_on(LockOwner owner, Time now) {
  std::erase_if(held_, [&](const Held& h) { return h.request.owner == owner; });
  LockEvents events;
  walk(events, now);
  return events;
}

LockEvents LockTable::gone(LockOwner owner, Time now) {
  LockEvents events;
  if (Held* mine = held(owner)) {
    mine->ending = true;
  } else if (const auto waiter = in_line(owner); waiter != line_.end()) {
    line_.erase(waiter);
    walk(events, now);
  }
  return events;
}

// Grants whatever has become possible, in the order of arrival, and tells the others where they
// stand now.
void LockTable::walk(LockEvents& events, Time now) {
  for (auto waiter = line_.begin(); waiter != line_.end();) {
    if (!eligible(waiter->request)) {
      ++waiter;
      continue;
    }
    const LockOwner owner = waiter->request.owner;
    Granted granted = grant(std::move(waiter->request), now, waiter->active);
    granted.queued = true;
    waiter = line_.erase(waiter);
    events.push_back({owner, std::move(granted)});
  }
  for (Waiting& waiter : line_) {
    const std::int64_t at = position(waiter);
    std::vector<std::uint64_t> behind = names_of_the_way(waiter.request);
    if (at == waiter.position && behind == waiter.behind) continue;
    waiter.position = at;
    waiter.behind = std::move(behind);
    events.push_back({waiter.request.owner, place(waiter, now)});
  }
}

// ---- jobs

bool LockTable::transfer(LockOwner from, LockOwner to, const std::string& job) {
  Held* mine = held(from);
  if (mine == nullptr || mine->ending) return false;
  assert(held(to) == nullptr && in_line(to) == line_.end());
  mine->request.owner = to;
  mine->request.job = job;
  mine->mortal = false;
  return true;
}

Fence LockTable::adopt(LockRequest request, Time since) {
  assert(held(request.owner) == nullptr && in_line(request.owner) == line_.end());
  grant(std::move(request), since, since);
  held_.back().mortal = false;
  return held_.back().fence;
}

// ---- time

void LockTable::activity(LockOwner owner, Time now) {
  if (Held* mine = held(owner)) {
    mine->active = std::max(mine->active, now);
  } else if (const auto waiter = in_line(owner); waiter != line_.end()) {
    waiter->active = std::max(waiter->active, now);
  }
}

std::optional<LockTable::Time> LockTable::next_deadline() const {
  std::optional<Time> next;
  const auto consider = [&](Time at) { next = next ? std::min(*next, at) : at; };
  for (const Held& h : held_) {
    if (h.mortal && !h.ending) consider(h.active + options_.ttl);
  }
  for (const Waiting& waiter : line_) {
    consider(waiter.active + options_.ttl);
    if (waiter.deadline) consider(*waiter.deadline);
  }
  return next;
}

LockEvents LockTable::tick(Time now) {
  LockEvents events;
  for (Held& h : held_) {
    if (!h.mortal || h.ending || now < h.active + options_.ttl) continue;
    h.ending = true;
    events.push_back({h.request.owner, Lapsed{}});
  }
  // All are told what stands in their way before any of them leaves the line.
  const auto over = [&](const Waiting& waiter) {
    const bool silent = now >= waiter.active + options_.ttl;
    return silent || (waiter.deadline && now >= *waiter.deadline);
  };
  for (const Waiting& waiter : line_) {
    if (over(waiter))
      events.push_back({waiter.request.owner, refusal(waiter.request, "expired", now)});
  }
  std::erase_if(line_, over);
  walk(events, now);
  return events;
}

// ---- user locks

LockTable::UserLockChange LockTable::may_lock(const std::string& user,
                                              const std::string& scope) const {
  if (!user_lock_) return UserLockChange::done;
  return user_lock_->is_of(user, scope) ? UserLockChange::unchanged : UserLockChange::refused;
}

std::optional<Holder> LockTable::user_lock_holder(Time now) const {
  return user_lock_ ? std::optional(shown(*user_lock_, now)) : std::nullopt;
}

LockTable::UserLockChange LockTable::may_unlock(const std::string& user, const std::string& scope,
                                                bool forced) const {
  if (!user_lock_) return UserLockChange::unchanged;
  return user_lock_->is_of(user, scope) || forced ? UserLockChange::done : UserLockChange::refused;
}

std::pair<LockTable::UserLockChange, LockEvents> LockTable::lock(UserLock wanted, Time now) {
  const auto change = may_lock(wanted.user, wanted.scope);
  LockEvents events;
  if (change == UserLockChange::done) {
    if (wanted.at == Time{}) wanted.at = now;
    user_lock_ = std::move(wanted);
    walk(events, now);
  }
  return {change, std::move(events)};
}

std::pair<LockTable::UserLockChange, LockEvents> LockTable::unlock(const std::string& user,
                                                                   const std::string& scope,
                                                                   bool forced, Time now) {
  const auto change = may_unlock(user, scope, forced);
  LockEvents events;
  if (change == UserLockChange::done) {
    user_lock_.reset();
    walk(events, now);
  }
  return {change, std::move(events)};
}

// ---- what others see

std::optional<Fence> LockTable::fence(LockOwner owner) const {
  const Held* mine = held(owner);
  return mine == nullptr || mine->ending ? std::nullopt : std::optional(mine->fence);
}

bool LockTable::waits(LockOwner owner) const {
  return std::ranges::any_of(line_, [&](const Waiting& w) { return w.request.owner == owner; });
}

std::optional<Holder> LockTable::standing(LockOwner owner, Time now) const {
  if (const Held* mine = held(owner)) return shown(mine->request, mine->since, now);
  for (const Waiting& waiter : line_) {
    if (waiter.request.owner == owner) return shown(waiter.request, waiter.since, now);
  }
  return std::nullopt;
}

std::optional<Refused> LockTable::refuses_plain(LockOwner owner, const std::string& user,
                                                Time now) const {
  const Held* mine = held(owner);
  if (mine != nullptr && !mine->ending) return std::nullopt;
  return refuses_beside(LockRequest{.owner = owner, .user = user}, now);
}

// Another user's user lock, others' holding all slots, or somebody's having the whole box.
std::optional<Refused> LockTable::refuses_beside(const LockRequest& who, Time now) const {
  if (locked_against(who)) {
    return Refused{.why = "locked",
                   .box = options_.box,
                   .holders = {shown(*user_lock_, now)},
                   .since = user_lock_->since,
                   .reason = user_lock_->reason};
  }
  const Held* mine = held(who.owner);
  const bool whole_box = std::ranges::any_of(
      held_, [&](const Held& h) { return &h != mine && h.request.sandbox.empty(); });
  // One that is ending has its slot still, but not for anything new.
  const bool ending = mine != nullptr && mine->ending;
  if (!ending && !whole_box && (mine != nullptr || !slots_taken())) return std::nullopt;
  return Refused{.why = "busy", .box = options_.box, .holders = all_holders(now)};
}

std::optional<Refused> LockTable::refuses_end(LockOwner owner, const std::string& sandbox,
                                              const std::string& user, const std::string& scope,
                                              bool box_counts, Time now) const {
  Refused refused{.why = "busy", .box = options_.box};
  for (const Held& h : held_) {
    if (h.request.owner != owner && h.request.sandbox == sandbox) {
      refused.holders.push_back(shown(h.request, h.since, now));
    }
  }
  if (!refused.holders.empty()) return refused;
  if (!box_counts) return std::nullopt;
  return refuses_beside(
      LockRequest{.owner = owner, .sandbox = sandbox, .user = user, .scope = scope}, now);
}

std::vector<Holder> LockTable::holders(const std::string& sandbox, Time now) const {
  std::vector<Holder> out;
  for (const Held& h : held_) {
    if (h.request.sandbox == sandbox) out.push_back(shown(h.request, h.since, now));
  }
  return out;
}

std::vector<Holder> LockTable::all_holders(Time now) const {
  std::vector<Holder> out;
  for (const Held& h : held_) out.push_back(shown(h.request, h.since, now));
  return out;
}

std::vector<Holder> LockTable::all_waiting(Time now) const {
  std::vector<Holder> out;
  for (const Waiting& waiter : line_) out.push_back(shown(waiter.request, waiter.since, now));
  return out;
}

std::vector<Holder> LockTable::waiting(const std::string& sandbox, Time now) const {
  std::vector<Holder> out;
  for (const Waiting& waiter : line_) {
    if (waiter.request.sandbox == sandbox) out.push_back(shown(waiter.request, waiter.since, now));
  }
  return out;
}

}  // namespace agent
