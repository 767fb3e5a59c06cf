#include "agent/lock_table.h"

#include "tests/support/catch.h"

using namespace agent;
using namespace std::chrono_literals;
using namespace protocol::wire;
using Strings = std::vector<std::string>;

namespace {

std::string people(const std::vector<Holder>& holders) {
  std::string out;
  for (const Holder& h : holders) {
    out += " " + h.user + ":" + h.verb +
           (h.held_seconds > 0 ? "(" + std::to_string(h.held_seconds) + ")" : "");
  }
  return out;
}

struct Sentence {
  std::string operator()(const Granted& g) const {
    return "granted " + g.fence + (g.queued ? " after waiting" : "") +
           (g.bypassed.empty() ? "" : " over" + people(g.bypassed)) + (g.shared ? " beside" : "");
  }
  std::string operator()(const Queued& q) const {
    return "queued " + std::to_string(q.position) + " behind" + people(q.holders);
  }
  std::string operator()(const Refused& r) const {
    return "refused " + r.why + " behind" + people(r.holders);
  }
  std::string operator()(const Lapsed&) const { return "lapsed"; }
  std::string operator()(const Bypassed& b) const { return "bypassed by" + people({b.by}); }
};

// "OWNER WHAT", oldest first.
Strings sentences(const LockEvents& events) {
  Strings out;
  for (const auto& event : events) {
    out.push_back(std::to_string(event.owner) + " " + std::visit(Sentence{}, event.what));
  }
  return out;
}

constexpr auto kEver = std::optional<std::chrono::seconds>();

LockRequest ask(LockOwner owner, std::string sandbox,
                std::optional<std::chrono::seconds> wait = kEver, std::string user = "") {
  if (user.empty()) user = "u" + std::to_string(owner);
  return {.owner = owner,
          .sandbox = std::move(sandbox),
          .user = std::move(user),
          .verb = "exec",
          .command = "make",
          .wait = wait};
}

LockRequest forced(LockRequest request) {
  request.force = true;
  return request;
}

// A table with a clock that the test turns.
struct World {
  explicit World(std::size_t slots = 0, std::size_t max_queue = 8)
      : table({.box = "rig", .epoch = 7, .slots = slots, .ttl = 1800s, .max_queue = max_queue}) {}

  Strings request(LockRequest r) { return sentences(table.request(std::move(r), now)); }
  Strings release(LockOwner owner) { return sentences(table.release(owner, now)); }
  Strings gone(LockOwner owner) { return sentences(table.gone(owner, now)); }
  Strings reaped(LockOwner owner) { return sentences(table.reaped(owner, now)); }
  Strings tick() { return sentences(table.tick(now)); }
  Strings after(std::chrono::seconds time) {
    now += time;
    return tick();
  }

  LockTable table;
  LockTable::Time now{1'000'000s};
};

const Strings kNothing;

}  // namespace

// ---- one sandbox

TEST_CASE("a free sandbox is granted at once, with the limit of silence") {
  World w;
  const auto events = w.table.request(ask(1, "s"), w.now);
  REQUIRE(events.size() == 1);
  const auto& granted = std::get<Granted>(events[0].what);
  CHECK(granted.fence == "7.1");
  CHECK(granted.ttl_seconds == 1800);
  CHECK_FALSE(granted.queued);
  CHECK(w.table.fence(1) == Fence{7, 1});
}

TEST_CASE("a held sandbox is waited for, in the order of arrival") {
  World w;
  w.request(ask(1, "s"));
  CHECK(w.request(ask(2, "s")) == Strings{"2 queued 1 behind u1:exec"});
  CHECK(w.request(ask(3, "s")) == Strings{"3 queued 2 behind u1:exec"});
  CHECK(w.request(ask(4, "s")) == Strings{"4 queued 3 behind u1:exec"});
  CHECK(w.release(1) == Strings{"2 granted 7.2 after waiting", "3 queued 1 behind u2:exec",
                                "4 queued 2 behind u2:exec"});
  CHECK(w.release(2) == Strings{"3 granted 7.3 after waiting", "4 queued 1 behind u3:exec"});
  CHECK(w.release(3) == Strings{"4 granted 7.4 after waiting"});
  CHECK(w.release(4) == kNothing);
  CHECK(w.table.idle());
}

