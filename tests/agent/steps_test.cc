#include "agent/steps.h"

#include <set>

#include "protocol/wire/limits.h"
#include "tests/support/catch.h"

using agent::Step;
using agent::Steps;
using Action = Steps::Action;
using Effect = Steps::Effect;
using namespace protocol::wire;

namespace {

Action sent(Steps& steps, std::uint32_t request, const Message& message) {
  return steps.from_client(request, message).action;
}

Failed failed(Step step) { return {agent::step_name(step), "io", "it broke"}; }

// A session that holds the lock by request 1.
Steps holding() {
  Steps steps;
  REQUIRE(sent(steps, 1, LockRequested{}) == Action::ask);
  steps.granted();
  return steps;
}

void send_chain(Steps& steps, std::uint32_t request, Action expected) {
  CHECK(sent(steps, request, SyncStart{}) == expected);
  CHECK(steps.from_client(request, FrameKind::pack).action ==
        (expected == Action::forward ? Action::forward : Action::drop));
  CHECK(sent(steps, request, SyncEnd{}) ==
        (expected == Action::forward ? Action::forward : Action::drop));
  CHECK(sent(steps, request, Exec{}) == expected);
  CHECK(sent(steps, request, LockReleased{}) == expected);
}

}  // namespace

TEST_CASE("a chain sent ahead is forwarded, and its result gives the lock back") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  CHECK(steps.busy());
  CHECK(steps.from_supervisor(1, Applied{}) == Effect::none);
  CHECK(steps.from_supervisor(1, Started{}) == Effect::none);
  CHECK(steps.from_supervisor(1, Exited{}) == Effect::none);
  CHECK(steps.busy());
  CHECK(steps.from_supervisor(1, Result{}) == Effect::release);
  CHECK(!steps.busy());
  CHECK(steps.holds());
  steps.freed();
  CHECK(!steps.holds());
}

TEST_CASE("nothing changed gives the lock back like a result") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  steps.from_supervisor(1, Applied{});
  steps.from_supervisor(1, Exited{});
  CHECK(steps.from_supervisor(1, Unchanged{}) == Effect::release);
}

TEST_CASE("credit for the result's pack still passes after the lock went back") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  steps.from_supervisor(1, Applied{});
  steps.from_supervisor(1, Exited{});
  steps.from_supervisor(1, Result{});
  steps.freed();
  auto verdict = steps.from_client(1, FrameKind::credit);
  CHECK(verdict.action == Action::forward);
  CHECK(verdict.grant == 1);
}

TEST_CASE(
    "what was sent ahead of a place in line is skipped, and the steps come again under a new "
    "number") {
  Steps steps;
  REQUIRE(sent(steps, 1, LockRequested{}) == Action::ask);
  steps.queued();
  CHECK(steps.waits());
  send_chain(steps, 1, Action::skip);
  steps.granted();
  CHECK(sent(steps, 1, Exec{}) == Action::skip);
  send_chain(steps, 2, Action::forward);
}

TEST_CASE("a refused request does nothing, and another may be made") {
  Steps steps;
  REQUIRE(sent(steps, 1, LockRequested{}) == Action::ask);
  steps.refused();
  send_chain(steps, 1, Action::skip);
  CHECK(sent(steps, 1, LockRequested{}) == Action::skip);
  CHECK(sent(steps, 2, LockRequested{}) == Action::ask);
}

TEST_CASE("a request that waited and then expired is refused") {
  Steps steps;
  REQUIRE(sent(steps, 1, LockRequested{}) == Action::ask);
  steps.queued();
  steps.refused();
  CHECK(!steps.waits());
  send_chain(steps, 1, Action::skip);
}

TEST_CASE("without the lock nothing that changes the sandbox passes") {
  for (Message message : {Message(SyncStart{}), Message(Exec{})}) {
    Steps steps;
    CHECK(sent(steps, 1, message) == Action::refuse);
    CHECK(sent(steps, 1, Exec{}) == Action::skip);
    CHECK(sent(steps, 1, LockReleased{}) == Action::skip);
    CHECK(steps.from_client(1, FrameKind::pack).action == Action::drop);
    CHECK(steps.from_client(1, FrameKind::input).action == Action::drop);
    CHECK(sent(steps, 1, Signal{}) == Action::drop);
    CHECK(sent(steps, 1, SyncEnd{}) == Action::drop);
  }
}

