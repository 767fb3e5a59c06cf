#include "protocol/sync/result_message.h"

#include "tests/support/catch.h"

using protocol::sync::generation_of;
using protocol::sync::named_commits;
using protocol::sync::result_message;
using protocol::wire::Ref;

TEST_CASE("a result's message says its generation and its commits, and is never the same") {
  const std::string oid(40, 'a');
  std::vector<Ref> commits{{"refs/heads/a branch", oid}, {"HEAD", std::string(40, 'b')}};
  std::string message = result_message("0123", commits);
  CHECK(generation_of(message) == "0123");
  auto read = named_commits(message);
  REQUIRE(read.size() == 2);
  CHECK(read[0].name == "refs/heads/a branch");
  CHECK(read[0].oid == oid);
  CHECK(read[1].name == "HEAD");
  CHECK(result_message("0123", commits) != message);
}

TEST_CASE("a message of an earlier version, or of somebody who means harm, has no generation") {
  const std::string oid(40, 'a');
  CHECK(generation_of("result\n\n" + oid + " refs/heads/x").empty());
  CHECK(named_commits("result\n\n" + oid + " refs/heads/x").size() == 1);
  CHECK(generation_of("").empty());
  CHECK(generation_of("generation x").empty());
  CHECK(generation_of("a\ngeneration ").empty());
  CHECK(named_commits("generation x\nzz y\n" + oid).empty());
}