TEST_CASE("who waits is told who holds it, what it runs and for how long") {
  World w;
  w.request(ask(1, "s"));
  w.now += 65s;
  const auto events = w.table.request(ask(2, "s"), w.now);
  const auto& queued = std::get<Queued>(events.at(0).what);
  REQUIRE(queued.holders.size() == 1);
  CHECK(queued.holders[0].user == "u1");
  CHECK(queued.holders[0].verb == "exec");
  CHECK(queued.holders[0].command == "make");
  CHECK(queued.holders[0].held_seconds == 65);
}

TEST_CASE("the same user is refused like anybody else") {
  World w;
  w.request(ask(1, "s", 0s, "alice"));
  CHECK(w.request(ask(2, "s", 0s, "alice")) == Strings{"2 refused busy behind alice:exec"});
}

TEST_CASE(
    "without a wait budget a busy sandbox refuses at once, and nothing is left of the request") {
  World w;
  w.request(ask(1, "s"));
  w.now += 10s;
  const auto events = w.table.request(ask(2, "s", 0s), w.now);
  REQUIRE(events.size() == 1);
  const auto& refused = std::get<Refused>(events[0].what);
  CHECK(refused.why == "busy");
  CHECK(refused.box == "rig");
  CHECK(refused.holders.at(0).held_seconds == 10);
  CHECK(refused.since.empty());
  CHECK_FALSE(w.table.waits(2));
  CHECK(w.release(1) == kNothing);
  CHECK(w.table.idle());
}

TEST_CASE("a negative wait budget in a request refuses like none") {
  World w;
  w.request(ask(1, "s"));
  CHECK(w.request(ask(2, "s", -5s)) == Strings{"2 refused busy behind u1:exec"});
}

TEST_CASE("the wait budget on the wire: below zero is without limit, and so is an absurd one") {
  CHECK(wait_budget(-1) == std::nullopt);
  CHECK(wait_budget(INT64_MIN) == std::nullopt);
  CHECK(wait_budget(INT64_MAX) == std::nullopt);
  CHECK(wait_budget(0) == 0s);
  CHECK(wait_budget(1800) == 1800s);
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s", std::chrono::seconds::max()));
  CHECK(w.table.next_deadline() == w.now + 1800s);  // of silence
}

TEST_CASE("a wait ends when its budget does, not before, and the line closes up") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s", 30s));
  w.request(ask(3, "s", 60s));
  CHECK(w.table.next_deadline() == w.now + 30s);
  CHECK(w.after(29s) == kNothing);
  CHECK(w.after(1s) ==
        Strings{"2 refused expired behind u1:exec(30)", "3 queued 1 behind u1:exec(30)"});
  CHECK(w.after(30s) == Strings{"3 refused expired behind u1:exec(60)"});
  CHECK(w.release(1) == kNothing);
}

TEST_CASE("a full line refuses, and takes the next one when somebody has left it") {
  World w(0, 2);
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  w.request(ask(3, "s"));
  CHECK(w.request(ask(4, "s")) == Strings{"4 refused queue_full behind u1:exec"});
  CHECK(w.request(ask(5, "free")) == Strings{"5 granted 7.2"});
  w.gone(2);
  CHECK(w.request(ask(6, "s")) == Strings{"6 queued 2 behind u1:exec"});
}

// ---- owners

