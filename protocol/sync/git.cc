#include "protocol/sync/git.h"

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <sstream>

#include "protocol/os/paths.h"
#include "protocol/os/run.h"
#include "protocol/os/signal_names.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;

namespace {

// What git may see of our environment: how to find programs and libraries, and where temporary
// files go. HOME is not among them, so that nothing beneath it is read; nor is any GIT_ variable,
// which inside a git hook would point it at the hook's repository and index.
constexpr const char* kKept[] = {"PATH",         "TMPDIR",        "LD_LIBRARY_PATH",
                                 "ASAN_OPTIONS", "UBSAN_OPTIONS", "DEVELOPER_DIR"};

constexpr std::pair<const char*, const char*> kSet[] = {
    {"LC_ALL", "C"},
    {"GIT_CONFIG_NOSYSTEM", "1"},
    {"GIT_CONFIG_SYSTEM", "/dev/null"},
    {"GIT_CONFIG_GLOBAL", "/dev/null"},
    {"GIT_ATTR_NOSYSTEM", "1"},
    {"GIT_OPTIONAL_LOCKS", "0"},  // an index that is only read stays as it is
    {"GIT_NO_REPLACE_OBJECTS", "1"},
    {"GIT_NO_LAZY_FETCH", "1"},
    {"GIT_TERMINAL_PROMPT", "0"},
    {"GIT_ASKPASS", "false"},
    {"GIT_SSH_COMMAND", "false"},
};

// Over a repository's own configuration, which git reads whatever the environment says.
constexpr const char* kConfig[] = {
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.alternateRefsCommand=",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.pager=cat",
    "protocol.allow=never",  // a partial clone would fetch what is missing
    "safe.directory=*",      // somebody else's repository may be read: nothing in it is run
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "diff.ignoreSubmodules=none",
};

// The file that a program's name stands for on PATH.
std::optional<std::string> locate(const std::string& program) {
  auto runnable = [](const std::string& file) {
    struct stat status;
    return ::stat(file.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
           ::access(file.c_str(), X_OK) == 0;
  };
  if (program.find('/') != std::string::npos)
    return runnable(program) ? std::optional(std::filesystem::absolute(program).string())
                             : std::nullopt;
  const char* path = std::getenv("PATH");
  std::istringstream directories(path && *path ? path : "/usr/local/bin:/usr/bin:/bin");
  for (std::string directory; std::getline(directories, directory, ':');) {
    std::string file = (directory.empty() ? "." : directory) + "/" + program;
    if (runnable(file)) return std::filesystem::absolute(file).string();
  }
  return std::nullopt;
}

// "git version 2.39.5 (Apple Git-154)"
std::optional<GitVersion> parse_version(std::string_view text) {
  constexpr std::string_view prefix = "git version ";
  if (!text.starts_with(prefix)) return std::nullopt;
  text.remove_prefix(prefix.size());
  GitVersion version;
  auto [dot, error] = std::from_chars(text.data(), text.data() + text.size(), version.major);
  if (error != std::errc() || dot == text.data() + text.size() || *dot != '.') return std::nullopt;
  auto [end, minor_error] = std::from_chars(dot + 1, text.data() + text.size(), version.minor);
  if (minor_error != std::errc()) return std::nullopt;
  return version;
}

bool contains(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::any_of(words.begin(), words.end(), [&](std::string_view word) {
    return text.find(word) != std::string_view::npos;
  });
}

// What git meant for people, without its "fatal: ": the first fatal line, else the first error,
// else the last line.
std::string last_words(std::string_view words) {
  std::string line, fatal, error, last;
  std::istringstream lines{std::string(words)};
  while (std::getline(lines, line)) {
    if (line.empty()) continue;
    last = line;
    if (fatal.empty() && line.starts_with("fatal: ")) fatal = line.substr(7);
    if (error.empty() && line.starts_with("error: ")) error = line.substr(7);
  }
  std::string chosen = !fatal.empty() ? fatal : !error.empty() ? error : last;
  if (chosen.size() > 500) chosen.resize(500);
  return chosen;
}

}  // namespace

result<Git> Git::find(const std::string& program, const std::filesystem::path& memory) {
  auto file = locate(program);
  if (!file) return Failure(Errc::unsupported, program + ": no such program");
  Git git;
  git.program_ = *file;
  git.environment_ = {};
  for (const char* name : kKept)
    if (const char* value = std::getenv(name)) git.environment_[name] = value;
  for (auto [name, value] : kSet) git.environment_[name] = value;
  git.config_.assign(std::begin(kConfig), std::end(kConfig));

  struct stat status;
  std::string key;
  if (::stat(file->c_str(), &status) == 0)
    key = *file + " " + std::to_string(status.st_size) + " " + std::to_string(status.st_mtime) +
          " " + std::to_string(status.st_ino) + "\n";
  std::string said;
  if (!memory.empty() && !key.empty()) {
    auto remembered = os::read_file(memory, 8192);
    if (remembered && remembered->starts_with(key)) said = remembered->substr(key.size());
  }
  bool fresh = said.empty();
  if (fresh) {
    auto printed = git.out({"version"});
    if (!printed)
      return Failure(Errc::unsupported, *file + " does not run: " + printed.error().what);
    said = *printed;
  }
  auto version = parse_version(said);
  if (!version || *version < kOldestGit) {
    while (!said.empty() && said.back() == '\n') said.pop_back();
    return Failure(Errc::unsupported, *file + " is `" + said + "`; git 2.39 or newer is needed");
  }
  git.version_ = *version;
  if (fresh && !memory.empty() && !key.empty()) (void)os::write_file(memory, key + said);
  return git;
}

Git Git::with_repository(const std::filesystem::path& git_dir) const {
  return with_variable("GIT_DIR", git_dir.string());
}

Git Git::with_work_tree(const std::filesystem::path& root) const {
  Git copy = with_variable("GIT_WORK_TREE", root.string());
  copy.cwd_ = root.string();
  return copy;
}

Git Git::with_index(const std::filesystem::path& file) const {
  return with_variable("GIT_INDEX_FILE", file.string());
}

Git Git::with_config(const std::string& setting) const {
  Git copy = *this;
  copy.config_.push_back(setting);
  return copy;
}

Git Git::with_variable(const std::string& name, const std::string& value) const {
  Git copy = *this;
  copy.environment_[name] = value;
  return copy;
}

Git Git::with_user_settings() const {
  Git copy = *this;
  for (const char* name :
       {"GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_GLOBAL", "HOME", "XDG_CONFIG_HOME"})
    if (const char* value = std::getenv(name))
      copy.environment_[name] = value;
    else
      copy.environment_.erase(name);
  return copy;
}

os::Spawn Git::spawn(std::vector<std::string> args) const {
  os::Spawn spawn;
  spawn.argv.reserve(args.size() + 2 * config_.size() + 1);
  spawn.argv.push_back(program_);
  for (const std::string& setting : config_) {
    spawn.argv.push_back("-c");
    spawn.argv.push_back(setting);
  }
  for (std::string& arg : args) spawn.argv.push_back(std::move(arg));
  spawn.env = environment_;
  // Not the caller's directory: it may be gone, and git refuses to start without one.
  spawn.cwd = cwd_.empty() ? "/" : cwd_;
  return spawn;
}

result<os::Output> Git::run(std::vector<std::string> args, std::string_view input) const {
  return os::run(spawn(std::move(args)), input);
}

result<std::string> Git::out(std::vector<std::string> args, std::string_view input) const {
  std::string command = args.empty() ? "" : args.front();
  auto output = run(std::move(args), input);
  if (!output) return output.error();
  if (!output->exit.ok()) return git_failure(output->exit, output->err, command);
  return std::move(output->out);
}

wire::Failure git_failure(const os::ExitStatus& exit, std::string_view words,
                          const std::string& command) {
  std::string what = "git " + command;
  if (exit.signal != 0) {
    what += " was ended by SIG" + os::signal_name(exit.signal);
    return Failure(exit.signal == SIGPIPE ? Errc::gone : Errc::io, what);
  }
  if (std::string last = last_words(words); !last.empty())
    what += ": " + last;
  else
    what += " ended with status " + std::to_string(exit.status);
  if (contains(words, {"No space left", "Disk quota exceeded", "File too large"}))
    return Failure(Errc::no_space, what);
  if (contains(words, {"Permission denied", "Read-only file system"}))
    return Failure(Errc::denied, what);
  if (contains(words, {"Broken pipe"})) return Failure(Errc::gone, what);
  if (contains(words, {"exceeds maximum allowed size", "attempting to allocate"}))
    return Failure(Errc::too_large, what);
  if (contains(words, {"Not a valid object", "not a valid object", "bad object", "unable to read",
                       "could not read", "unable to get type", "missing blob", "missing tree",
                       "Could not read", "not found", "Failed to traverse", "unable to find",
                       "unable to parse", "failed to find", "bad revision"}))
    return Failure(Errc::not_found, what);
  return Failure(Errc::io, what);
}

NoSigpipe::NoSigpipe() {
  sigset_t pending, pipe, before;
  sigpending(&pending);
  was_pending_ = sigismember(&pending, SIGPIPE) == 1;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, &before);
  was_blocked_ = sigismember(&before, SIGPIPE) == 1;
}

NoSigpipe::~NoSigpipe() {
  sigset_t pending, pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  sigpending(&pending);
  if (!was_pending_ && sigismember(&pending, SIGPIPE) == 1) {
    int signal = 0;
    sigwait(&pipe, &signal);
  }
  if (!was_blocked_) pthread_sigmask(SIG_UNBLOCK, &pipe, nullptr);
}

}  // namespace protocol::sync
