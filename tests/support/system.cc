#include "tests/support/system.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "protocol/os/paths.h"
#include "tests/support/isolation.h"
#include "tests/support/places.h"

namespace test {
namespace fs = std::filesystem;
namespace os = protocol::os;

bool eventually(const std::function<bool()>& what, std::chrono::milliseconds limit) {
  auto deadline = std::chrono::steady_clock::now() + limit;
  for (;;) {
    if (what()) {
      return true;
    }
    if (std::chrono::steady_clock::now() > deadline) {
      return false;
    }
    ::poll(nullptr, 0, 10);
  }
}

std::string file_text(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

void write_text(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

Running::Running(os::Process process, fs::path out, fs::path error, os::Fd input,
                 std::optional<os::Pty> terminal)
    : process_(std::make_unique<os::Process>(std::move(process))),
      out_(std::move(out)),
      error_(std::move(error)),
      input_(std::move(input)),
      terminal_(std::move(terminal)) {}

Running::~Running() {
  if (process_ && !reaped_) {
    static_cast<void>(process_->kill(SIGKILL));
    process_->wait_blocking();
  }
}

void Running::signal(int number) { static_cast<void>(process_->kill(number)); }

void Running::type(const std::string& text) {
  int fd = terminal_ ? terminal_->master.get() : input_.get();
  if (::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw std::runtime_error("cannot type");
  }
}

void Running::resize(os::WindowSize size) {
  os::set_window(terminal_->master.get(), size);
  signal(SIGWINCH);
}

void Running::drain() {
  if (!terminal_) {
    return;
  }
  char buffer[4096];
  pollfd ready{terminal_->master.get(), POLLIN, 0};
  while (::poll(&ready, 1, 0) == 1) {
    ssize_t got = ::read(ready.fd, buffer, sizeof buffer);
    if (got <= 0) {
      return;
    }
    typed_back_.append(buffer, static_cast<std::size_t>(got));
  }
}

std::string Running::out() {
  drain();
  return terminal_ ? typed_back_ : file_text(out_);
}

std::string Running::err() { return terminal_ ? std::string() : file_text(error_); }

bool Running::out_has(const std::string& text) {
  return eventually([&] { return out().find(text) != std::string::npos; });
}

bool Running::err_has(const std::string& text) {
  return eventually([&] { return err().find(text) != std::string::npos; });
}

Ended Running::wait(std::chrono::seconds limit) {
  Ended ended;
  siginfo_t info{};
  bool over = eventually(
      [&] {
        drain();
        info.si_pid = 0;
        return ::waitid(P_PID, static_cast<id_t>(pid()), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
               info.si_pid != 0;
      },
      limit);
  if (over) {
    os::ExitStatus exit = process_->wait_blocking();
    reaped_ = true;
    ended.status = exit.signal != 0 ? 128 + exit.signal : exit.status;
  }
  ended.out = out();
  ended.err = err();
  return ended;
}

Machine::Machine() {
  std::string name = "/tmp/sbx-XXXXXX";  // short: sockets have to fit beneath it
  if (::mkdtemp(name.data()) == nullptr) {
    throw std::runtime_error("mkdtemp failed");
  }
  root_ = name;
  fs::create_directories(home());
  fs::create_directories(project());
  for (const char* kept :
       {"PATH", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS"}) {
    if (const char* value = std::getenv(kept); value != nullptr) {
      environment[kept] = value;
    }
  }
  environment["HOME"] = home().string();
  environment["USER"] = "tester";
  environment["XDG_STATE_HOME"] = (root_ / "state").string();
  environment["XDG_CONFIG_HOME"] = (root_ / "config").string();
  environment["TERM"] = "xterm";
  environment["SANDBOX_ISOLATION"] = isolation_under_test();
}

Machine::~Machine() {
  bool failed = std::uncaught_exceptions() > 0;
  pid_t agent = agent_pid();
  if (agent != 0) {
    try {
      How anywhere;
      anywhere.directory = root_;
      run({"stop", "--all", "--force"}, anywhere);
    } catch (const std::exception&) {
      failed = true;
    }
    agent = agent_pid();
  }
  if (agent != 0) {
    ::kill(agent, SIGTERM);
    if (!eventually([agent] { return ::kill(agent, 0) != 0; }, std::chrono::seconds(15))) {
      ::kill(agent, SIGKILL);
    }
  }
  // Supervisors of sandboxes that stop did not know of.
  std::error_code error;
  for (const auto& sandbox : fs::directory_iterator(state() / "agent/sandboxes", error)) {
    boost::system::error_code bad;
    auto value = boost::json::parse(file_text(sandbox.path() / "supervisor.json"), bad);
    if (!bad && value.is_object() && value.get_object().contains("pid") &&
        value.at("pid").is_int64()) {
      ::kill(static_cast<pid_t>(value.at("pid").get_int64()), SIGKILL);
    }
  }
  if (!failed) {
    fs::remove_all(root_, error);
  }
}

Running Machine::start_program(const Words& argv, const How& how) {
  fs::path out = root_ / ("out" + std::to_string(++files_));
  fs::path error = root_ / ("err" + std::to_string(files_));
  os::Fd out_fd(::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
  os::Fd error_fd(::open(error.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
  os::Spawn spawn;
  spawn.argv = argv;
  spawn.env = environment;
  for (const auto& [name, value] : how.environment) {
    if (value.empty()) {
      spawn.env->erase(name);
    } else {
      (*spawn.env)[name] = value;
    }
  }
  spawn.cwd = how.directory.empty() ? project().string() : how.directory.string();
  os::Fd keep_open, in_fd;
  std::optional<os::Pty> terminal;
  if (how.terminal) {
    auto opened = os::open_pty({30, 100});
    if (!opened) {
      throw std::runtime_error("no terminal: " + opened.error().what);
    }
    terminal = std::move(*opened);
    spawn.terminal = terminal->path;
    spawn.new_session = true;
  } else {
    spawn.stdout_fd = out_fd.get();
    spawn.stderr_fd = error_fd.get();
    if (!how.null_input) {
      auto pipe = os::make_pipe();
      in_fd = std::move(pipe->read);
      keep_open = std::move(pipe->write);
      spawn.stdin_fd = in_fd.get();
    }
  }
  auto process = os::Process::start(spawn);
  if (!process) {
    throw std::runtime_error("cannot start " + argv.front() + ": " + process.error().what);
  }
  if (terminal) {
    terminal->slave.reset();
  }
  in_fd.reset();
  if (!how.input.empty()) {
    ::signal(SIGPIPE, SIG_IGN);
    std::thread([input = how.input, fd = keep_open.release()] {
      for (std::string_view left = input; !left.empty();) {
        ssize_t count = ::write(fd, left.data(), left.size());
        if (count <= 0) {
          break;
        }
        left.remove_prefix(static_cast<std::size_t>(count));
      }
      ::close(fd);
    }).detach();
  } else if (!how.input_stays_open) {
    keep_open.reset();
  }
  return Running(std::move(*process), out, error, std::move(keep_open), std::move(terminal));
}

Ended Machine::run_program(const Words& argv, const How& how) {
  return start_program(argv, how).wait();
}

Running Machine::start(const Words& arguments, const How& how) {
  Words argv = {SANDBOX_BIN_DIR "/sandbox"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return start_program(argv, how);
}

Ended Machine::run(const Words& arguments, const How& how) { return start(arguments, how).wait(); }

Ended Machine::exec(const std::string& script, const How& how) {
  return run({"exec", "--", "sh", "-c", script}, how);
}

Ended Machine::git(const Words& arguments) {
  Words argv = {
      "git", "-c", "user.name=n", "-c", "user.email=e@x", "-c", "init.defaultBranch=main"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return run_program(argv);
}

void Machine::make_repository() {
  git({"init", "-q"});
  write_text(project() / "f", "committed\n");
  git({"add", "f"});
  git({"commit", "-q", "-m", "one"});
}

pid_t Machine::agent_pid() const {
  boost::system::error_code error;
  auto value = boost::json::parse(file_text(state() / "agent/agent.json"), error);
  if (error || !value.is_object() || !value.get_object().contains("PID")) {
    return 0;
  }
  pid_t pid = static_cast<pid_t>(value.at("PID").to_number<std::int64_t>());
  return pid > 1 && ::kill(pid, 0) == 0 ? pid : 0;
}

std::size_t sandbox_count(const std::string& list_json) {
  return boost::json::parse(list_json).at("Sandboxes").as_array().size();
}

}  // namespace test
