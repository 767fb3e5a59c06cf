#include "cli/health.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>

#include "cli/error.h"
#include "cli/local_agent.h"
#include "cli/storage.h"
#include "cli/survey.h"
#include "protocol/os/paths.h"
#include "protocol/os/process.h"
#include "protocol/ssh/key.h"
#include "protocol/sync/git.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace fs = std::filesystem;
namespace os = protocol::os;
using protocol::wire::Errc;
using protocol::wire::printable;

namespace {

constexpr std::uint64_t kLittleSpace = 1ull << 30;
constexpr std::uint64_t kNoSpace = 64ull << 20;
constexpr std::size_t kMostBytes = 64 * 1024 * 1024;

Check ok(std::string name, std::string detail) {
  return {std::move(name), Check::Status::ok, std::move(detail), {}};
}
Check warning(std::string name, std::string detail, std::string fix) {
  return {std::move(name), Check::Status::warning, std::move(detail), std::move(fix)};
}
Check error(std::string name, std::string detail, std::string fix) {
  return {std::move(name), Check::Status::error, std::move(detail), std::move(fix)};
}

// The last line of a text, without its line feed.
std::string last_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) {
    text.pop_back();
  }
  auto line = text.rfind('\n');
  return printable(line == std::string::npos ? text : text.substr(line + 1), 300);
}

// Its output and errors; what kept it from running is an error of its own.
protocol::wire::result<os::Output> run_program(const Environment& environment,
                                               std::vector<std::string> argv) {
  os::Spawn spawn;
  spawn.argv = std::move(argv);
  spawn.env = environment.variables;
  return os::run(std::move(spawn));
}

// It, or the nearest directory above it that is there.
fs::path nearest(fs::path directory) {
  struct stat status {};
  while (::stat(directory.c_str(), &status) != 0 && directory.has_relative_path()) {
    directory = directory.parent_path();
  }
  return directory;
}

}  // namespace

Check check_git() {
  auto git = protocol::sync::Git::find("git");
  if (!git) {
    return error("git", git.error().what, "Install git 2.39 or newer.");
  }
  auto version = git->version();
  return ok("git", std::to_string(version.major) + "." + std::to_string(version.minor));
}

Check check_ssh(const Environment& environment) {
  auto ssh = run_program(environment, {"ssh", "-V"});
  if (!ssh || !ssh->exit.ok()) {
    return warning("ssh", "there is no ssh program",
                   "Install the OpenSSH client: boxes behind their own sshd need it, and so do "
                   "`ssh`, `scp` and `git` to a sandbox.");
  }
  return ok("ssh", last_line(ssh->err + ssh->out));
}

Check check_agent_program(const Environment& environment) {
  fs::path program;
  try {
    program = find_agent_program(environment);
  } catch (const UserError& missing) {
    return warning("agent program", missing.what(), missing.next);
  }
  auto said = run_program(environment, {program.string(), "version"});
  if (!said || !said->exit.ok()) {
    return error("agent program",
                 program.string() + " does not run" + (said ? ": " + last_line(said->err) : ""),
                 "Install it anew, from where sandbox came.");
  }
  std::string version = last_line(said->out);
  if (version.find(SANDBOX_VERSION) == std::string::npos) {
    return warning("agent program",
                   program.string() + " is " + version + ", sandbox is " SANDBOX_VERSION,
                   "Install both from one place.");
  }
  return ok("agent program", program.string() + ", " + version);
}

Check check_directory(const std::string& name, const fs::path& directory) {
  struct stat status {};
  if (::lstat(directory.c_str(), &status) != 0) {
    fs::path above = nearest(directory);
    if (::access(above.c_str(), W_OK | X_OK) != 0) {
      return error(name, directory.string() + " cannot be made: " + above.string() + " is not ours",
                   "Make it writable, or name another place with XDG_STATE_HOME and "
                   "XDG_CONFIG_HOME.");
    }
    return ok(name, directory.string() + ", not there yet");
  }
  if (!S_ISDIR(status.st_mode) || status.st_uid != ::geteuid()) {
    return error(name, directory.string() + " is not a directory of this user",
                 "Move it away, or name another place with XDG_STATE_HOME and XDG_CONFIG_HOME.");
  }
  fs::path probe = directory / (".doctor-" + os::random_hex(16));
  auto written = os::write_file(probe, "");
  ::unlink(probe.c_str());
  if (!written) {
    return error(name, "nothing can be written in it: " + written.error().what,
                 written.error().code == Errc::no_space ? "Free some space on that disk."
                                                        : "chmod u+rwx " + directory.string());
  }
  if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return warning(name, "others can look into " + directory.string(),
                   "chmod 700 " + directory.string());
  }
  return ok(name, directory.string());
}

