#include "cli/environment.h"

#include <fcntl.h>
#include <unistd.h>

#include "cli/ci_identity.h"
#include "cli/error.h"
#include "protocol/os/paths.h"

extern char** environ;

namespace cli {
namespace fs = std::filesystem;

namespace {

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

// Holds the number of a closed standard stream. /dev/null is opened the wrong way round, so that
// using it fails.
void occupy(int fd) {
  int opened = ::open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
  if (opened >= 0 && opened != fd) {
    ::dup2(opened, fd);
    ::close(opened);
  }
}

}  // namespace

std::string Environment::get(const std::string& name) const {
  auto found = variables.find(name);
  return found == variables.end() ? std::string() : found->second;
}

Environment process_environment(int argc, char** argv) {
  Environment out;
  out.stdin_open = is_open(0);
  out.stdout_open = is_open(1);
  out.stderr_open = is_open(2);
  for (int fd = 0; fd < 3; ++fd) {
    if (!is_open(fd)) {
      occupy(fd);
    }
  }
  for (int i = 1; i < argc; ++i) {
    out.arguments.emplace_back(argv[i]);
  }
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    std::string text = *variable;
    auto equals = text.find('=');
    if (equals != std::string::npos) {
      out.variables.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
  }
  std::error_code error;
  out.program = fs::read_symlink("/proc/self/exe", error);
  if (error && argc > 0) {
    out.program = fs::weakly_canonical(argv[0], error);
  }
  fs::path directory = fs::current_path(error);
  if (!error) {
    out.directory = directory;
  }
  out.stdin_is_terminal = out.stdin_open && ::isatty(0) == 1;
  out.stdout_is_terminal = ::isatty(1) == 1;
  out.stderr_is_terminal = ::isatty(2) == 1;
  return out;
}

Paths find_paths(const Environment& environment) {
  auto beneath = [](protocol::wire::result<fs::path> base) {
    if (!base) {
      throw UserError("storage",
                      "there is no home directory: HOME is not set, and this user has none",
                      "Set HOME, or XDG_STATE_HOME and XDG_CONFIG_HOME.");
    }
    return *base / "sandbox";
  };
  Paths paths;
  paths.state = environment.get("SANDBOX_STATE_DIR");
  if (!paths.state.empty() && !paths.state.is_absolute()) {
    throw UserError("arguments",
                    "SANDBOX_STATE_DIR is not an absolute path: " + paths.state.string(),
                    "Give it from the root: SANDBOX_STATE_DIR=/some/where.", kMisuse);
  }
  if (paths.state.empty()) {
    paths.state = beneath(protocol::os::state_home(environment.variables));
  }
  paths.config = beneath(protocol::os::config_home(environment.variables));
  return paths;
}

std::string user_name(const Environment& environment) {
  for (const char* name : {"SANDBOX_USER", "USER", "LOGNAME"}) {
    if (std::string value = environment.get(name); !value.empty()) {
      return value;
    }
  }
  return protocol::os::user_name();
}

std::string ci_scope(const Environment& environment) {
  return ci_scope(environment.variables, protocol::os::host_name());
}

std::string machine_id() {
  std::string id = protocol::os::machine_id();
  return id.empty() ? protocol::os::host_name() : id;
}

}  // namespace cli
