// Random histories against what the lock table promises, written down a second time as plain checks
// over plain lists. A failing seed prints itself.

#include <algorithm>
#include <map>
#include <random>

#include "agent/lock_table.h"
#include "tests/support/catch.h"

using namespace agent;
using namespace std::chrono_literals;
using namespace protocol::wire;

namespace {

constexpr std::chrono::seconds kTtl{100};
constexpr std::size_t kMaxLine = 6;

class Model {
 public:
  Model(std::uint64_t seed, std::size_t slots)
      : random_(seed),
        slots_(slots),
        table_({.box = "b", .epoch = seed, .slots = slots, .ttl = kTtl, .max_queue = kMaxLine}) {}

  void step() {
    switch (pick(12)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return ask();
      case 4:
      case 5:
        return release(any(1 + next_owner_));
      case 6:
        return gone();
      case 7:
        return reap();
      case 8:
        now_ += std::chrono::seconds(pick(40));
        return tick();
      case 9:
        if (const auto owner = any(1 + next_owner_); true) {
          table_.activity(owner, now_);
          if (auto* h = holder(owner)) h->active = now_;
          if (auto* w = waiter(owner)) w->active = now_;
        }
        return;
      case 10:
        return transfer();
      default:
        return user_lock();
    }
  }

  // Everything that is asked for ends: when all give back, nobody is left over.
  void drain() {
    absorb(table_.unlock("", "", true, now_).second, [&] { lock_.reset(); });
    for (int rounds = 0; !holders_.empty() || !line_.empty(); ++rounds) {
      REQUIRE(rounds < 1000);
      REQUIRE_FALSE(holders_.empty());
      const Mine first = holders_.front();
      if (first.ending) {
        absorb(table_.reaped(first.owner, now_), [&] { drop(first.owner); });
      } else {
        release(first.owner);
      }
    }
    CHECK(table_.idle());
    CHECK(asked_ == ended_);
  }

 private:
  struct Mine {
    LockOwner owner;
    std::string sandbox;
    std::string user;
    LockTable::Time active;
    std::optional<LockTable::Time> deadline;
    bool mortal = true;
    bool ending = false;
    std::int64_t told = 0;  // the place that it knows
  };

  std::size_t pick(std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_);
  }
  LockOwner any(std::size_t n) { return pick(n); }
  Mine* find(std::vector<Mine>& list, LockOwner owner) {
    const auto at = std::ranges::find(list, owner, &Mine::owner);
    return at == list.end() ? nullptr : &*at;
  }
  Mine* holder(LockOwner owner) { return find(holders_, owner); }
  Mine* waiter(LockOwner owner) { return find(line_, owner); }
  void drop(LockOwner owner) {
    std::erase_if(holders_, [&](const Mine& m) { return m.owner == owner; });
  }

  // A request without a sandbox is for the whole box.
  static bool collide(const Mine& a, const Mine& b) {
    return a.sandbox.empty() || b.sandbox.empty() || a.sandbox == b.sandbox;
  }
  bool let_in(const Mine& mine) const { return !lock_ || *lock_ == mine.user; }
  bool eligible(const Mine& mine) const {
    for (const Mine& earlier : line_) {
      if (earlier.owner == mine.owner) break;
      if (earlier.sandbox.empty() && let_in(earlier)) return false;
    }
    const bool free =
        std::ranges::none_of(holders_, [&](const Mine& h) { return collide(h, mine); });
    return free && (slots_ == 0 || holders_.size() < slots_) && let_in(mine);
  }
  std::int64_t place(const Mine& mine) const {
    std::int64_t at = 1;
    for (const Mine& w : line_) {
      if (w.owner == mine.owner) break;
      if (slots_ != 0 || collide(w, mine)) ++at;
    }
    return at;
  }

  // ---- what is done

  void ask() {
    const std::string names[] = {"alice", "bob", "carol"};
    Mine mine{
        .owner = ++next_owner_,
        .sandbox = pick(8) == 0 ? std::string() : std::string(1, static_cast<char>('s' + pick(3))),
        .user = names[pick(3)],
        .active = now_};
    LockRequest request{
        .owner = mine.owner, .sandbox = mine.sandbox, .user = mine.user, .verb = "exec"};
    request.force = pick(12) == 0;
    const std::size_t budget = pick(4);
    if (budget != 3) request.wait = std::chrono::seconds(budget * 50);
    if (budget == 1 || budget == 2) mine.deadline = now_ + *request.wait;
    ++asked_;
    asking_ = mine;
    forcing_ = request.force;
    absorb(table_.request(request, now_), [&] {
      // A place in the line before its first event, as the table does it; grant() and refuse() take
      // it out again.
      line_.push_back(mine);
    });
    asking_.reset();
    forcing_ = false;
  }

  void release(LockOwner owner) {
    absorb(table_.release(owner, now_), [&] {
      if (auto* h = holder(owner); h != nullptr && !h->ending) drop(owner);
    });
  }

  void gone() {
    const LockOwner owner = any(1 + next_owner_);
    absorb(table_.gone(owner, now_), [&] {
      if (auto* h = holder(owner)) h->ending = true;
      ended_ += std::erase_if(line_, [&](const Mine& m) { return m.owner == owner; });
    });
  }

  void reap() {
    const LockOwner owner = any(1 + next_owner_);
    absorb(table_.reaped(owner, now_), [&] {
      if (auto* h = holder(owner); h != nullptr && h->ending) drop(owner);
    });
  }

  void transfer() {
    const LockOwner from = any(1 + next_owner_);
    auto* h = holder(from);
    const bool possible = h != nullptr && !h->ending;
    const LockOwner to = ++next_owner_;
    CHECK(table_.transfer(from, to, "job") == possible);
    if (possible) {
      h->owner = to;
      h->mortal = false;
    }
  }