Check check_storage(const Paths& paths) {
  auto text = os::read_file(paths.storage(), kMostBytes);
  if (!text && text.error().code == Errc::not_found) {
    return ok("storage", "no sandbox on record yet");
  }
  if (!text) {
    return error("storage", text.error().what, "Make that file readable for this user.");
  }
  auto entries = decode_storage(*text);
  if (!entries && entries.error().code == Errc::unsupported) {
    return error("storage", paths.storage().string() + " was written by a newer sandbox",
                 "Update this one, or set SANDBOX_STATE_DIR to another directory.");
  }
  if (!entries) {
    return warning("storage", paths.storage().string() + " is damaged: " + entries.error().what,
                   "The next command keeps it beside and begins a fresh one.");
  }
  return ok("storage", std::to_string(entries->size()) +
                           (entries->size() == 1 ? " sandbox" : " sandboxes") + " on record");
}

Check check_disk(const fs::path& directory) {
  fs::path place = nearest(directory);
  struct statvfs status {};
  if (::statvfs(place.c_str(), &status) != 0) {
    return warning("disk space", "cannot be told for " + place.string(), "");
  }
  std::uint64_t left = static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
  std::string detail =
      show_bytes(static_cast<std::int64_t>(left)) + " left where " + place.string() + " is";
  std::string fix = "Free some space; `sandbox prune` removes sandboxes that nobody uses.";
  if (left < kNoSpace) {
    return error("disk space", detail, fix);
  }
  return left < kLittleSpace ? warning("disk space", detail, fix) : ok("disk space", detail);
}

Check check_key(const Paths& paths) {
  auto key = protocol::ssh::PrivateKey::load(paths.key());
  if (!key && key.error().code == Errc::not_found) {
    return ok("key", "none yet: it is made on first use");
  }
  if (!key) {
    return error("key", "cannot use " + paths.key().string() + ": " + key.error().what,
                 "Move that file away to have a new one made; boxes have to let the new one in.");
  }
  struct stat status {};
  if (::stat(paths.key().c_str(), &status) == 0 && (status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return error("key", "others can read " + paths.key().string(),
                 "chmod 600 " + paths.key().string() +
                     ". If others use this machine, make a new key and take the old one off the "
                     "boxes.");
  }
  return ok("key", key->public_key().fingerprint());
}

Check check_isolation(const Environment& environment, const Paths& paths) {
  std::vector<std::string> argv;
  try {
    argv = {find_agent_program(environment).string(), "probe"};
  } catch (const UserError& missing) {
    return warning("isolation", "cannot be told: " + std::string(missing.what()), missing.next);
  }
  for (const auto& path : exposed_paths(environment, paths)) {
    argv.insert(argv.end(), {"--expose", path.string()});
  }
  auto said = run_program(environment, argv);
  std::string line = said && said->exit.ok() ? last_line(said->out) : "";
  if (line == "isolation bwrap") {
    return ok("isolation", "bubblewrap works");
  }
  const std::string none = "isolation none: ";
  if (!line.starts_with(none)) {
    return warning("isolation", "the agent program cannot tell", "Install both from one place.");
  }
  std::string why = line.substr(none.size());
  return warning("isolation",
                 "commands can do what this user can do, because bubblewrap does not work: " + why,
                 why.find("the package bubblewrap") != std::string::npos
                     ? "Install the package bubblewrap."
                     : "Allow unprivileged user namespaces: kernel.unprivileged_userns_clone=1 "
                       "and, where AppArmor restricts them, "
                       "kernel.apparmor_restrict_unprivileged_userns=0 (sysctl).");
}

}  // namespace cli
