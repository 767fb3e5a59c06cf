#include "cli/ci_identity.h"

#include "tests/support/catch.h"

namespace {

using Variables = std::map<std::string, std::string>;

std::string scope(Variables more) {
  more["CI"] = "true";
  return cli::ci_scope(more, "host");
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
    CHECK(cli::ci_scope(variables, "host").empty());
  }
  CHECK(cli::ci_scope(kGithub, "host").empty());
}

TEST_CASE("each service's job has its own kind of scope") {
  CHECK(scope(kGithub) == "ci:github:org/repo#100-2/build@runner 7");
  CHECK(scope(kGitlab) == "ci:gitlab:group/project#5/test 1/3@host");
  CHECK(scope(kDrone) == "ci:drone:org/repo#9@host");
  CHECK(scope(kBitbucket) == "ci:bitbucket:team/repo#11@host");
  CHECK(scope(kJenkins) == "ci:jenkins:jenkins-job-3@host");
  CHECK(scope({}) == "ci:generic:host");
  Variables both = kGithub;
  both.insert(kDrone.begin(), kDrone.end());
  CHECK(scope(both).rfind("ci:drone:", 0) == 0);
}

TEST_CASE("two jobs are never the same") {
  for (const char* part :
       {"GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB", "RUNNER_NAME"}) {
    Variables other = kGithub;
    other[part] += "7";
    INFO(part);
    CHECK(scope(kGithub) != scope(other));
  }
}

TEST_CASE("a scope that is too long for the wire keeps what tells jobs apart") {
  Variables variables = kGithub;
  variables["GITHUB_REPOSITORY"] = std::string(500, 'r');
  CHECK(scope(variables).size() == 255);
  CHECK(scope(variables).find("#100-2/build@runner 7") != std::string::npos);
  CHECK(scope(variables).rfind("ci:github:r", 0) == 0);
}
