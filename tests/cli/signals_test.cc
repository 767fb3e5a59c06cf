#include "cli/signals.h"

#include "tests/support/catch.h"

TEST_CASE("a handler of signals keeps what it counts, and the one before comes back") {
  int outer = 0, inner = 0;
  cli::Signals signals([&outer, count = 0](int) mutable { outer = ++count; });
  signals.deliver(2);
  {
    cli::SignalScope scope(signals, [&inner, count = 0](int) mutable { inner = ++count; });
    signals.deliver(2);
    signals.deliver(2);
    signals.deliver(2);
  }
  signals.deliver(2);
  CHECK(inner == 3);
  CHECK(outer == 2);
}
