#include "tests/support/shared_box.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdlib>
#include <exception>
#include <stdexcept>

#include "protocol/os/run.h"
#include "tests/support/isolation.h"
#include "tests/support/places.h"

namespace test {
namespace fs = std::filesystem;
namespace os = protocol::os;

namespace {

constexpr const char* kAgent = SANDBOX_BIN_DIR "/sandbox-agent";

std::string agent_member(const fs::path& state, const char* name) {
  boost::system::error_code error;
  auto value = boost::json::parse(file_text(state / "agent.json"), error);
  if (error || !value.is_object() || !value.get_object().contains(name) ||
      !value.at(name).is_string()) {
    return {};
  }
  return std::string(value.at(name).get_string());
}

os::Output run_to_end(os::Spawn spawn) {
  auto output = os::run(std::move(spawn));
  if (!output || !output->exit.ok()) {
    throw std::runtime_error("a helper of the test failed: " +
                             (output ? output->err : output.error().what));
  }
  return *output;
}

}  // namespace

SharedBox::SharedBox(std::string name, Words more_options,
                     std::map<std::string, std::string> environment)
    : name_(std::move(name)),
      options_(std::move(more_options)),
      environment_(std::move(environment)) {
  std::string directory = "/tmp/sbb-XXXXXX";  // short: sockets have to fit beneath it
  if (::mkdtemp(directory.data()) == nullptr) {
    throw std::runtime_error("mkdtemp failed");
  }
  root_ = directory;
  for (const char* kept :
       {"PATH", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS"}) {
    if (const char* value = std::getenv(kept); value != nullptr) {
      environment_.emplace(kept, value);
    }
  }
  fs::create_directories(root_ / "home");
  environment_["HOME"] = (root_ / "home").string();
  start();
}

SharedBox::~SharedBox() {
  if (process_) {
    end(SIGTERM);
  }
  std::error_code error;
  for (const auto& sandbox : fs::directory_iterator(state() / "sandboxes", error)) {
    boost::system::error_code bad;
    auto value = boost::json::parse(file_text(sandbox.path() / "supervisor.json"), bad);
    if (!bad && value.is_object() && value.get_object().contains("pid") &&
        value.at("pid").is_int64()) {
      ::kill(static_cast<pid_t>(value.at("pid").get_int64()), SIGTERM);
    }
  }
  if (std::uncaught_exceptions() == 0) {
    eventually(
        [this] {
          std::error_code busy;
          fs::remove_all(root_, busy);  // supervisors write until they have ended
          return !fs::exists(root_);
        },
        std::chrono::seconds(15));
  }
}

void SharedBox::start() {
  std::error_code ignored;
  fs::remove(state() / "agent.json", ignored);
  fs::path log = root_ / "agent.log";
  os::Fd log_fd(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  os::Spawn serve;
  serve.argv = {kAgent,   "serve", "--state",  state().string(),
                "--name", name_,   "--listen", "127.0.0.1:" + port_};
  for (const auto& options : {isolation_options(), options_}) {
    serve.argv.insert(serve.argv.end(), options.begin(), options.end());
  }
  serve.env = environment_;
  serve.cwd = "/";
  serve.stderr_fd = log_fd.get();
  auto process = os::Process::start(serve);
  if (!process) {
    throw std::runtime_error("no agent: " + process.error().what);
  }
  process_ = std::move(*process);
  if (!eventually([this] { return !agent_member(state(), "Address").empty(); })) {
    throw std::runtime_error("the agent does not listen:\n" + file_text(log));
  }
  std::string listens = agent_member(state(), "Address");
  port_ = listens.substr(listens.rfind(':') + 1);
}

void SharedBox::end(int signal) {
  static_cast<void>(process_->kill(signal));
  process_->wait_blocking();
  process_.reset();
}

std::string SharedBox::host_key() const { return agent_member(state(), "HostKey"); }

void SharedBox::authorize(Machine& machine, const std::string& user) {
  std::string key = machine.run({"key"}).out;
  os::Spawn authorize;
  authorize.argv = {kAgent,
                    "authorize",
                    "--state",
                    state().string(),
                    "--user",
                    user,
                    key.substr(0, key.find('\n'))};
  authorize.env = environment_;
  authorize.cwd = "/";
  run_to_end(authorize);
}

void SharedBox::introduce(Machine& machine, const std::string& user) {
  authorize(machine, user);
  auto added = machine.run({"boxes", "add", "--name", name_, "--host", address()});
  if (added.status != 0) {
    throw std::runtime_error("boxes add failed: " + added.err);
  }
}

}  // namespace test