TEST_CASE("steps after lock_released need a new lock") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  CHECK(sent(steps, 2, Exec{}) == Action::refuse);
  CHECK(sent(steps, 3, SyncStart{}) == Action::refuse);
  CHECK(sent(steps, 4, LockRequested{}) == Action::refuse);
}

TEST_CASE("a stale answer keeps the lock, and the result that follows it is not the release") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  CHECK(steps.from_supervisor(1, Stale{}) == Effect::none);
  CHECK(steps.from_supervisor(1, Result{}) == Effect::none);
  CHECK(steps.from_supervisor(1, Skipped{}) == Effect::none);
  CHECK(sent(steps, 2, Exec{}) == Action::refuse);  // the release is not yet answered
  CHECK(steps.from_supervisor(1, Skipped{}) == Effect::none);
  CHECK(steps.holds());
  CHECK(!steps.busy());
  send_chain(steps, 3, Action::forward);
  steps.from_supervisor(3, Applied{});
  steps.from_supervisor(3, Exited{});
  CHECK(steps.from_supervisor(3, Result{}) == Effect::release);
}

TEST_CASE("a missing base keeps the lock; the tail of its sync still reaches the supervisor") {
  Steps steps = holding();
  CHECK(sent(steps, 1, SyncStart{}) == Action::forward);
  CHECK(steps.from_supervisor(1, Missing{}) == Effect::none);
  CHECK(steps.from_client(1, FrameKind::pack).action == Action::forward);
  CHECK(sent(steps, 1, SyncEnd{}) == Action::forward);
  CHECK(sent(steps, 1, Exec{}) == Action::skip);
  CHECK(sent(steps, 1, LockReleased{}) == Action::skip);
  CHECK(steps.holds());
  send_chain(steps, 2, Action::forward);
}

TEST_CASE("a failed step gives the lock back, whichever it was") {
  for (std::size_t fails = 0; fails < 3; ++fails) {
    Steps steps = holding();
    send_chain(steps, 1, Action::forward);
    if (fails > 0) {
      steps.from_supervisor(1, Applied{});
    }
    if (fails > 1) {
      steps.from_supervisor(1, Exited{});
    }
    auto step = std::vector{Step::sync, Step::exec, Step::release}[fails];
    CHECK(steps.from_supervisor(1, failed(step)) == Effect::failed);
    steps.freed();
    for (std::size_t skipped = fails + 1; skipped < 3; ++skipped) {
      CHECK(steps.from_supervisor(1, Skipped{}) == Effect::none);
    }
    CHECK(steps.outstanding(1).empty());
    CHECK(sent(steps, 1, Exec{}) == Action::skip);
  }
}

TEST_CASE("a signal that failed is no step that failed: its command runs on under the lock") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  steps.from_supervisor(1, Applied{});
  CHECK(steps.from_supervisor(1, Failed{"signal", "bad_input", "no such signal"}) == Effect::none);
  CHECK(steps.busy());
  CHECK(steps.from_supervisor(1, Exited{}) == Effect::none);
  CHECK(steps.from_supervisor(1, Unchanged{}) == Effect::release);
}

TEST_CASE("a stale answer whose result cannot be had is a failed sync") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  steps.from_supervisor(1, Stale{});
  CHECK(steps.from_supervisor(1, failed(Step::sync)) == Effect::failed);
}

TEST_CASE("late answers of an earlier lock do not touch the present one") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  CHECK(steps.from_supervisor(1, failed(Step::sync)) == Effect::failed);
  steps.freed();
  REQUIRE(sent(steps, 2, LockRequested{}) == Action::ask);
  steps.granted();
  send_chain(steps, 2, Action::forward);
  CHECK(steps.from_supervisor(1, failed(Step::exec)) == Effect::none);
  CHECK(steps.from_supervisor(1, Unchanged{}) == Effect::none);
  CHECK(sent(steps, 3, Exec{}) == Action::refuse);
  CHECK(steps.grant() == 2);
}

TEST_CASE("another request's steps under a failed lock are known") {
  Steps steps = holding();
  CHECK(sent(steps, 1, SyncStart{}) == Action::forward);
  CHECK(sent(steps, 2, Exec{}) == Action::forward);
  CHECK(steps.from_supervisor(1, failed(Step::sync)) == Effect::failed);
  CHECK(steps.busy_besides(1));
}