TEST_CASE("an owner that holds the lock is granted it again under the same fence") {
  World w;
  w.request(ask(1, "s"));
  CHECK(w.request(ask(1, "s")) == Strings{"1 granted 7.1"});
  CHECK(w.request(forced(ask(1, "s"))) == Strings{"1 granted 7.1"});
  CHECK(w.release(1) == kNothing);
  CHECK(w.table.idle());  // once given back, it is free, however often it was asked for
}

TEST_CASE("an owner that waits keeps its place when it asks again") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  w.request(ask(3, "s"));
  CHECK(w.request(ask(2, "s")) == Strings{"2 queued 1 behind u1:exec"});
  CHECK(w.table.waiting("s", w.now).size() == 2);
}

TEST_CASE("release by anybody but the owner has no effect") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  CHECK(w.release(2) == kNothing);
  CHECK(w.release(99) == kNothing);
  CHECK(w.table.waits(2));
  CHECK(w.table.fence(1).has_value());
}

TEST_CASE("a second release does not take the next holder's lock away") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  w.release(1);
  CHECK(w.release(1) == kNothing);
  CHECK(w.table.fence(2) == Fence{7, 2});
}

TEST_CASE("who vanishes while waiting leaves the line") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  w.request(ask(3, "s"));
  CHECK(w.gone(2) == Strings{"3 queued 1 behind u1:exec"});
  CHECK(w.gone(2) == kNothing);
  CHECK(w.release(1) == Strings{"3 granted 7.2 after waiting"});
}

TEST_CASE("who vanishes while holding keeps the others out until all that it ran is reaped") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  CHECK(w.gone(1) == kNothing);
  CHECK_FALSE(w.table.fence(1).has_value());
  CHECK(w.release(1) == kNothing);  // a frame that came late
  CHECK(w.request(ask(3, "s", 0s)) == Strings{"3 refused busy behind u1:exec"});
  CHECK(w.request(ask(1, "s")) == Strings{"1 refused busy behind u1:exec"});
  CHECK(w.reaped(1) == Strings{"2 granted 7.2 after waiting"});
  CHECK(w.reaped(1) == kNothing);
}

TEST_CASE("reaped says nothing about a lock that is not ending") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  CHECK(w.reaped(1) == kNothing);
  CHECK(w.reaped(2) == kNothing);
  CHECK(w.table.fence(1).has_value());
}

// ---- silence

TEST_CASE("a silent holder lapses after the limit and passes its lock on when it is reaped") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  CHECK(w.table.next_deadline() == w.now + 1800s);
  w.now += 1799s;
  w.table.activity(2, w.now);
  CHECK(w.tick() == kNothing);
  CHECK(w.after(1s) == Strings{"1 lapsed"});
  CHECK(w.after(1s) == kNothing);  // told once
  CHECK_FALSE(w.table.fence(1).has_value());
  w.table.activity(1, w.now);  // it wakes up, too late
  CHECK_FALSE(w.table.fence(1).has_value());
  CHECK(w.release(1) == kNothing);
  CHECK(w.reaped(1) == Strings{"2 granted 7.2 after waiting"});
}

TEST_CASE("a holder that gives signs of life is never too old") {
  World w;
  w.request(ask(1, "s"));
  for (int i = 0; i < 100; ++i) {
    w.now += 600s;
    w.table.activity(1, w.now);
    REQUIRE(w.tick() == kNothing);
  }
  CHECK(w.table.fence(1).has_value());
}

TEST_CASE("a sign of life from the past does not undo a later one") {
  World w;
  w.request(ask(1, "s"));
  w.table.activity(1, w.now + 100s);
  w.table.activity(1, w.now);
  CHECK(w.table.next_deadline() == w.now + 1900s);
}

// A laptop that fell asleep in the line would otherwise get the lock and keep it for the whole
// limit.
TEST_CASE("a silent waiter leaves the line after the limit") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  w.now += 900s;
  w.table.activity(1, w.now);
  CHECK(w.after(900s) == Strings{"2 refused expired behind u1:exec(1800)"});
}

