#include "cli/local_agent.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <chrono>

#include "cli/error.h"
#include "protocol/os/paths.h"
#include "protocol/os/process.h"
#include "protocol/os/run.h"
#include "protocol/os/wakeup.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace fs = std::filesystem;
namespace json = boost::json;
namespace os = protocol::os;

namespace {

constexpr std::size_t kMostBytes = 64 * 1024 * 1024;
constexpr int kIdleSeconds = 1800;
constexpr int kAnotherAgent = 75;  // its exit status when one runs already
// An agent that comes back after a crash first ends what its predecessor left running: that takes
// up to 7 s.
constexpr std::chrono::seconds kStartTime{30};
constexpr std::chrono::milliseconds kRestartTime{500};

std::string text_member(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

std::string last_lines(const fs::path& log) {
  auto text = os::read_file(log, kMostBytes);
  if (!text) {
    return {};
  }
  std::string end = text->size() > 600 ? text->substr(text->size() - 600) : *text;
  while (!end.empty() && end.back() == '\n') {
    end.pop_back();
  }
  return end.substr(end.rfind('\n') == std::string::npos ? 0 : end.rfind('\n') + 1);
}

// What an agent of ours listened on last and nobody does now; 0: any port.
std::uint16_t free_port(const fs::path& file) {
  auto text = os::read_file(file, 16);
  auto address = text ? parse_address("127.0.0.1:" + text->substr(0, text->find('\n')))
                      : std::optional<Address>();
  if (!address) {
    return 0;
  }
  os::Fd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  int on = 1;
  ::setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in wanted{};
  wanted.sin_family = AF_INET;
  wanted.sin_port = htons(address->port);
  wanted.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  bool is_free =
      ::bind(probe.get(), reinterpret_cast<const sockaddr*>(&wanted), sizeof wanted) == 0;
  return is_free ? address->port : 0;
}

os::awaitable<void> reap(os::executor executor, os::Process process, std::shared_ptr<int> status) {
  os::ExitStatus exit = co_await process.wait(executor);
  *status = exit.signal != 0 ? 128 + exit.signal : exit.status;
}

}  // namespace

std::optional<AgentAddress> parse_agent_address(std::string_view text) {
  boost::system::error_code error;
  json::value root = json::parse(json::string_view(text.data(), text.size()), error);
  if (error || !root.is_object()) {
    return std::nullopt;
  }
  const json::object& object = root.get_object();
  AgentAddress found;
  auto address = parse_address(text_member(object, "Address"));
  const json::value* pid = object.if_contains("PID");
  found.host_key = text_member(object, "HostKey");
  found.agent = text_member(object, "Agent");
  if (!address || found.host_key.empty() || pid == nullptr || !pid->is_int64() ||
      pid->get_int64() <= 1 || pid->get_int64() > 0x7fffffff) {
    return std::nullopt;
  }
  found.address = *address;
  found.pid = static_cast<int>(pid->get_int64());
  return found;
}

std::optional<AgentAddress> read_agent_address(const fs::path& state) {
  auto text = os::read_file(state / "agent.json", 64 * 1024);
  if (!text) {
    return std::nullopt;
  }
  auto found = parse_agent_address(*text);
  if (found && ::kill(found->pid, 0) != 0 && errno == ESRCH) {
    return std::nullopt;
  }
  return found;
}

fs::path find_agent_program(const Environment& environment) {
  std::vector<fs::path> places = {
      environment.program.parent_path() / kAgentProgram,
      environment.program.parent_path().parent_path() / "libexec" / kAgentProgram};
  std::string path = environment.get("PATH");
  for (std::size_t at = 0; at <= path.size();) {
    std::size_t end = std::min(path.find(':', at), path.size());
    if (end > at && path[at] == '/') {
      places.push_back(fs::path(path.substr(at, end - at)) / kAgentProgram);
    }
    at = end + 1;
  }
  for (const auto& place : places) {
    if (::access(place.c_str(), X_OK) == 0) {
      return place;
    }
  }
  throw UserError(
      "agent",
      "cannot find sandbox-agent: not in " + places[0].parent_path().string() + ", nor in " +
          places[1].parent_path().string() + ", nor on PATH",
      "Install it beside sandbox, or name another machine's agent with --box HOST:PORT.");
}

std::map<std::string, std::string> agent_environment(const Environment& environment) {
  std::map<std::string, std::string> kept;
  for (const auto& [name, value] : environment.variables) {
    bool locale = name == "LANG" || name.compare(0, 3, "LC_") == 0;
    bool ours = name.compare(0, 8, "SANDBOX_") == 0 && name != "SANDBOX_USER";
    bool basic = name == "PATH" || name == "HOME" || name == "USER" || name == "LOGNAME" ||
                 name == "SHELL" || name == "TZ" || name == "TMPDIR" ||
                 name.compare(0, 4, "XDG_") == 0;
    // What sanitizers are told holds for the programs that they are built into.
    bool sanitizer = name == "ASAN_OPTIONS" || name == "UBSAN_OPTIONS" || name == "TSAN_OPTIONS" ||
                     name == "LSAN_OPTIONS";
    if (locale || ours || basic || sanitizer) {
      kept.emplace(name, value);
    }
  }
  return kept;
}

std::vector<fs::path> exposed_paths(const Environment& environment, const Paths& paths) {
  auto beneath = [](const fs::path& path, const fs::path& directory) {
    auto ends = std::mismatch(directory.begin(), directory.end(), path.begin(), path.end());
    return !directory.empty() && ends.first == directory.end();
  };
  std::vector<fs::path> exposed;
  auto add = [&](std::string_view list, const fs::path& within) {
    while (!list.empty()) {
      auto end = std::min(list.find(':'), list.size());
      fs::path path = fs::path(list.substr(0, end)).lexically_normal();
      list.remove_prefix(std::min(end + 1, list.size()));
      if (path.has_relative_path() && path.filename().empty()) {
        path = path.parent_path();
      }
      if (path.is_absolute() && beneath(path, within) && path != within &&
          !beneath(paths.state, path) && !beneath(paths.config, path)) {
        exposed.push_back(path);
      }
    }
  };
  add(environment.get("SANDBOX_EXPOSE"), "/");
  fs::path home = fs::path(environment.get("HOME")).lexically_normal();
  if (home.is_absolute() && home.has_relative_path()) {
    add(environment.get("PATH"), home);
  }
  return exposed;
}

std::vector<std::string> serve_arguments(const fs::path& program, const fs::path& state,
                                         const std::vector<fs::path>& exposed, std::uint16_t port) {
  std::vector<std::string> argv = {program.string(),
                                   "serve",
                                   "--listen",
                                   "127.0.0.1:" + std::to_string(port),
                                   "--state",
                                   state.string(),
                                   "--name",
                                   kLocalBox,
                                   "--slots",
                                   "0",
                                   "--idle-exit",
                                   std::to_string(kIdleSeconds),
                                   "--trust-claimed-users"};
  for (const auto& path : exposed) {
    argv.insert(argv.end(), {"--expose", path.string()});
  }
  return argv;
}

void LocalAgent::start(const protocol::ssh::PublicKey& key) {
  fs::path program = find_agent_program(environment_);
  if (auto made = os::make_private_directory(paths_.agent()); !made) {
    throw UserError("agent", "cannot make the local agent's directory " + made.error().what,
                    "Make the one above it writable, or set SANDBOX_STATE_DIR to one that is.");
  }
  auto authorized = os::read_file(paths_.agent() / "authorized_keys", kMostBytes);
  if (!authorized || authorized->find(key.text()) == std::string::npos) {
    os::Spawn authorize;
    authorize.argv = {
        program.string(),        "authorize", "--state", paths_.agent().string(), "--user",
        user_name(environment_), key.text()};
    authorize.env = agent_environment(environment_);
    authorize.cwd = "/";
    auto output = os::run(std::move(authorize));
    if (!output || !output->exit.ok()) {
      throw UserError("agent", "the local agent does not take this user's key: " +
                                   (output ? protocol::wire::printable(output->err, 600)
                                           : output.error().what));
    }
  }
  launch();
}

void LocalAgent::launch() {
  fs::path program = find_agent_program(environment_);
  os::Fd log_fd(
      ::open(log().c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!log_fd) {
    throw UserError("agent", "cannot write the local agent's log: " +
                                 os::errno_failure(errno, log().string()).what);
  }
  port_ = any_port_ ? 0 : free_port(port_file());
  os::Spawn serve;
  serve.argv = serve_arguments(program, paths_.agent(), exposed_paths(environment_, paths_), port_);
  serve.env = agent_environment(environment_);
  serve.cwd = "/";
  serve.stdout_fd = log_fd.get();
  serve.stderr_fd = log_fd.get();
  serve.new_session = true;
  auto process = os::Process::start(serve);
  if (!process) {
    throw UserError("agent", "cannot start the local agent: " + process.error().what);
  }
  exit_status_ = std::make_shared<int>(-1);
  os::spawn(executor_, "local agent", reap(executor_, std::move(*process), exit_status_));
}

os::awaitable<AgentAddress> LocalAgent::wait(int besides) {
  auto now = [] { return std::chrono::steady_clock::now(); };
  auto deadline = now() + kStartTime;
  auto next_start = now() + kRestartTime;
  auto pause = std::chrono::milliseconds(5);
  for (;;) {
    if (auto found = running(); found && found->pid != besides) {
      // Whoever does not find it there takes any port: nothing depends on it.
      auto noted = os::write_file(port_file(), std::to_string(found->address.port) + "\n");
      static_cast<void>(noted);
      co_return *found;
    }
    bool ended = exit_status_ && *exit_status_ >= 0;
    bool another = ended && *exit_status_ == kAnotherAgent;
    if (ended && !another && port_ != 0) {
      any_port_ = true;  // perhaps somebody took it after we had looked
      launch();
      continue;
    }
    if ((ended && !another) || now() > deadline) {
      std::string why = last_lines(log());
      throw UserError("agent",
                      std::string("the local agent does not ") + (ended ? "run" : "answer") +
                          (why.empty() ? "" : ": " + protocol::wire::printable(why, 600)),
                      "Its log is " + log().string() + ".");
    }
    if (another && now() > next_start) {
      launch();  // the other one was on its way out
      next_start = now() + kRestartTime;
    }
    co_await os::pause(executor_, pause);
    pause = std::min(pause * 2, std::chrono::milliseconds(100));
  }
}

}  // namespace cli
