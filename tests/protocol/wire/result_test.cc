#include "protocol/wire/result.h"

#include <set>

#include "tests/support/catch.h"

using namespace protocol::wire;

TEST_CASE("every Errc has a word of its own that leads back to it") {
  std::set<std::string> words;
  for (int i = 0; i <= static_cast<int>(Errc::io); ++i) {
    const auto code = static_cast<Errc>(i);
    CHECK(errc_from_name(name(code)) == code);
    CHECK(words.insert(name(code)).second);
  }
  CHECK(errc_from_name("a word of a later version") == Errc::io);
  CHECK(errc_from_name("") == Errc::io);
}

TEST_CASE("a value that nobody looked at before throws with code and text") {
  const result<int> failed = Failure(Errc::no_space, "/state/agent.db");
  try {
    (void)failed.value();
    FAIL("no exception");
  } catch (const FailureError& error) {
    CHECK(error.failure.code == Errc::no_space);
    CHECK(std::string(error.what()) == "no_space: /state/agent.db");
  }
}
