// Results on the box: which of them an origin has, and which it has not.

#include "tests/integration/sync/two_ends.h"

using namespace sync_test;

TEST_CASE("a merged result takes no other with it that grew from another snapshot") {
  Scratch scratch;
  TwoEnds one(scratch, "one"), two(scratch, "two");
  write_file(one.laptop() / "f", "one\n");
  write_file(two.laptop() / "f", "two\n");
  one.push();
  write_file(one.box() / "made", "by the first command\n");
  auto first = must(one.workspace().take_result(one.origin().id()));
  REQUIRE(first);
  two.push();
  // A command without a sync before it: it ran on what the other had sent.
  one.restart();
  write_file(one.box() / "later", "by the second command\n");
  auto second = must(one.workspace().take_result(one.origin().id()));
  REQUIRE(second);
  CHECK(second->base != first->base);
  one.workspace().merged(one.origin().id(), second->result);
  auto left = one.workspace().unmerged(one.origin().id(), second->result);
  REQUIRE(left);
  CHECK(left->result == first->result);
  one.workspace().merged(one.origin().id(), first->result);
  CHECK_FALSE(one.workspace().unmerged(one.origin().id(), first->result));
}

TEST_CASE("a merged result takes those with it that it contains") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "f", "f\n");
  ends.push();
  const std::string id = ends.origin().id();
  write_file(ends.box() / "a", "a\n");
  REQUIRE(must(ends.workspace().take_result(id)));
  write_file(ends.box() / "b", "b\n");
  auto second = must(ends.workspace().take_result(id));
  REQUIRE(second);
  ends.workspace().merged(id, second->result);
  CHECK_FALSE(ends.workspace().unmerged(id, second->result));
  CHECK_FALSE(ends.workspace().unmerged(id, ""));
}