TEST_CASE("the silence of the line counts on under the lock") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  w.now += 1000s;
  w.release(1);
  CHECK(w.table.next_deadline() == w.now + 800s);
}

// ---- jobs

TEST_CASE("a lock passes from a session to its job in one step, and silence does not end it") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  CHECK(w.table.transfer(1, 100, "job"));
  CHECK(w.table.fence(100) == Fence{7, 1});
  CHECK_FALSE(w.table.fence(1).has_value());
  CHECK(w.gone(1) == kNothing);
  CHECK(w.release(1) == kNothing);
  w.now += 100000s;
  w.table.activity(2, w.now);
  CHECK(w.tick() == kNothing);
  CHECK(w.release(100) == Strings{"2 granted 7.2 after waiting"});
}

TEST_CASE("a session that gave its lock to a job waits for it like anybody else") {
  World w;
  w.request(ask(1, "s"));
  w.table.transfer(1, 100, "job");
  CHECK(w.request(ask(1, "s")) == Strings{"1 queued 1 behind u1:exec"});
}

TEST_CASE("there is nothing to pass on from who waits, is ending or is unknown") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  CHECK_FALSE(w.table.transfer(2, 100, "job"));
  CHECK_FALSE(w.table.transfer(99, 100, "job"));
  w.gone(1);
  CHECK_FALSE(w.table.transfer(1, 100, "job"));
}

TEST_CASE("a job's lock is shown with the job that has it") {
  World w;
  w.request(ask(1, "s"));
  CHECK(w.table.holders("s", w.now).at(0).job.empty());
  w.table.transfer(1, 100, "job");
  CHECK(w.table.holders("s", w.now).at(0).job == "job");
}

TEST_CASE("a job that outlived the agent holds its lock under a fence of the new epoch") {
  World w(1);
  CHECK(w.table.adopt(ask(100, "s"), w.now - 500s) == Fence{7, 1});
  CHECK(w.request(ask(1, "s", 0s)) == Strings{"1 refused busy behind u100:exec(500)"});
  CHECK(w.after(100000s) == kNothing);
  CHECK(w.release(100) == kNothing);
  CHECK(w.request(ask(1, "s", 0s)) == Strings{"1 granted 7.2"});
}

// ---- slots

TEST_CASE("without slots sandboxes do not wait for each other") {
  World w(0);
  for (LockOwner owner = 1; owner <= 50; ++owner) {
    w.request(ask(owner, "s" + std::to_string(owner)));
    REQUIRE(w.table.fence(owner).has_value());
  }
}

TEST_CASE("one slot makes the whole box exclusive") {
  World w(1);
  w.request(ask(1, "a"));
  CHECK(w.request(ask(2, "b", 0s)) == Strings{"2 refused busy behind u1:exec"});
  CHECK(w.request(ask(3, "b")) == Strings{"3 queued 1 behind u1:exec"});
  CHECK(w.request(ask(4, "a")) == Strings{"4 queued 2 behind u1:exec"});
  CHECK(w.release(1) == Strings{"3 granted 7.2 after waiting", "4 queued 1 behind u3:exec"});
}

TEST_CASE("a slot that the first in line cannot use goes to the next, who is in another sandbox") {
  World w(2);
  w.request(ask(1, "a"));
  CHECK(w.request(ask(2, "a")) == Strings{"2 queued 1 behind u1:exec"});
  CHECK(w.request(ask(3, "b")) == Strings{"3 granted 7.2"});
  CHECK(w.request(ask(4, "c")) == Strings{"4 queued 2 behind u1:exec u3:exec"});
  // The first in line comes first whenever it can run.
  CHECK(w.release(1) ==
        Strings{"2 granted 7.3 after waiting", "4 queued 1 behind u3:exec u2:exec"});
  CHECK(w.release(3) == Strings{"4 granted 7.4 after waiting"});
}

