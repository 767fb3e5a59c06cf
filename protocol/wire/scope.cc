#include "protocol/wire/scope.h"

#include <optional>
#include <utility>

#include "protocol/wire/quoting.h"

namespace protocol::wire {

namespace {

constexpr std::string_view kPrefix = "ci:";

using Parts = std::optional<std::pair<std::string, std::string>>;

// `text` before and after `at`; std::nullopt when one of them would be empty.
Parts split(std::string_view text, std::size_t at) {
  if (at == std::string_view::npos || at == 0 || at + 1 == text.size()) {
    return std::nullopt;
  }
  return std::pair(std::string(text.substr(0, at)), std::string(text.substr(at + 1)));
}

Parts split_first(std::string_view text, char mark) { return split(text, text.find(mark)); }
Parts split_last(std::string_view text, char mark) { return split(text, text.rfind(mark)); }

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

// What follows "ci:".
std::optional<std::string> read_ci(std::string_view text) {
  auto parts = split_first(text, ':');
  if (!parts) {
    return std::nullopt;
  }
  const auto& [provider, rest] = *parts;
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
    return "ci on " + rest;
  }
  return std::nullopt;
}

}  // namespace

std::string readable_scope(std::string_view scope) {
  std::optional<std::string> read;
  if (scope.rfind(kPrefix, 0) == 0) {
    read = read_ci(scope.substr(kPrefix.size()));
  }
  return read ? *read : std::string(scope);
}

std::string shown_user(std::string_view user, std::string_view scope) {
  std::string name = user.empty() ? "somebody" : std::string(user);
  if (!scope.empty()) {
    name += " for " + readable_scope(scope);
  }
  return printable(name, 200);
}

}  // namespace protocol::wire
