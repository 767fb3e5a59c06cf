#include "protocol/os/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <mutex>

#include "protocol/os/child_end.h"
#include "protocol/os/descriptor_limit.h"
#include "protocol/os/own_children.h"
#include "protocol/os/wakeup.h"

extern char** environ;

namespace protocol::os {

using wire::Errc;
using wire::Failure;

namespace {

// argv and environ as the C calls want them; the strings must live on.
std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + 1);
  for (const std::string& s : strings) out.push_back(const_cast<char*>(s.c_str()));
  out.push_back(nullptr);
  return out;
}

std::string search_path(const Spawn& spawn) {
  constexpr const char* kDefault = "/usr/local/bin:/usr/bin:/bin";
  if (spawn.env) {
    auto found = spawn.env->find("PATH");
    return found == spawn.env->end() ? kDefault : found->second;
  }
  const char* inherited = ::getenv("PATH");
  return inherited ? inherited : kDefault;
}

// A file that could be executed; errno says why not.
bool is_executable(const std::string& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) return false;
  if (!S_ISREG(status.st_mode)) {
    errno = EACCES;
    return false;
  }
  return ::access(path.c_str(), X_OK) == 0;
}

// posix_spawn's two attribute objects, destroyed whatever happens.
struct SpawnAttributes {
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
  SpawnAttributes() {
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_init(&actions);
  }
  ~SpawnAttributes() {
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
  }
  SpawnAttributes(const SpawnAttributes&) = delete;
  SpawnAttributes& operator=(const SpawnAttributes&) = delete;
};

// A copy of `first` or above, so that no dup2 in the child overwrites what a later one needs.
result<int> clear_of(int first, int fd, std::vector<Fd>& copies) {
  if (fd >= first || fd < 0) return fd;
  Fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, first));
  if (!copy) return errno_failure(errno, "a descriptor for a program");
  copies.push_back(std::move(copy));
  return copies.back().get();
}

ExitStatus decode(int wait_status) {
  ExitStatus exit;
  if (WIFSIGNALED(wait_status)) {
    exit.signal = WTERMSIG(wait_status);
#ifdef WCOREDUMP
    exit.core_dumped = WCOREDUMP(wait_status);
#endif
  } else {
    exit.status = WEXITSTATUS(wait_status);
  }
  return exit;
}

}  // namespace

result<std::string> find_program(const Spawn& spawn) {
  if (spawn.argv.empty() || spawn.argv[0].empty())
    return Failure(Errc::not_found, "an empty command");
  const std::string& program = spawn.argv[0];
  if (program.find('/') != std::string::npos) return program;
  std::string path = search_path(spawn);
  bool denied = false;
  for (std::size_t begin = 0; begin <= path.size();) {
    std::size_t end = std::min(path.find(':', begin), path.size());
    std::string directory = path.substr(begin, end - begin);
    begin = end + 1;
    if (directory.empty()) directory = ".";
    std::string candidate = directory + "/" + program;
    std::string here =
        directory[0] == '/' || spawn.cwd.empty() ? candidate : spawn.cwd + "/" + candidate;
    if (is_executable(here)) return candidate;
    if (errno == EACCES) denied = true;
  }
  if (denied) return Failure(Errc::denied, program + ": Permission denied");
  return Failure(Errc::not_found, program + ": command not found");
}

Failure become(const std::string& program, const std::vector<std::string>& argv) {
  auto words = pointers(argv);
  ::execv(program.c_str(), words.data());
  if (errno == ENOEXEC) {
    std::vector<std::string> script = {"/bin/sh", program};
    script.insert(script.end(), argv.begin() + 1, argv.end());
    words = pointers(script);
    ::execv("/bin/sh", words.data());
  }
  return errno_failure(errno, program);
}

struct Process::State {
  pid_t pid = -1;
  std::optional<ExitStatus> reaped;

  ~State() {
    if (reaped || pid < 0) return;
    std::lock_guard lock(own_children().mutex);
    own_children().pids.erase(pid);
  }

  // Reaps when it has ended, or waits until then.
  std::optional<ExitStatus> reap(int options) {
    if (reaped) return reaped;
    int status = 0;
    pid_t got;
    do got = ::waitpid(pid, &status, options);
    while (got < 0 && errno == EINTR);
    if (got == 0) return std::nullopt;
    // ECHILD: somebody else's waitpid took it; that it ended is all we know.
    reaped = got == pid ? decode(status) : ExitStatus{255, 0, false};
    std::lock_guard lock(own_children().mutex);
    own_children().pids.erase(pid);
    return reaped;
  }

  bool has_ended() const { return reaped || child_has_ended(pid); }

  static awaitable<void> exited(std::shared_ptr<State> self, executor ex) {
    namespace asio = boost::asio;
    if (self->has_ended()) co_return;
    Fd pidfd = open_pidfd(self->pid);
    if (pidfd) {
      asio::posix::stream_descriptor descriptor(ex);
      boost::system::error_code error;
      descriptor.assign(pidfd.get(), error);
      if (!error) {
        pidfd.release();
        co_await descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                       asio::as_tuple(asio::use_awaitable));
      }
    }
    // Without a pidfd (an old kernel, valgrind, another system): look again and again.
    std::chrono::milliseconds interval{1};
    while (!self->has_ended()) {
      co_await pause(ex, interval);
      interval = std::min(interval * 2, std::chrono::milliseconds(50));
    }
  }
};