TEST_CASE("one slot that comes free wakes one, two wake two") {
  World w(2);
  w.request(ask(1, "a"));
  w.request(ask(2, "b"));
  w.request(ask(3, "c"));
  w.request(ask(4, "d"));
  CHECK(w.release(1).front() == "3 granted 7.3 after waiting");
  CHECK(w.release(2).front() == "4 granted 7.4 after waiting");
}

TEST_CASE("without slots the place counts only those of the same sandbox") {
  World w(0);
  w.request(ask(1, "a"));
  w.request(ask(2, "b"));
  CHECK(w.request(ask(3, "a")) == Strings{"3 queued 1 behind u1:exec"});
  CHECK(w.request(ask(4, "b")) == Strings{"4 queued 1 behind u2:exec"});
  CHECK(w.request(ask(5, "a")) == Strings{"5 queued 2 behind u1:exec"});
}

// ---- force

TEST_CASE(
    "force adds a second holder with its own fence, and the first is told and keeps its lock") {
  World w;
  w.request(ask(1, "s"));
  CHECK(w.request(forced(ask(2, "s", 0s))) ==
        Strings{"2 granted 7.2 over u1:exec beside", "1 bypassed by u2:exec"});
  CHECK(w.table.fence(1) == Fence{7, 1});
  CHECK(w.table.fence(2) == Fence{7, 2});
  CHECK(w.table.holders("s", w.now).size() == 2);
}

TEST_CASE("a forced run that ends does not free its victim's lock, nor the other way round") {
  for (const LockOwner first : {LockOwner{1}, LockOwner{2}}) {
    World w;
    w.request(ask(1, "s"));
    w.request(forced(ask(2, "s")));
    w.request(ask(3, "s"));
    const auto left = std::to_string(3 - first);
    CHECK(w.release(first) == Strings{"3 queued 1 behind u" + left + ":exec"});
    CHECK(w.release(3 - first) == Strings{"3 granted 7.3 after waiting"});
  }
}

TEST_CASE("force goes past slots, the line and another's user lock, and counts as a holder") {
  World w(1);
  w.request(ask(1, "a"));
  w.request(ask(2, "b"));
  w.table.lock({"carol", "then", "rig is mine"}, w.now);
  CHECK(w.request(forced(ask(3, "b", 0s))) == Strings{"3 granted 7.2 over carol:lock u1:exec",
                                                      "1 bypassed by u3:exec",
                                                      "2 queued 1 behind carol:lock u3:exec"});
  w.table.unlock("carol", "", false, w.now);
  w.release(1);
  CHECK(w.table.waits(2));
  CHECK(w.release(3) == Strings{"2 granted 7.3 after waiting"});
}

TEST_CASE("force where nothing is in the way is an ordinary grant") {
  World w(1);
  CHECK(w.request(forced(ask(1, "s"))) == Strings{"1 granted 7.1"});
}

TEST_CASE("who waits may force its way, and leaves the line by that") {
  World w;
  w.request(ask(1, "s"));
  w.request(ask(2, "s"));
  w.request(ask(3, "s"));
  CHECK(w.request(forced(ask(2, "s"))) == Strings{"2 granted 7.2 over u1:exec beside",
                                                  "1 bypassed by u2:exec",
                                                  "3 queued 1 behind u1:exec u2:exec"});
}

TEST_CASE("force does not stick") {
  World w;
  w.request(ask(1, "s"));
  w.request(forced(ask(2, "s")));
  w.release(2);
  CHECK(w.request(ask(2, "s", 0s)) == Strings{"2 refused busy behind u1:exec"});
}

TEST_CASE("force into another sandbox shares a slot, not a workspace") {
  World w(1);
  w.request(ask(1, "a"));
  CHECK(w.request(forced(ask(2, "b"))) ==
        Strings{"2 granted 7.2 over u1:exec", "1 bypassed by u2:exec"});
}

// ---- the whole box