  void user_lock() {
    const std::string names[] = {"alice", "bob", "carol"};
    const std::string& user = names[pick(3)];
    if (pick(2) == 0) {
      absorb(table_.lock({user, "then", ""}, now_).second, [&] { lock_ = lock_.value_or(user); });
    } else {
      const bool force = pick(3) == 0;
      absorb(table_.unlock(user, "", force, now_).second, [&] {
        if (lock_ == user || force) lock_.reset();
      });
    }
  }

  void tick() {
    absorb(table_.tick(now_), [] {});
    for (const Mine& h : holders_) CHECK((!h.mortal || h.ending || now_ < h.active + kTtl));
    for (const Mine& w : line_) {
      CHECK(now_ < w.active + kTtl);
      CHECK((!w.deadline || now_ < *w.deadline));
    }
  }

  // ---- what must hold

  // `change` is what the call did to the model before anything was granted by it.
  template <class F>
  void absorb(const LockEvents& events, F change) {
    change();
    box_left_ = false;
    for (const LockEvent& event : events) {
      std::visit([&](const auto& what) { heard(event.owner, what); }, event.what);
    }
    check();
  }

  void heard(LockOwner owner, const Granted& granted) {
    Mine* w = waiter(owner);
    REQUIRE(w != nullptr);
    const bool forced = forcing_ && asking_->owner == owner;
    CHECK(granted.bypassed.empty() == eligible(*w));
    if (!forced) {
      CHECK(eligible(*w));  // one holder per sandbox, no slot too many, no other's user lock
      for (const Mine& earlier : line_) {
        if (earlier.owner == owner) break;
        CHECK_FALSE(eligible(earlier));  // first come, first served among those who can be
      }
    }
    const auto dot = granted.fence.find('.');
    const std::uint64_t counter = std::stoull(granted.fence.substr(dot + 1));
    CHECK(counter > last_fence_);
    last_fence_ = counter;
    CHECK(granted.queued == !(asking_ && asking_->owner == owner));
    holders_.push_back(*w);
    std::erase_if(line_, [&](const Mine& m) { return m.owner == owner; });
    ++ended_;
  }
  void heard(LockOwner owner, const Queued& queued) {
    Mine* w = waiter(owner);
    REQUIRE(w != nullptr);
    w->told = queued.position;
    CHECK_FALSE(queued.holders.empty());
  }
  void heard(LockOwner owner, const Refused& refused) {
    Mine* w = waiter(owner);
    REQUIRE(w != nullptr);
    // Those whose time is over leave together: one of them may have stood in the others' way.
    CHECK((box_left_ || !eligible(*w)));
    box_left_ |= w->sandbox.empty();
    CHECK_FALSE(refused.holders.empty());
    const bool at_once = asking_ && asking_->owner == owner;
    if (at_once) {
      CHECK(refused.why == (refused.why == "queue_full"  ? "queue_full"
                            : lock_ && *lock_ != w->user ? "locked"
                                                         : "busy"));
      if (refused.why == "queue_full") CHECK(line_.size() - 1 == kMaxLine);
    } else {
      CHECK(refused.why == "expired");
      CHECK((now_ >= w->active + kTtl || (w->deadline && now_ >= *w->deadline)));
    }
    std::erase_if(line_, [&](const Mine& m) { return m.owner == owner; });
    ++ended_;
  }
  void heard(LockOwner owner, const Lapsed&) {
    Mine* h = holder(owner);
    REQUIRE(h != nullptr);
    CHECK(h->mortal);
    CHECK_FALSE(h->ending);
    CHECK(now_ >= h->active + kTtl);
    h->ending = true;
  }
  void heard(LockOwner owner, const Bypassed&) {
    CHECK(forcing_);
    CHECK(holder(owner) != nullptr);
  }

  void check() {
    CHECK(line_.size() <= kMaxLine);
    std::optional<LockTable::Time> next;
    const auto consider = [&](LockTable::Time at) { next = next ? std::min(*next, at) : at; };
    for (const Mine& w : line_) {
      CHECK_FALSE(eligible(w));  // nobody is forgotten
      CHECK(table_.waits(w.owner));
      CHECK(w.told == place(w));  // everybody knows where it stands
      consider(w.active + kTtl);
      if (w.deadline) consider(*w.deadline);
    }
    for (const Mine& h : holders_) {
      CHECK(table_.fence(h.owner).has_value() == !h.ending);
      if (h.mortal && !h.ending) consider(h.active + kTtl);
    }
    CHECK(table_.next_deadline() == next);
    CHECK(table_.all_holders(now_).size() == holders_.size());
    CHECK(table_.user_lock().has_value() == lock_.has_value());
  }

  std::mt19937_64 random_;
  std::size_t slots_;
  LockTable table_;
  LockTable::Time now_{1000s};
  LockOwner next_owner_ = 0;
  std::vector<Mine> holders_;
  std::vector<Mine> line_;
  std::optional<std::string> lock_;
  std::optional<Mine> asking_;
  bool forcing_ = false;
  bool box_left_ = false;  // in this batch of events somebody gave up waiting for the whole box
  std::uint64_t last_fence_ = 0;
  std::size_t asked_ = 0;
  std::size_t ended_ = 0;
};

}  // namespace

TEST_CASE("whatever happens, the lock table keeps its promises") {
  const std::uint64_t first = std::random_device{}();
  for (std::uint64_t seed = first; seed < first + 1500; ++seed) {
    const std::size_t slots = seed % 4;
    CAPTURE(seed, slots);
    Model model(seed, slots);
    for (int step = 0; step < 60; ++step) model.step();
    model.drain();
  }
}
