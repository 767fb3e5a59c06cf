#include "cli/ci_identity.h"

#include "tests/support/catch.h"

namespace {

using Variables = std::map<std::string, std::string>;

std::string holder(Variables more, int pid = 42) {
  more["CI"] = "true";
  return cli::ci_holder(more, "host", pid).value_or("none");
}

const Variables kGithub = {{"GITHUB_ACTIONS", "true"}, {"GITHUB_REPOSITORY", "org/repo"},
                           {"GITHUB_RUN_ID", "100"},   {"GITHUB_RUN_ATTEMPT", "2"},
                           {"GITHUB_JOB", "build"},    {"RUNNER_NAME", "runner 7"}};
const Variables kGitlab = {{"GITLAB_CI", "true"},
                           {"CI_PROJECT_PATH", "group/project"},
                           {"CI_PIPELINE_ID", "5"},
                           {"CI_JOB_NAME", "test 1/3"}};
const Variables kDrone = {
    {"DRONE", "true"}, {"DRONE_REPO", "org/repo"}, {"DRONE_BUILD_NUMBER", "9"}};
const Variables kBitbucket = {{"BITBUCKET_REPO_FULL_NAME", "team/repo"},
                              {"BITBUCKET_BUILD_NUMBER", "11"}};
const Variables kJenkins = {{"JENKINS_URL", "http://j"}, {"BUILD_TAG", "jenkins-job-3"}};

}  // namespace

TEST_CASE("nobody is a CI job unless CI is exactly true") {
  for (const char* value : {"", "1", "TRUE", "false"}) {
    Variables variables = kGithub;
    variables["CI"] = value;
    CHECK_FALSE(cli::ci_holder(variables, "host", 1));
  }
  CHECK_FALSE(cli::ci_holder(kGithub, "host", 1));
}

TEST_CASE("each service's job has its own kind of name") {
  CHECK(holder(kGithub) == "ci:github:org/repo#100-2/build@runner 7:42");
  CHECK(holder(kGitlab) == "ci:gitlab:group/project#5/test 1/3:42@host");
  CHECK(holder(kDrone) == "ci:drone:org/repo#9:42@host");
  CHECK(holder(kBitbucket) == "ci:bitbucket:team/repo#11:42@host");
  CHECK(holder(kJenkins) == "ci:jenkins:jenkins-job-3:42@host");
  CHECK(holder({}) == "ci:generic:host:42");
  Variables both = kGithub;
  both.insert(kDrone.begin(), kDrone.end());
  CHECK(holder(both).rfind("ci:drone:", 0) == 0);
}

TEST_CASE("people read a job's name in words") {
  CHECK(cli::readable_holder(holder(kGithub)) == "github org/repo run 100 job build on runner 7");
  CHECK(cli::readable_holder(holder(kGitlab)) == "gitlab group/project pipeline 5 job test 1/3");
  CHECK(cli::readable_holder(holder(kDrone)) == "drone org/repo build 9");
  CHECK(cli::readable_holder(holder(kBitbucket)) == "bitbucket team/repo build 11");
  CHECK(cli::readable_holder(holder(kJenkins)) == "jenkins jenkins-job-3");
  CHECK(cli::readable_holder(holder({})) == "ci on host");
  CHECK(cli::readable_holder("portal:17:ann@example.org") == "ann@example.org");
}

TEST_CASE("what is no job's name is shown as it is") {
  for (const char* name :
       {"", "alice", "a:b", "ci:", "ci:github", "ci:github:x", "ci:github:r#1/j@h",
        "ci:unknown:x:1", "ci:drone:r:1@h", "x:y:z", "ci:jenkins:1"}) {
    INFO(name);
    CHECK(cli::readable_holder(name) == name);
  }
  CHECK(cli::shown_user("") == "somebody");
  CHECK(cli::shown_user("a\x1b[2J").find('\x1b') == std::string::npos);
}

TEST_CASE("processes of one job are one holder, jobs are not") {
  for (const Variables& service : {kGithub, kGitlab, kDrone, kBitbucket, kJenkins, Variables{}}) {
    INFO(holder(service));
    CHECK(holder(service, 1) != holder(service, 2));
    CHECK(cli::holder_scope(holder(service, 1)) == cli::holder_scope(holder(service, 2)));
  }
  for (const char* part :
       {"GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB"}) {
    Variables other = kGithub;
    other[part] += "7";
    INFO(part);
    CHECK(cli::holder_scope(holder(kGithub)) != cli::holder_scope(holder(other)));
  }
  CHECK(cli::holder_scope("ci:jenkins:42:7@host") == "ci:jenkins:42@host");
  CHECK(cli::holder_scope("alice") == "alice");
  CHECK(cli::holder_scope("portal:17:ann@example.org") == "portal:17:ann@example.org");
}

TEST_CASE("a name that is too long for the wire keeps its end") {
  Variables variables = kGithub;
  variables["GITHUB_REPOSITORY"] = std::string(500, 'r');
  std::string name = holder(variables);
  CHECK(name.size() == 255);
  CHECK(name.substr(name.size() - 3) == ":42");
}