TEST_CASE("nothing begins under a lock that is being given back") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  steps.giving_back();
  CHECK(sent(steps, 2, Exec{}) == Action::refuse);
  CHECK(sent(steps, 3, SyncStart{}) == Action::refuse);
  CHECK(sent(steps, 4, LockReleased{}) == Action::refuse);
  CHECK(sent(steps, 5, LockRequested{}) == Action::refuse);
  CHECK(steps.holds());
  steps.freed();
  REQUIRE(sent(steps, 6, LockRequested{}) == Action::ask);
  steps.granted();
  send_chain(steps, 6, Action::forward);
}

TEST_CASE("what was answered for a supervisor that is gone hears no more of its client") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  steps.forget_outstanding(1);
  CHECK(sent(steps, 1, Signal{}) == Action::drop);
  CHECK(sent(steps, 1, Window{}) == Action::drop);
  CHECK(steps.from_client(1, FrameKind::input).action == Action::drop);
  CHECK(steps.from_client(1, FrameKind::credit).action == Action::drop);
}

TEST_CASE("a lock under which nothing was done goes back without the supervisor") {
  Steps steps = holding();
  CHECK(sent(steps, 1, LockReleased{}) == Action::give_back);
}

TEST_CASE("lock_released without a lock, or in line, gives back what there is") {
  Steps steps;
  CHECK(sent(steps, 1, LockReleased{}) == Action::give_back);
  REQUIRE(sent(steps, 2, LockRequested{}) == Action::ask);
  steps.queued();
  CHECK(sent(steps, 3, LockReleased{}) == Action::give_back);
}

TEST_CASE("one lock is asked for at a time") {
  Steps steps = holding();
  CHECK(sent(steps, 2, LockRequested{}) == Action::refuse);
  CHECK(sent(steps, 2, Exec{}) == Action::skip);
  Steps waiting;
  REQUIRE(sent(waiting, 1, LockRequested{}) == Action::ask);
  waiting.queued();
  CHECK(sent(waiting, 2, LockRequested{}) == Action::refuse);
}

TEST_CASE("a pull without the lock goes by a connection without a fence") {
  Steps steps;
  auto verdict = steps.from_client(1, Message(Pull{}));
  CHECK(verdict.action == Action::forward);
  CHECK(verdict.grant == 0);
  CHECK(steps.from_client(1, FrameKind::credit).grant == 0);
  CHECK(!steps.busy());
  CHECK(steps.outstanding(0).size() == 1);
  CHECK(steps.from_supervisor(1, Result{}) == Effect::none);
  CHECK(steps.outstanding(0).empty());
  CHECK(sent(steps, 1, Exec{}) == Action::refuse);
}

TEST_CASE("a pull under the lock goes with the lock's fence, and its failure gives the lock back") {
  Steps steps = holding();
  auto verdict = steps.from_client(1, Message(Pull{}));
  CHECK(verdict.action == Action::forward);
  CHECK(verdict.grant == 1);
  CHECK(steps.from_supervisor(1, failed(Step::pull)) == Effect::failed);
}

TEST_CASE("a failed pull without the lock touches no lock") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  CHECK(sent(steps, 2, Pull{}) == Action::forward);
  CHECK(steps.from_supervisor(2, failed(Step::pull)) == Effect::none);
  CHECK(steps.busy());
}

TEST_CASE("a request stays under the lock that it began with") {
  Steps steps = holding();
  CHECK(sent(steps, 1, SyncStart{}) == Action::forward);
  steps.from_supervisor(1, Applied{});
  steps.freed();
  REQUIRE(sent(steps, 2, LockRequested{}) == Action::ask);
  steps.granted();
  CHECK(sent(steps, 1, Exec{}) == Action::refuse);
}

TEST_CASE("what a lost supervisor still owed is known, and is then forgotten") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  steps.from_supervisor(1, Applied{});
  auto owed = steps.outstanding(1);
  REQUIRE(owed.size() == 2);
  CHECK(owed[0].step == Step::exec);
  CHECK(owed[1].step == Step::release);
  steps.forget_outstanding(1);
  CHECK(steps.outstanding(1).empty());
  CHECK(!steps.busy());
  CHECK(sent(steps, 1, Exec{}) == Action::skip);
}

TEST_CASE("a command that ran owes its result until one is taken or the lock is gone") {
  Steps steps = holding();
  send_chain(steps, 1, Action::forward);
  CHECK_FALSE(steps.owes_result());
  steps.from_supervisor(1, Applied{});
  steps.from_supervisor(1, Started{});
  CHECK(steps.owes_result());
  steps.from_supervisor(1, Exited{});
  CHECK(steps.owes_result());
  CHECK(steps.from_supervisor(1, Unchanged{}) == Effect::release);
  steps.freed();
  CHECK_FALSE(steps.owes_result());
}

