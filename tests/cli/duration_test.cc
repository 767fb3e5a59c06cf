#include "cli/duration.h"

#include "tests/support/catch.h"

using cli::parse_duration;
using cli::parse_wait;
using std::chrono::seconds;

TEST_CASE("durations are read as people write them") {
  CHECK(parse_duration("0") == seconds(0));
  CHECK(parse_duration("90") == seconds(90));
  CHECK(parse_duration("90s") == seconds(90));
  CHECK(parse_duration("5m") == seconds(300));
  CHECK(parse_duration("1h30m") == seconds(5400));
  CHECK(parse_duration("1d2h3m4s") == seconds(93784));
  CHECK(parse_duration("2w") == seconds(14 * 86400));
}

TEST_CASE("what is no duration is refused") {
  for (const char* text : {"", "s", "-1", "1x", "1h30", "30m1h", "1m1m", "1.5h", " 1", "1 ",
                           "99999999999999999999", "9999d"}) {
    INFO(text);
    CHECK_FALSE(parse_duration(text));
  }
}

TEST_CASE("waiting without limit is inf, and 0 is not at all") {
  CHECK(parse_wait("inf") == -1);
  CHECK(parse_wait("0") == 0);
  CHECK(parse_wait("2m") == 120);
  CHECK_FALSE(parse_wait("forever"));
}

TEST_CASE("durations are shown short") {
  CHECK(cli::show_duration(seconds(0)) == "0s");
  CHECK(cli::show_duration(seconds(59)) == "59s");
  CHECK(cli::show_duration(seconds(125)) == "2m 05s");
  CHECK(cli::show_duration(seconds(3 * 3600 + 600)) == "3h 10m");
  CHECK(cli::show_duration(seconds(4 * 86400 + 7200)) == "4d 02h");
  CHECK(cli::show_duration(seconds(-3)) == "0s");
}
