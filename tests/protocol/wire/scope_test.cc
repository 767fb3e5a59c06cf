#include "protocol/wire/scope.h"

#include "tests/support/catch.h"

using protocol::wire::readable_scope;
using protocol::wire::shown_user;

TEST_CASE("people read a job's scope in words") {
  CHECK(readable_scope("ci:github:org/repo#100-2/build@runner 7") ==
        "github org/repo run 100 job build on runner 7");
  CHECK(readable_scope("ci:gitlab:group/project#5/test 1/3@host") ==
        "gitlab group/project pipeline 5 job test 1/3");
  CHECK(readable_scope("ci:drone:org/repo#9@host") == "drone org/repo build 9");
  CHECK(readable_scope("ci:bitbucket:team/repo#11@host") == "bitbucket team/repo build 11");
  CHECK(readable_scope("ci:jenkins:jenkins-job-3@host") == "jenkins jenkins-job-3");
  CHECK(readable_scope("ci:generic:host") == "ci on host");
}

TEST_CASE("what is no job's scope is shown as it is") {
  for (const char* text :
       {"", "alice", "a:b", "ci:", "ci:github", "ci:github:", "ci:github:x", "ci:github:r#1/j@h",
        "ci:unknown:x", "ci:drone:r@h", "ci:jenkins:1", "ci:gitlab:p#1@h", "ci:generic:"}) {
    INFO(text);
    CHECK(readable_scope(text) == text);
  }
}

TEST_CASE("a user in a sentence is a name, and the job that it is for") {
  CHECK(shown_user("alice", "") == "alice");
  CHECK(shown_user("bot", "ci:drone:org/repo#9@h") == "bot for drone org/repo build 9");
  CHECK(shown_user("", "") == "somebody");
  CHECK(shown_user("a\x1b[2J", "b\n").find_first_of("\x1b\n") == std::string::npos);
}
