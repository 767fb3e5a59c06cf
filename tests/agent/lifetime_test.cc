#include "agent/lifetime.h"

#include <memory>
#include <optional>
#include <stdexcept>

#include "agent/deadline.h"
#include "protocol/os/wakeup.h"
#include "tests/support/catch.h"
#include "tests/support/loop.h"

namespace os = protocol::os;
using agent::Lifetime;

TEST_CASE("who enlisted is told once that the agent stops, even when one leaves while it is told") {
  test::Loop loop;
  Lifetime lifetime(loop.executor());
  int told = 0;
  std::optional<Lifetime::Enlisted> second;
  Lifetime::Enlisted first(
      lifetime,
      [&] {
        ++told;
        second.reset();
      },
      false);
  second.emplace(
      lifetime, [&] { ++told; }, true);
  CHECK(lifetime.counted() == 1);
  lifetime.stop();
  lifetime.stop();
  CHECK(told == 2);
  CHECK(lifetime.stopping());
  CHECK(lifetime.counted() == 0);
}

TEST_CASE("the wait for those who count ends when the last has left, or at the deadline") {
  test::Loop loop;
  Lifetime lifetime(loop.executor());
  auto counted = std::make_unique<Lifetime::Enlisted>(
      lifetime, [] {}, true);
  Lifetime::Enlisted other(
      lifetime, [] {}, false);
  auto now = std::chrono::steady_clock::now();
  CHECK(!loop.run(lifetime.empty_by(now)));
  loop.start(
      [](std::unique_ptr<Lifetime::Enlisted> leaving, os::executor ex) -> os::awaitable<void> {
        co_await os::pause(ex, std::chrono::milliseconds(5));
        leaving.reset();
      }(std::move(counted), loop.executor()));
  CHECK(loop.run(lifetime.empty_by(now + std::chrono::hours(1))));
}

TEST_CASE("work that ends in time is not cut; work that does not is, and is awaited") {
  test::Loop loop;
  os::Wakeup wakeup(loop.executor());
  int cuts = 0;
  bool ended = false;
  std::function<void()> cut = [&] {
    ++cuts;
    wakeup.notify();
  };
  auto at_once = []() -> os::awaitable<void> { co_return; };
  CHECK(loop.run(agent::within(loop.executor(), std::chrono::hours(1), at_once(), cut)));
  CHECK(cuts == 0);
  auto waits = [](os::Wakeup& w, bool& done) -> os::awaitable<void> {
    co_await w.wait();
    done = true;
  };
  CHECK(!loop.run(
      agent::within(loop.executor(), std::chrono::milliseconds(1), waits(wakeup, ended), cut)));
  CHECK(cuts == 1);
  CHECK(ended);
}

TEST_CASE("work that throws ends the wait, too") {
  test::Loop loop;
  bool heard = false;
  os::set_escape_handler([&](const std::string&, std::exception_ptr) { heard = true; });
  auto throws = []() -> os::awaitable<void> {
    throw std::runtime_error("no");
    co_return;
  };
  std::function<void()> cut = [] {};
  CHECK(loop.run(agent::within(loop.executor(), std::chrono::hours(1), throws(), cut)));
  loop.settle();
  CHECK(heard);
  os::set_escape_handler({});
}
