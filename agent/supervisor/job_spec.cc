#include "agent/supervisor/job_spec.h"

#include <sys/stat.h>
#include <unistd.h>

#include "protocol/os/beneath.h"
#include "protocol/os/passed_on.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace agent::supervisor {

namespace fs = std::filesystem;
namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

bool has_nul(const std::string& text) { return text.find('\0') != std::string::npos; }

bool is_beneath(const fs::path& relative) {
  if (relative.is_absolute()) return false;
  for (const fs::path& part : relative)
    if (part == "..") return false;
  return true;
}

bool is_usable_directory(const fs::path& path) {
  struct stat status;
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode) &&
         ::access(path.c_str(), X_OK) == 0;
}

// A directory that is empty at the origin does not travel, so it is made. Never another one
// instead: a command that cleans up would do so in the wrong place.
result<fs::path> working_directory(const std::string& relative, bool make,
                                   const Directory& directory) {
  Failure missing(Errc::bad_input,
                  "there is no directory " + wire::printable(relative, 256) + " in the sandbox");
  if (!is_beneath(relative)) return missing;
  fs::path wanted = (directory.workspace() / relative).lexically_normal();
  if (!is_usable_directory(wanted)) {
    if (!make) return missing;
    auto root = os::Beneath::open(directory.workspace());
    if (!root) return root.error();
    std::string path = fs::path(relative).lexically_normal().native();
    while (!path.empty() && path.back() == '/') path.pop_back();
    if (!root->make_directories(path) || !is_usable_directory(wanted)) return missing;
  }
  return wanted;
}

result<void> check(const wire::Exec& exec) {
  for (const std::string& argument : exec.argv)
    if (has_nul(argument)) return Failure(Errc::bad_input, "an argument with a NUL byte");
  if (has_nul(exec.script) || has_nul(exec.cwd) || has_nul(exec.shell))
    return Failure(Errc::bad_input, "a command with a NUL byte");
  for (const auto& [name, value] : exec.env) {
    if (name.empty() || name.find('=') != std::string::npos || has_nul(name) || has_nul(value)) {
      return Failure(Errc::bad_input, "the environment variable \"" + wire::printable(name, 64) +
                                          "\" cannot be passed to a program");
    }
  }
  if (!exec.shell.empty() && exec.shell[0] != '/')
    return Failure(Errc::bad_input,
                   "the shell " + wire::printable(exec.shell, 256) + " is not an absolute path");
  return {};
}

}  // namespace

result<JobSpec> make_job_spec(const wire::Exec& exec, const Directory& directory,
                              const os::Environment& environment) {
  auto checked = check(exec);
  if (!checked) return checked.error();
  JobSpec spec;
  std::string login = exec.shell.empty() ? os::login_shell() : exec.shell;
  if (!exec.script.empty()) {
    std::string shell = exec.shell.empty() ? "/bin/sh" : exec.shell;
    spec.argv = {shell, "-c", exec.script};
    if (!exec.argv.empty()) {
      spec.argv.push_back(shell);
      spec.argv.insert(spec.argv.end(), exec.argv.begin(), exec.argv.end());
    }
    spec.command = exec.script;
  } else if (!exec.argv.empty()) {
    spec.argv = exec.argv;
    spec.command = wire::shell_join(exec.argv);
  } else {
    spec.argv = {login, "-l"};
    spec.command = login;
  }
  spec.command = spec.command.substr(0, wire::kMaxTextBytes);

  spec.cwd = directory.workspace();
  if (!exec.cwd.empty()) {
    auto found = working_directory(exec.cwd, exec.make_cwd, directory);
    if (!found) return found.error();
    spec.cwd = *found;
  }

  for (const auto& [name, value] : environment)
    if (os::is_passed_on(name)) spec.env[name] = value;
  spec.env.emplace("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  spec.env["HOME"] = directory.home().native();
  spec.env["USER"] = spec.env["LOGNAME"] = os::user_name();
  spec.env["SHELL"] = login;
  spec.env["SANDBOX_ID"] = directory.sandbox();
  if (exec.terminal) {
    spec.terminal = os::WindowSize{exec.terminal->rows, exec.terminal->columns};
    spec.env["TERM"] = exec.terminal->term.empty() ? "dumb" : exec.terminal->term;
    if (has_nul(spec.env["TERM"])) spec.env["TERM"] = "dumb";
  }
  for (const auto& [name, value] : exec.env) spec.env[name] = value;
  spec.env["PWD"] = spec.cwd.native();
  spec.interactive_input = exec.interactive_input;
  return spec;
}

}  // namespace agent::supervisor
