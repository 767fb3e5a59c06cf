#include "agent/log.h"

#include "tests/support/catch.h"

using agent::log::Limiter;

TEST_CASE("a log line is one line, whatever a peer put into a value") {
  CHECK(agent::log::line("event", {{"a", "b"}, {"n", "1"}}) == "event a=b n=1");
  CHECK(agent::log::line("event", {{"a", "b c"}, {"e", ""}}) == "event a=\"b c\" e=\"\"");
  std::string forged = agent::log::line("event", {{"a", "x\nevent b=1\x1b[2J\xff"}});
  CHECK(forged.find('\n') == std::string::npos);
  CHECK(forged.find('\x1b') == std::string::npos);
  CHECK(agent::log::line("event", {{"a", "say \"x\""}}) == "event a=\"say \\\"x\\\"\"");
  CHECK(agent::log::line("event", {{"a", std::string(100000, 'x')}}).size() < 1000);
}

TEST_CASE("a burst of one event passes, the rest is counted, and the next second tells the count") {
  Limiter limiter;
  Limiter::time_point now{};
  for (int i = 0; i < Limiter::kBurst; ++i) {
    CHECK(limiter.ask("knock", now).pass);
  }
  for (int i = 0; i < 7; ++i) {
    CHECK(!limiter.ask("knock", now).pass);
  }
  CHECK(limiter.ask("other", now).pass);
  now += Limiter::kRefill;
  auto answer = limiter.ask("knock", now);
  CHECK(answer.pass);
  CHECK(answer.suppressed == 7);
  CHECK(!limiter.ask("knock", now).pass);
}

TEST_CASE("the number of buckets is bounded, too") {
  Limiter limiter;
  Limiter::time_point now{};
  std::uint64_t passed = 0;
  for (int i = 0; i < 1000; ++i) {
    passed += limiter.ask("event " + std::to_string(i), now).pass ? 1 : 0;
  }
  CHECK(passed == Limiter::kMaxEvents + Limiter::kBurst);
}