TEST_CASE("the whole box is granted when nobody holds anything, and then keeps everybody out") {
  World w;
  w.request(ask(1, "a"));
  CHECK(w.request(ask(2, "", 0s)) == Strings{"2 refused busy behind u1:exec"});
  w.release(1);
  CHECK(w.request(ask(2, "", 0s)) == Strings{"2 granted 7.2"});
  CHECK(w.request(ask(3, "b", 0s)) == Strings{"3 refused busy behind u2:exec"});
  CHECK(w.request(ask(4, "", 0s)) == Strings{"4 refused busy behind u2:exec"});
  CHECK(w.table.refuses_plain(5, "u5", w.now)->why == "busy");
  w.request(ask(3, "b"));
  CHECK(w.release(2) == Strings{"3 granted 7.3 after waiting"});
}

TEST_CASE("who waits for the whole box is passed by nobody who came later") {
  World w;
  w.request(ask(1, "a"));
  w.request(ask(2, "b"));
  CHECK(w.request(ask(3, "")) == Strings{"3 queued 1 behind u1:exec u2:exec"});
  CHECK(w.request(ask(4, "c")) == Strings{"4 queued 2 behind u1:exec u2:exec"});
  CHECK(w.release(1) == Strings{"3 queued 1 behind u2:exec", "4 queued 2 behind u2:exec"});
  CHECK(w.release(2) == Strings{"3 granted 7.3 after waiting", "4 queued 1 behind u3:exec"});
  CHECK(w.release(3) == Strings{"4 granted 7.4 after waiting"});
}

TEST_CASE("a user lock that keeps the waiter for the whole box out holds up nobody else by it") {
  World w;
  w.table.lock({"alice", "then", ""}, w.now);
  w.request(ask(1, ""));
  CHECK(w.request(ask(2, "a", 0s, "alice")) ==
        Strings{"2 granted 7.1", "1 queued 1 behind alice:lock alice:exec"});
}

// ---- ending a sandbox

TEST_CASE("a sandbox is not ended under another holder, but under one's own lock it is") {
  World w;
  w.request(ask(1, "s"));
  const auto refused = w.table.refuses_end(2, "s", "u2", "", false, w.now);
  REQUIRE(refused);
  CHECK(refused->why == "busy");
  CHECK(people(refused->holders) == " u1:exec");
  CHECK_FALSE(w.table.refuses_end(1, "s", "u1", "", true, w.now));
  CHECK_FALSE(w.table.refuses_end(2, "other", "u2", "", true, w.now));
  w.request(forced(ask(3, "s")));
  CHECK(w.table.refuses_end(1, "s", "u1", "", true, w.now));
}

TEST_CASE("where the rest of the box counts, a busy or locked box refuses an end like a command") {
  World w(1);
  w.request(ask(1, "a"));
  CHECK(w.table.refuses_end(2, "b", "u2", "", true, w.now)->why == "busy");
  CHECK_FALSE(w.table.refuses_end(2, "b", "u2", "", false, w.now));
  w.release(1);
  CHECK_FALSE(w.table.refuses_end(2, "b", "u2", "", true, w.now));
  w.table.lock({"alice", "then", "demo"}, w.now);
  const auto refused = w.table.refuses_end(2, "b", "u2", "", true, w.now);
  REQUIRE(refused);
  CHECK(refused->why == "locked");
  CHECK(refused->since == "then");
  CHECK(refused->reason == "demo");
  CHECK_FALSE(w.table.refuses_end(3, "b", "alice", "", true, w.now));
}

// ---- user locks

