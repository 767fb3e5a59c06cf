#include "tests/support/agent_process.h"

#include <fcntl.h>
#include <signal.h>

#include <boost/json.hpp>
#include <fstream>
#include <sstream>
#include <thread>

#include "agent/authorized_keys.h"
#include "protocol/os/fd.h"
#include "protocol/os/paths.h"
#include "protocol/os/run.h"
#include "tests/support/isolation.h"
#include "tests/support/places.h"

namespace test {

namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

template <class T>
T must(wire::result<T> r) {
  if (!r) {
    throw std::runtime_error(std::string(wire::name(r.error().code)) + ": " + r.error().what);
  }
  if constexpr (!std::is_void_v<T>) {
    return std::move(*r);
  }
}

os::Fd open_to_write(const std::filesystem::path& file) {
  return os::Fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
}

}  // namespace

std::string read_text(const std::filesystem::path& file) {
  std::ostringstream text;
  std::ifstream in(file);
  if (in) {
    text << in.rdbuf();
  }
  return text.str();
}

AgentProcess::AgentProcess(std::vector<std::string> more_options)
    : options_(std::move(more_options)),
      key_(must(protocol::ssh::PrivateKey::load_or_make(directory_ / "key", "ann"))) {
  must(os::make_private_directory(state()));
  must(agent::authorize_key(state() / "authorized_keys", key_.public_key().text(), "ann"));
}

AgentProcess::~AgentProcess() {
  if (process_) {
    (void)process_->kill(SIGKILL);
    process_->wait_blocking();
  }
  std::error_code ignored;
  for (const auto& sandbox : std::filesystem::directory_iterator(state() / "sandboxes", ignored)) {
    boost::system::error_code error;
    auto record = boost::json::parse(read_text(sandbox.path() / "supervisor.json"), error);
    if (!error && record.is_object() && record.as_object().contains("pid")) {
      // With its jobs, and in order.
      ::kill(static_cast<pid_t>(record.at("pid").to_number<std::int64_t>()), SIGTERM);
    }
  }
}

void AgentProcess::start() {
  std::error_code ignored;
  std::filesystem::remove(state() / "agent.json", ignored);
  os::Fd log_file = open_to_write(directory_ / "agent.log");
  os::Spawn spawn;
  spawn.argv = {SANDBOX_BIN_DIR "/sandbox-agent",
                "serve",
                "--state",
                state().string(),
                "--name",
                "box",
                "--listen",
                "127.0.0.1:0"};
  // One that a test gives comes later, and counts.
  auto isolation = isolation_options();
  spawn.argv.insert(spawn.argv.end(), isolation.begin(), isolation.end());
  spawn.argv.insert(spawn.argv.end(), options_.begin(), options_.end());
  spawn.stderr_fd = log_file.get();
  process_ = must(os::Process::start(spawn));
  until([&] { return std::filesystem::exists(state() / "agent.json"); });
  auto self = boost::json::parse(read_text(state() / "agent.json"));
  std::string address(self.at("Address").as_string());
  port_ = static_cast<std::uint16_t>(std::stoul(address.substr(address.rfind(':') + 1)));
}

void AgentProcess::kill(int signal) { must(process_->kill(signal)); }

int AgentProcess::wait() {
  auto exit = process_->wait_blocking();
  process_.reset();
  return exit.signal != 0 ? 128 + exit.signal : exit.status;
}

SessionClient AgentProcess::session(const std::string& user) {
  return SessionClient(loop, connect_to_agent(loop, port_, key_, user));
}

std::vector<std::string> AgentProcess::ssh_arguments(const std::string& user,
                                                     std::vector<std::string> options) const {
  std::vector<std::string> argv{"ssh",
                                "-F",
                                "/dev/null",
                                "-i",
                                (directory_ / "key").string(),
                                "-o",
                                "IdentitiesOnly=yes",
                                "-o",
                                "BatchMode=yes",
                                "-o",
                                "LogLevel=ERROR",
                                "-o",
                                "StrictHostKeyChecking=no",
                                "-o",
                                "UserKnownHostsFile=" + (directory_ / "known_hosts").string(),
                                "-p",
                                std::to_string(port_)};
  argv.insert(argv.end(), options.begin(), options.end());
  argv.push_back(user + "@127.0.0.1");
  return argv;
}

os::Output AgentProcess::ssh(const std::string& command, const std::string& input,
                             const std::string& user, std::vector<std::string> options) {
  os::Spawn spawn;
  spawn.argv = ssh_arguments(user, std::move(options));
  if (!command.empty()) {
    spawn.argv.push_back(command);
  }
  return must(os::run(spawn, input));
}

os::Process AgentProcess::ssh_beside(const std::string& command, const std::filesystem::path& out,
                                     std::vector<std::string> options) {
  os::Fd out_file = open_to_write(out);
  os::Fd err_file = open_to_write(out.string() + ".err");
  os::Spawn spawn;
  spawn.argv = ssh_arguments("sandbox", std::move(options));
  spawn.argv.push_back(command);
  spawn.stdout_fd = out_file.get();
  spawn.stderr_fd = err_file.get();
  return must(os::Process::start(spawn));
}

std::string AgentProcess::log() const { return read_text(directory_ / "agent.log"); }

void AgentProcess::until(const std::function<bool()>& condition) {
  auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > limit) {
      throw std::runtime_error("it did not come true; the agent said:\n" + log());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace test
