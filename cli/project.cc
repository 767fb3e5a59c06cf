#include "cli/project.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "cli/error.h"
#include "protocol/os/paths.h"
#include "protocol/os/process.h"
#include "protocol/os/run.h"

namespace cli {
namespace fs = std::filesystem;

namespace {

constexpr std::size_t kShownDigits = 12;
constexpr std::string_view kDetached = "detached@";

std::string first_line(const fs::path& file) {
  auto content = protocol::os::read_file(file, 64 * 1024);
  if (!content) {
    return {};
  }
  return content->substr(0, content->find('\n'));
}

// The git directory that `.git` in `directory` is or points to; empty when there is none.
fs::path git_directory(const fs::path& directory) {
  fs::path dot_git = directory / ".git";
  std::error_code error;
  fs::path found;
  if (fs::is_directory(dot_git, error)) {
    found = dot_git;
  } else if (fs::is_regular_file(dot_git, error)) {
    std::string line = first_line(dot_git);
    constexpr std::string_view kPrefix = "gitdir: ";
    if (line.compare(0, kPrefix.size(), kPrefix) == 0) {
      fs::path target = line.substr(kPrefix.size());
      found = target.is_absolute() ? target : directory / target;
    }
  }
  struct stat status {};
  // HEAD may be a link whose target does not exist: lstat.
  return !found.empty() && ::lstat((found / "HEAD").c_str(), &status) == 0 ? found : fs::path();
}

// git's answer on stdout, run in the work tree with an environment of its own; empty when it
// failed.
std::optional<std::string> ask_git(const fs::path& root, std::vector<std::string> words,
                                   const Environment& environment) {
  protocol::os::Spawn spawn;
  spawn.argv = {"git", "--no-optional-locks", "-C", root.string()};
  spawn.argv.insert(spawn.argv.end(), words.begin(), words.end());
  std::map<std::string, std::string> variables = {{"LC_ALL", "C"}, {"GIT_TERMINAL_PROMPT", "0"}};
  for (const char* name : {"PATH", "HOME", "XDG_CONFIG_HOME"}) {
    if (std::string value = environment.get(name); !value.empty()) {
      variables[name] = value;
    }
  }
  spawn.env = std::move(variables);
  auto output = protocol::os::run(std::move(spawn), {}, 1 << 20);
  if (!output || !output->exit.ok()) {
    return std::nullopt;
  }
  return output->out;
}

std::string read_branch(const fs::path& root, const fs::path& git, const Environment& environment) {
  constexpr std::string_view kRef = "ref: ";
  constexpr std::string_view kHeads = "refs/heads/";
  std::string head;
  std::error_code error;
  if (fs::is_symlink(git / "HEAD", error)) {
    head = std::string(kRef) + fs::read_symlink(git / "HEAD", error).string();
  } else {
    head = first_line(git / "HEAD");
  }
  while (!head.empty() && (head.back() == '\r' || head.back() == ' ')) {
    head.pop_back();
  }
  if (head.compare(0, kRef.size(), kRef) == 0) {
    std::string ref = head.substr(kRef.size());
    if (ref ==
        "refs/heads/.invalid") {  // the references are in a format that only git itself reads
      auto answer = ask_git(root, {"symbolic-ref", "-q", "HEAD"}, environment);
      if (answer) {
        ref = answer->substr(0, answer->find('\n'));
      } else {
        auto commit = ask_git(root, {"rev-parse", "--verify", "-q", "HEAD"}, environment);
        return std::string(kDetached) + (commit ? commit->substr(0, kShownDigits) : "");
      }
    }
    return ref.compare(0, kHeads.size(), kHeads) == 0 ? ref.substr(kHeads.size()) : ref;
  }
  return std::string(kDetached) + head.substr(0, kShownDigits);
}

}  // namespace

std::string Project::subdirectory() const {
  std::string relative = directory.lexically_relative(root).string();
  return relative == "." ? std::string() : relative;
}

Project find_project(const Environment& environment, const std::string& directory) {
  fs::path start = directory;
  if (!start.is_absolute()) {
    if (!environment.directory) {
      throw UserError("project", "the current directory no longer exists",
                      "Change to one that does, or name one with --dir.");
    }
    start = *environment.directory / start;
  }
  Project project;
  std::error_code error;
  project.directory = fs::canonical(start, error);
  if (!error && !fs::is_directory(project.directory, error)) {
    error = std::make_error_code(std::errc::not_a_directory);
  }
  if (error) {
    throw UserError("project",
                    "cannot use the directory " + start.string() + ": " + error.message(),
                    "Name one that exists with --dir.", kMisuse);
  }
  project.root = project.directory;
  for (fs::path at = project.directory;; at = at.parent_path()) {
    fs::path git = git_directory(at);
    if (!git.empty()) {
      project.root = at;
      project.git = true;
      project.branch = read_branch(at, git, environment);
      break;
    }
    if (at == at.root_path()) {
      break;
    }
  }
  std::error_code elsewhere;
  if (!project.git && (project.root == project.root.root_path() ||
                       fs::equivalent(project.root, environment.get("HOME"), elsewhere))) {
    throw UserError("project",
                    project.root.string() + " is " +
                        (project.root == project.root.root_path() ? "the whole machine"
                                                                  : "your home directory") +
                        ", and no git repository: all that is in it would be sent",
                    "Change to a project's directory, or name one with --dir.", kMisuse);
  }
  struct stat status {};
  if (::stat(project.root.c_str(), &status) != 0) {
    throw UserError("project",
                    "cannot read " + project.root.string() + ": " + std::strerror(errno));
  }
  project.device = status.st_dev;
  project.inode = status.st_ino;
  return project;
}

std::optional<std::string> detached_commit(const std::string& branch) {
  if (branch.compare(0, kDetached.size(), kDetached) != 0) {
    return std::nullopt;
  }
  return branch.substr(kDetached.size());
}

std::vector<std::string> ancestors_of_head(const fs::path& root,
                                           const std::vector<std::string>& commits,
                                           const Environment& environment) {
  std::vector<std::string> found;
  for (const auto& commit : commits) {
    bool plain =
        !commit.empty() && commit.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (plain && ask_git(root, {"merge-base", "--is-ancestor", commit, "HEAD"}, environment)) {
      found.push_back(commit);
    }
  }
  return found;
}

}  // namespace cli