TEST_CASE("a user lock with a scope is that CI job's alone; one without is its user's in any") {
  using enum LockTable::UserLockChange;
  World w;
  w.table.lock({"ci", "then", "", "job 1"}, w.now);
  CHECK(w.table.may_lock("ci", "job 1") == unchanged);
  CHECK(w.table.may_lock("ci", "job 2") == refused);
  CHECK(w.table.may_unlock("ci", "", false) == refused);
  auto other = ask(1, "s", 0s, "ci");
  other.scope = "job 2";
  CHECK(w.request(other) == Strings{"1 refused locked behind ci:lock"});
  auto same = ask(2, "s", 0s, "ci");
  same.scope = "job 1";
  CHECK(w.request(same) == Strings{"2 granted 7.1"});
  CHECK(w.table.holders("s", w.now).at(0).scope == "job 1");
  w.release(2);
  CHECK(w.table.unlock("ci", "job 1", false, w.now).first == done);
  w.table.lock({"ci", "then", ""}, w.now);
  CHECK(w.request(other) == Strings{"1 granted 7.2"});
}

TEST_CASE(
    "a user lock lets its owner pass and refuses the others, naming whose, since when and why") {
  World w;
  const auto [change, events] = w.table.lock({"alice", "2026-01-02T03:04:05Z", "demo"}, w.now);
  CHECK(change == LockTable::UserLockChange::done);
  CHECK(events.empty());
  CHECK(w.request(ask(1, "s", 0s, "alice")) == Strings{"1 granted 7.1"});
  const auto refusal = w.table.request(ask(2, "t", 0s, "bob"), w.now);
  const auto& refused = std::get<Refused>(refusal.at(0).what);
  CHECK(refused.why == "locked");
  CHECK(refused.since == "2026-01-02T03:04:05Z");
  CHECK(refused.reason == "demo");
  REQUIRE(refused.holders.size() == 1);
  CHECK(refused.holders[0].user == "alice");
  CHECK(refused.holders[0].verb == "lock");
}

TEST_CASE("the owner of a user lock still waits for commands, her own too") {
  World w;
  w.table.lock({"alice", "then", ""}, w.now);
  w.request(ask(1, "s", 0s, "alice"));
  CHECK(w.request(ask(2, "s", 0s, "alice")) == Strings{"2 refused busy behind alice:exec"});
}

TEST_CASE("others wait for a user lock as long as their budget says") {
  World w;
  w.table.lock({"alice", "then", ""}, w.now);
  CHECK(w.request(ask(1, "s", 60s, "bob")) == Strings{"1 queued 1 behind alice:lock"});
  CHECK(w.request(ask(2, "t", kEver, "bob")) == Strings{"2 queued 1 behind alice:lock"});
  CHECK(w.after(60s) == Strings{"1 refused expired behind alice:lock(60)"});
  const auto [change, events] = w.table.unlock("alice", "", false, w.now);
  CHECK(change == LockTable::UserLockChange::done);
  CHECK(sentences(events) == Strings{"2 granted 7.1 after waiting"});
}

TEST_CASE(
    "a user lock does not end what runs; it keeps the line back, and lets its owner overtake") {
  World w;
  w.request(ask(1, "s", kEver, "bob"));
  w.request(ask(2, "s", kEver, "bob"));
  CHECK(sentences(w.table.lock({"alice", "then", ""}, w.now).second) ==
        Strings{"2 queued 1 behind alice:lock bob:exec"});
  CHECK(w.table.fence(1).has_value());
  CHECK(w.release(1) == Strings{"2 queued 1 behind alice:lock"});
  CHECK(w.request(ask(3, "s", 0s, "alice")) ==
        Strings{"3 granted 7.2", "2 queued 1 behind alice:lock alice:exec"});
}

