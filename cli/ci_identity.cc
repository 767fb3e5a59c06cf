#include "cli/ci_identity.h"

#include <algorithm>
#include <vector>

#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace cli {

namespace {

constexpr std::string_view kPrefix = "ci:";

using Variables = std::map<std::string, std::string>;

std::string get(const Variables& variables, const char* name) {
  auto found = variables.find(name);
  return found == variables.end() ? std::string() : found->second;
}

// The name of a holder is a name on the wire: it has to fit with its end, which tells processes
// apart.
std::string fit(const std::string& what, const std::string& end) {
  std::size_t room = protocol::wire::kMaxNameBytes - std::min(end.size(), std::size_t{100});
  return what.substr(0, room) + end;
}

bool is_number(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// `text` before and after `at`; std::nullopt when one of them would be empty.
std::optional<std::pair<std::string, std::string>> split(std::string_view text, std::size_t at) {
  if (at == std::string_view::npos || at == 0 || at + 1 == text.size()) {
    return std::nullopt;
  }
  return std::pair(std::string(text.substr(0, at)), std::string(text.substr(at + 1)));
}

std::optional<std::pair<std::string, std::string>> split_first(std::string_view text, char mark) {
  return split(text, text.find(mark));
}

std::optional<std::pair<std::string, std::string>> split_last(std::string_view text, char mark) {
  return split(text, text.rfind(mark));
}

// REPO#RUN-ATTEMPT/JOB@RUNNER
std::optional<std::string> read_github(std::string_view text) {
  auto runner = split_last(text, '@');
  auto job = runner ? split_last(runner->first, '/') : std::nullopt;
  auto run = job ? split_last(job->first, '#') : std::nullopt;
  auto attempt = run ? split_last(run->second, '-') : std::nullopt;
  if (!attempt) {
    return std::nullopt;
  }
  return "github " + run->first + " run " + attempt->first + " job " + job->second + " on " +
         runner->second;
}

// PROJECT#PIPELINE/JOB@HOST
std::optional<std::string> read_gitlab(std::string_view text) {
  auto host = split_last(text, '@');
  auto pipeline = host ? split_first(host->first, '#') : std::nullopt;
  auto job = pipeline ? split_first(pipeline->second, '/') : std::nullopt;  // "test 1/3" is one
  if (!job) {
    return std::nullopt;
  }
  return "gitlab " + pipeline->first + " pipeline " + job->first + " job " + job->second;
}

// REPO#BUILD@HOST
std::optional<std::string> read_build(const std::string& provider, std::string_view text) {
  auto host = split_last(text, '@');
  auto build = host ? split_last(host->first, '#') : std::nullopt;
  if (!build) {
    return std::nullopt;
  }
  return provider + " " + build->first + " build " + build->second;
}

// What follows "ci:", without the process.
std::optional<std::string> read_ci(std::string_view text) {
  auto colon = text.find(':');
  if (colon == std::string_view::npos || colon + 1 == text.size()) {
    return std::nullopt;
  }
  std::string provider(text.substr(0, colon));
  std::string_view rest = text.substr(colon + 1);
  if (provider == "github") {
    return read_github(rest);
  }
  if (provider == "gitlab") {
    return read_gitlab(rest);
  }
  if (provider == "drone" || provider == "bitbucket") {
    return read_build(provider, rest);
  }
  if (provider == "jenkins") {
    auto host = split_last(rest, '@');
    return host ? std::optional("jenkins " + host->first) : std::nullopt;
  }
  if (provider == "generic") {
    return "ci on " + std::string(rest);
  }
  return std::nullopt;
}

// ORIGIN:ID:EMAIL, of another service's reservation.
std::optional<std::string> read_email(std::string_view text) {
  auto email = split_last(text, ':');
  auto id = email ? split_last(email->first, ':') : std::nullopt;
  if (!id || email->second.find('@') == std::string::npos) {
    return std::nullopt;
  }
  return email->second;
}

}  // namespace

std::optional<std::string> ci_holder(const Variables& variables, const std::string& host, int pid) {
  if (get(variables, "CI") != "true") {
    return std::nullopt;
  }
  std::string process = ":" + std::to_string(pid);
  auto set = [&variables](const char* name) { return !get(variables, name).empty(); };
  auto value = [&variables](const char* name) { return get(variables, name); };
  if (value("DRONE") == "true") {
    return fit("ci:drone:" + value("DRONE_REPO") + "#" + value("DRONE_BUILD_NUMBER"),
               process + "@" + host);
  }
  if (value("GITHUB_ACTIONS") == "true") {
    return fit("ci:github:" + value("GITHUB_REPOSITORY") + "#" + value("GITHUB_RUN_ID") + "-" +
                   value("GITHUB_RUN_ATTEMPT") + "/" + value("GITHUB_JOB") + "@" +
                   value("RUNNER_NAME"),
               process);
  }
  if (set("BITBUCKET_BUILD_NUMBER")) {
    return fit(
        "ci:bitbucket:" + value("BITBUCKET_REPO_FULL_NAME") + "#" + value("BITBUCKET_BUILD_NUMBER"),
        process + "@" + host);
  }
  if (value("GITLAB_CI") == "true") {
    return fit("ci:gitlab:" + value("CI_PROJECT_PATH") + "#" + value("CI_PIPELINE_ID") + "/" +
                   value(set("CI_JOB_NAME") ? "CI_JOB_NAME" : "CI_JOB_ID"),
               process + "@" + host);
  }
  if (set("JENKINS_URL")) {
    return fit("ci:jenkins:" + value("BUILD_TAG"), process + "@" + host);
  }
  return fit("ci:generic:" + host, process);
}

std::string holder_scope(std::string_view holder) {
  std::string text(holder);
  auto colon = text.rfind(':');
  if (colon == std::string::npos) {
    return text;
  }
  auto at = text.find('@', colon);
  std::string_view process =
      std::string_view(text).substr(colon + 1, at == std::string::npos ? at : at - colon - 1);
  if (text.rfind(kPrefix, 0) != 0 || !is_number(process)) {
    return text;
  }
  return text.erase(colon, process.size() + 1);
}

std::string readable_holder(std::string_view holder) {
  std::optional<std::string> read;
  if (holder.rfind(kPrefix, 0) == 0) {
    read = read_ci(std::string_view(holder_scope(holder)).substr(kPrefix.size()));
  } else {
    read = read_email(holder);
  }
  return read ? *read : std::string(holder);
}

std::string shown_user(std::string_view user) {
  return user.empty() ? "somebody" : protocol::wire::printable(readable_holder(user), 200);
}

}  // namespace cli
