#include "protocol/sync/three_way.h"

#include <optional>
#include <vector>

#include "tests/support/catch.h"

using namespace protocol::sync;
using Kind = Decision::Kind;

namespace {

using Side = std::optional<Wanted>;
const Side kNone;
Side file(const char* oid) { return Wanted{kModeFile, oid}; }
Side program(const char* oid) { return Wanted{kModeProgram, oid}; }
Side link(const char* oid) { return Wanted{kModeLink, oid}; }

}  // namespace

TEST_CASE("a path that only one side changed follows that side") {
  std::vector<Side> values = {kNone, file("1"), file("2"), program("1"), link("1")};
  for (const Side& base : values) {
    for (const Side& other : values) {
      if (other == base) continue;
      Decision theirs = decide({base, other, base});
      CHECK(theirs.kind == Kind::take);
      CHECK(theirs.to == other);
      CHECK(decide({base, base, other}).kind == Kind::keep);
      CHECK(decide({base, other, other}).kind == Kind::keep);
    }
    CHECK(decide({base, base, base}).kind == Kind::keep);
  }
}

TEST_CASE("contents that both sides changed are merged as text") {
  Decision decision = decide({file("1"), file("2"), file("3")});
  CHECK(decision.kind == Kind::merge_text);
  CHECK(decision.to->mode == kModeFile);
  CHECK(decide({file("1"), program("2"), file("3")}).to->mode == kModeProgram);
  CHECK(decide({program("1"), file("2"), program("3")}).to->mode == kModeFile);
}

TEST_CASE("a mode changed on one side and a content on the other are both kept") {
  Decision theirs_mode = decide({file("1"), program("1"), file("2")});
  CHECK(theirs_mode.kind == Kind::only_mode);
  CHECK(theirs_mode.to == program("2"));
  Decision ours_mode = decide({file("1"), file("2"), program("1")});
  CHECK(ours_mode.kind == Kind::take);
  CHECK(ours_mode.to == program("2"));
}

TEST_CASE("what cannot be merged is a conflict and says why") {
  for (const Sides& sides : std::vector<Sides>{{file("1"), kNone, file("2")},
                                               {file("1"), file("2"), kNone},
                                               {kNone, file("1"), file("2")},
                                               {file("1"), link("2"), file("3")},
                                               {link("1"), link("2"), link("3")},
                                               {link("1"), file("2"), file("3")}}) {
    Decision decision = decide(sides);
    CHECK(decision.kind == Kind::conflict);
    CHECK_FALSE(decision.why.empty());
  }
}