TEST_CASE("a user lock is its owner's, unless force takes it away") {
  using enum LockTable::UserLockChange;
  World w;
  UserLock mine{"alice", "then", "demo"};
  mine.at = w.now;
  CHECK(w.table.may_lock("alice", "") == done);
  CHECK(w.table.lock(mine, w.now).first == done);
  CHECK(w.table.lock({"alice", "later", "other"}, w.now).first == unchanged);
  CHECK(w.table.lock({"bob", "later", ""}, w.now).first == refused);
  CHECK(w.table.may_lock("bob", "") == refused);
  CHECK(w.table.user_lock() == mine);
  CHECK(w.table.may_unlock("bob", "", false) == refused);
  CHECK(w.table.unlock("bob", "", false, w.now).first == refused);
  CHECK(w.table.user_lock() == mine);
  CHECK(w.table.may_unlock("bob", "", true) == done);
  CHECK(w.table.unlock("bob", "", true, w.now).first == done);
  CHECK_FALSE(w.table.user_lock().has_value());
  CHECK(w.table.unlock("bob", "", false, w.now).first == unchanged);
  CHECK(w.table.unlock("bob", "", true, w.now).first == unchanged);
}

TEST_CASE("how long a user lock has been held is shown to who waits behind it") {
  World w;
  UserLock lock{"alice", "then", "demo"};
  lock.at = w.now - 30s;
  w.table.lock(lock, w.now);
  w.now += 60s;
  const auto refusal = w.table.request(ask(1, "s", 0s, "bob"), w.now);
  CHECK(std::get<Refused>(refusal.at(0).what).holders.at(0).held_seconds == 90);
  const auto waiting = w.table.request(ask(2, "s", 60s, "bob"), w.now);
  CHECK(std::get<Queued>(waiting.at(0).what).holders.at(0).held_seconds == 90);
  CHECK(w.table.refuses_plain(9, "bob", w.now)->holders.at(0).held_seconds == 90);
  CHECK(w.table.user_lock_holder(w.now)->held_seconds == 90);
}

TEST_CASE("a user lock never expires") {
  World w;
  w.table.lock({"alice", "then", ""}, w.now);
  CHECK_FALSE(w.table.next_deadline().has_value());
  CHECK(w.after(10'000'000s) == kNothing);
  CHECK(w.request(ask(1, "s", 0s)) == Strings{"1 refused locked behind alice:lock(10000000)"});
}

// ---- commands without the lock

TEST_CASE(
    "a plain command runs beside a holder, but not past another's user lock or the last slot") {
  World w(1);
  CHECK_FALSE(w.table.refuses_plain(9, "bob", w.now).has_value());
  w.request(ask(1, "s", kEver, "alice"));
  CHECK_FALSE(w.table.refuses_plain(1, "alice", w.now).has_value());
  REQUIRE(w.table.refuses_plain(9, "bob", w.now).has_value());
  CHECK(w.table.refuses_plain(9, "bob", w.now)->why == "busy");
  CHECK(w.table.refuses_plain(9, "bob", w.now)->box == "rig");
  w.table.lock({"carol", "then", "mine"}, w.now);
  CHECK(w.table.refuses_plain(9, "bob", w.now)->why == "locked");
  CHECK(w.table.refuses_plain(9, "bob", w.now)->since == "then");
  CHECK_FALSE(w.table.refuses_plain(1, "alice", w.now).has_value());  // what holds the lock goes on
  w.gone(1);
  CHECK(w.table.refuses_plain(1, "alice", w.now).has_value());
}

TEST_CASE("without slots a plain command runs beside every holder") {
  World w(0);
  w.request(ask(1, "s"));
  CHECK_FALSE(w.table.refuses_plain(9, "bob", w.now).has_value());
}

// ---- tables

TEST_CASE("holders and waiters of one sandbox are shown apart from the box's others") {
  World w;
  w.request(ask(1, "a"));
  w.request(ask(2, "b"));
  w.request(ask(3, "a"));
  w.now += 5s;
  CHECK(people(w.table.holders("a", w.now)) == " u1:exec(5)");
  CHECK(people(w.table.all_holders(w.now)) == " u1:exec(5) u2:exec(5)");
  CHECK(people(w.table.waiting("a", w.now)) == " u3:exec(5)");
  CHECK(w.table.waiting("b", w.now).empty());
  CHECK_FALSE(w.table.idle());
}
