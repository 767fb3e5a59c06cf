#include "cli/ci_identity.h"

#include "protocol/wire/limits.h"

namespace cli {

namespace {

// A scope is a name on the wire: what is too long loses its middle, where the name of the project
// is; the end tells jobs apart.
std::string fit(const std::string& scope) {
  constexpr std::size_t kEnd = 127;
  constexpr std::size_t kMost = protocol::wire::kMaxNameBytes;
  return scope.size() <= kMost ? scope
                               : scope.substr(0, kMost - kEnd) + scope.substr(scope.size() - kEnd);
}

}  // namespace

std::string ci_scope(const std::map<std::string, std::string>& variables, const std::string& host) {
  auto value = [&variables](const char* name) {
    auto found = variables.find(name);
    return found == variables.end() ? std::string() : found->second;
  };
  if (value("CI") != "true") {
    return {};
  }
  if (value("DRONE") == "true") {
    return fit("ci:drone:" + value("DRONE_REPO") + "#" + value("DRONE_BUILD_NUMBER") + "@" + host);
  }
  if (value("GITHUB_ACTIONS") == "true") {
    return fit("ci:github:" + value("GITHUB_REPOSITORY") + "#" + value("GITHUB_RUN_ID") + "-" +
               value("GITHUB_RUN_ATTEMPT") + "/" + value("GITHUB_JOB") + "@" +
               value("RUNNER_NAME"));
  }
  if (!value("BITBUCKET_BUILD_NUMBER").empty()) {
    return fit("ci:bitbucket:" + value("BITBUCKET_REPO_FULL_NAME") + "#" +
               value("BITBUCKET_BUILD_NUMBER") + "@" + host);
  }
  if (value("GITLAB_CI") == "true") {
    std::string job = value("CI_JOB_NAME");
    return fit("ci:gitlab:" + value("CI_PROJECT_PATH") + "#" + value("CI_PIPELINE_ID") + "/" +
               (job.empty() ? value("CI_JOB_ID") : job) + "@" + host);
  }
  if (!value("JENKINS_URL").empty()) {
    return fit("ci:jenkins:" + value("BUILD_TAG") + "@" + host);
  }
  return fit("ci:generic:" + host);
}

}  // namespace cli