TEST_CASE("a job that is to be detached takes the lock with it, and nothing comes after it") {
  Steps steps = holding();
  Exec exec;
  exec.detach = true;
  CHECK(sent(steps, 1, SyncStart{}) == Action::forward);
  CHECK(sent(steps, 1, SyncEnd{}) == Action::forward);
  CHECK(sent(steps, 1, exec) == Action::forward);
  CHECK(sent(steps, 1, Exec{}) == Action::skip);
  CHECK(sent(steps, 1, LockReleased{}) == Action::skip);
  CHECK(sent(steps, 2, Exec{}) == Action::refuse);
  CHECK(steps.from_supervisor(1, Applied{}) == Effect::none);
  CHECK(steps.from_supervisor(1, Started{}) == Effect::detach);
  CHECK(steps.busy());
  steps.detached(1);
  CHECK_FALSE(steps.holds());
  CHECK_FALSE(steps.busy());
  CHECK(steps.outstanding(1).empty());
  REQUIRE(sent(steps, 3, LockRequested{}) == Action::ask);
  steps.granted();
  CHECK(sent(steps, 3, Exec{}) == Action::forward);
}

TEST_CASE("a job that could not be started to be detached gives the lock back") {
  Steps steps = holding();
  Exec exec;
  exec.detach = true;
  CHECK(sent(steps, 1, exec) == Action::forward);
  CHECK(steps.from_supervisor(1, failed(Step::exec)) == Effect::failed);
}

TEST_CASE("under a lock that is shared a sync is skipped, and what follows it is not") {
  Steps steps;
  REQUIRE(sent(steps, 1, LockRequested{}) == Action::ask);
  steps.granted(true);
  CHECK(sent(steps, 1, SyncStart{}) == Action::skip);
  CHECK(steps.from_client(1, FrameKind::pack).action == Action::drop);
  CHECK(sent(steps, 1, SyncEnd{}) == Action::drop);
  CHECK(sent(steps, 1, Exec{}) == Action::forward);
  CHECK(sent(steps, 1, LockReleased{}) == Action::forward);
  steps.from_supervisor(1, Exited{});
  CHECK(steps.from_supervisor(1, Unchanged{}) == Effect::release);
  steps.freed();
  // The next lock is another.
  REQUIRE(sent(steps, 2, LockRequested{}) == Action::ask);
  steps.granted();
  CHECK(sent(steps, 2, SyncStart{}) == Action::forward);
}

TEST_CASE("a message that is no step is refused by name") {
  Steps steps;
  auto verdict = steps.from_client(1, Message(Applied{}));
  CHECK(verdict.action == Action::refuse);
  CHECK(verdict.why.find("applied") != std::string::npos);
}

TEST_CASE("a session's requests and the steps that it sends ahead are bounded") {
  Steps steps = holding();
  std::size_t forwarded = 0;
  for (std::uint32_t n = 1; n < 200; ++n) {
    forwarded += sent(steps, n, Exec{}) == Action::forward ? 1 : 0;
  }
  CHECK(forwarded == kMaxStepsAhead);
  Steps many;
  for (std::uint32_t n = 1; n <= kMaxRequests; ++n) {
    CHECK(many.from_client(n, Message(Exec{})).code == Errc::refused);
  }
  CHECK(many.from_client(100000, Message(Exec{})).code == Errc::too_large);
}

// Every order of supervisor's answers to a full chain: the lock goes back exactly once, or is kept
// and nothing is owed.
TEST_CASE(
    "whatever the supervisor answers, a lock goes back at most once and only for its own request") {
  const std::vector<Message> answers{Applied{},
                                     Missing{},
                                     Stale{},
                                     Exited{},
                                     Result{},
                                     Unchanged{},
                                     Skipped{},
                                     failed(Step::sync),
                                     failed(Step::exec),
                                     failed(Step::release)};
  std::size_t count = answers.size();
  for (std::size_t code = 0; code < count * count * count * count; ++code) {
    Steps steps = holding();
    send_chain(steps, 1, Action::forward);
    int given_back = 0;
    for (std::size_t rest = code, i = 0; i < 4; ++i, rest /= count) {
      Effect effect = steps.from_supervisor(1, answers[rest % count]);
      CHECK(steps.from_supervisor(9, answers[rest % count]) == Effect::none);
      if (effect != Effect::none) {
        ++given_back;
        steps.freed();
      }
    }
    CHECK(given_back <= 1);
  }
}
