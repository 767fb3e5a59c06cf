#include "agent/stock_lock.h"

#include "tests/support/catch.h"

using namespace protocol::wire;

namespace {

Refused refused(const std::string& why) {
  Refused refused;
  refused.why = why;
  Holder holder;
  holder.user = "ann";
  holder.command = "make";
  holder.held_seconds = 300;
  refused.holders.push_back(holder);
  return refused;
}

}  // namespace

TEST_CASE("a refusal says who is in the way, and what to do next") {
  CHECK(agent::refusal_text(refused("busy")) ==
        "sandbox: refused: busy, held by ann (make) for 5 min; try again when that has ended");
  CHECK(agent::refusal_text(refused("expired")) ==
        "sandbox: refused: waited too long, held by ann (make) for 5 min; "
        "try again when that has ended");
  CHECK(agent::refusal_text(refused("queue_full")) ==
        "sandbox: refused: too many wait for this box; try again later");
  Refused locked = refused("locked");
  locked.since = "2026-01-31T23:59:59Z";
  locked.reason = "demo";
  CHECK(agent::refusal_text(locked) ==
        "sandbox: refused: this box is locked by ann since 2026-01-31T23:59:59Z: demo; try again "
        "when it is unlocked, or take the lock away by `sandbox boxes unlock --force`");
}