Process::Process(std::shared_ptr<State> state) : state_(std::move(state)) {}
Process::Process(Process&&) noexcept = default;
Process& Process::operator=(Process&&) noexcept = default;
Process::~Process() = default;
void Process::set_portable(bool portable) { set_portable_waits(portable); }

result<Process> Process::start(const Spawn& spawn) {
  assert(spawn.terminal.empty() || spawn.new_session);
  if (!spawn.cwd.empty()) {
    struct stat status;
    if (::stat(spawn.cwd.c_str(), &status) != 0) return errno_failure(errno, spawn.cwd);
    if (!S_ISDIR(status.st_mode)) return errno_failure(ENOTDIR, spawn.cwd);
  }
  auto program = find_program(spawn);
  if (!program) return program.error();

  SpawnAttributes attributes;
  sigset_t all, none;
  ::sigfillset(&all);
  ::sigemptyset(&none);
  ::posix_spawnattr_setsigdefault(&attributes.attributes, &all);
  ::posix_spawnattr_setsigmask(&attributes.attributes, &none);
  short flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
  if (spawn.new_session) flags |= POSIX_SPAWN_SETSID;
  if (spawn.new_group && !spawn.new_session) flags |= POSIX_SPAWN_SETPGROUP;
#ifdef POSIX_SPAWN_CLOEXEC_DEFAULT
  flags |= POSIX_SPAWN_CLOEXEC_DEFAULT;
#endif
  ::posix_spawnattr_setflags(&attributes.attributes, flags);

  auto* actions = &attributes.actions;
  std::vector<Fd> copies;
  const int first_closed = 3 + static_cast<int>(spawn.pass_fds.size());
  if (!spawn.terminal.empty()) {
    // The first terminal that a session leader opens becomes its controlling one.
    ::posix_spawn_file_actions_addopen(actions, 0, spawn.terminal.c_str(), O_RDWR, 0);
    ::posix_spawn_file_actions_adddup2(actions, 0, 1);
    ::posix_spawn_file_actions_adddup2(actions, 0, 2);
  } else {
    int wanted[3] = {spawn.stdin_fd, spawn.stdout_fd, spawn.stderr_fd < 0 ? 2 : spawn.stderr_fd};
    for (int target = 0; target < 3; ++target) {
      auto source = clear_of(first_closed, wanted[target], copies);
      if (!source) return source.error();
      if (*source < 0)
        ::posix_spawn_file_actions_addopen(actions, target, "/dev/null",
                                           target == 0 ? O_RDONLY : O_WRONLY, 0);
      else
        ::posix_spawn_file_actions_adddup2(actions, *source, target);
    }
  }
  for (std::size_t i = 0; i < spawn.pass_fds.size(); ++i) {
    auto source = clear_of(first_closed, spawn.pass_fds[i], copies);
    if (!source) return source.error();
    ::posix_spawn_file_actions_adddup2(actions, *source, 3 + static_cast<int>(i));
  }
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
  ::posix_spawn_file_actions_addclosefrom_np(actions, first_closed);
#endif
  if (!spawn.cwd.empty()) ::posix_spawn_file_actions_addchdir_np(actions, spawn.cwd.c_str());

  std::vector<std::string> environment;
  if (spawn.env)
    for (const auto& [key, value] : *spawn.env) environment.push_back(key + "=" + value);
  auto argv = pointers(spawn.argv);
  auto envp = pointers(environment);

  auto state = std::make_shared<State>();
  int error;
  {
    std::lock_guard lock(own_children().mutex);
    ChildDescriptorLimit limit;
    char** env = spawn.env ? envp.data() : environ;
    error = ::posix_spawn(&state->pid, program->c_str(), actions, &attributes.attributes,
                          argv.data(), env);
    if (error == ENOEXEC) {
      std::vector<std::string> script = {"/bin/sh", *program};
      script.insert(script.end(), spawn.argv.begin() + 1, spawn.argv.end());
      argv = pointers(script);
      error =
          ::posix_spawn(&state->pid, "/bin/sh", actions, &attributes.attributes, argv.data(), env);
    }
    if (error == 0) own_children().pids.insert(state->pid);
  }
  if (error != 0) {
    state->pid = -1;
    return errno_failure(error, spawn.argv[0]);
  }
  return Process(std::move(state));
}

pid_t Process::pid() const { return state_->pid; }

result<void> Process::kill(int signal) {
  if (state_->reaped) return Failure(Errc::gone, "the process");
  if (::kill(state_->pid, signal) != 0) return errno_failure(errno, "kill");
  return {};
}

result<void> Process::kill_group(int signal) {
  if (state_->reaped) return Failure(Errc::gone, "the process");
  if (::kill(-state_->pid, signal) != 0) return errno_failure(errno, "kill");
  return {};
}

ExitStatus Process::wait_blocking() { return *state_->reap(0); }
ExitStatus Process::reap() { return *state_->reap(0); }
awaitable<void> Process::exited(executor ex) { return State::exited(state_, std::move(ex)); }

awaitable<ExitStatus> Process::wait(executor ex) {
  auto state = state_;
  co_await State::exited(state, std::move(ex));
  co_return *state->reap(0);
}

}  // namespace protocol::os
