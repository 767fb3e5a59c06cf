#include "agent/supervisor/job_starter.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <thread>

namespace agent::supervisor {

namespace fs = std::filesystem;
namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::result;

namespace {

// Asked for in the first user namespace alone, so in here it gives no power.
constexpr int kMark = CAP_WAKE_ALARM;

// Of this thread: no capability but `kept`, which children inherit, and none to be had again.
result<void> keep_capability(std::optional<int> kept) {
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability)
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0)
      return os::errno_failure(errno, "dropping capabilities");
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data = {};
  if (kept) {
    auto& word = data[static_cast<std::size_t>(CAP_TO_INDEX(*kept))];
    word.effective = word.permitted = word.inheritable = CAP_TO_MASK(*kept);
  }
  if (::syscall(SYS_capset, &header, data.data()) != 0)
    return os::errno_failure(errno, "giving capabilities up");
  if (kept && ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, *kept, 0, 0) != 0)
    return os::errno_failure(errno, "keeping a capability");
  return {};
}

// Best effort: what older kernels lack, they leave open (README, limits).
void scope_sockets_and_signals() {
#ifdef SYS_landlock_create_ruleset
  struct {
    std::uint64_t files = 0, network = 0;
    std::uint64_t scoped = 1 | 2;  // abstract unix sockets, signals
  } rules;
  auto ruleset =
      os::Fd(static_cast<int>(::syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0)));
  if (ruleset) (void)::syscall(SYS_landlock_restrict_self, ruleset.get(), 0);
#endif
}

constexpr unsigned long kHarmless = MS_NOSUID | MS_NODEV | MS_NOEXEC;

// An empty place, but for what was there already.
result<void> cover(const fs::path& place, const fs::path& readable) {
  os::Fd kept(::open(readable.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!kept) return os::errno_failure(errno, readable.native());
  if (::mount("none", place.c_str(), "tmpfs", kHarmless, "size=4k,mode=0755") != 0)
    return os::errno_failure(errno, place.native());
  std::error_code error;
  fs::create_directories(readable, error);
  if (error) return os::errno_failure(error.value(), readable.native());
  std::string source = "/proc/self/fd/" + std::to_string(kept.get());
  constexpr unsigned long kReadOnly = MS_REMOUNT | MS_BIND | MS_RDONLY | kHarmless;
  if (::mount(source.c_str(), readable.c_str(), nullptr, MS_BIND, nullptr) != 0 ||
      ::mount(nullptr, readable.c_str(), nullptr, kReadOnly, nullptr) != 0)
    return os::errno_failure(errno, readable.native());
  if (::mount(nullptr, place.c_str(), nullptr, kReadOnly, nullptr) != 0)
    return os::errno_failure(errno, place.native());
  return {};
}

// Of this thread, and what is started from it.
result<void> shut_off(const fs::path& place, const fs::path& readable) {
  if (::unshare(CLONE_NEWNS) != 0) return os::errno_failure(errno, "a mount namespace for jobs");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return os::errno_failure(errno, "a private mount namespace");
  if (auto covered = cover(place, readable); !covered) return covered;
#ifdef SYS_keyctl
  // Not the keys of whoever started the agent. 1: KEYCTL_JOIN_SESSION_KEYRING, a new one.
  (void)::syscall(SYS_keyctl, 1, nullptr);
#endif
  scope_sockets_and_signals();
  return keep_capability(std::nullopt);
}

}  // namespace

struct JobStarter::State {
  std::mutex mutex;
  std::condition_variable changed;
  const os::Spawn* wanted = nullptr;  // until it is started
  std::optional<result<os::Process>> started;
  std::optional<result<void>> shut;
  bool over = false;
  std::thread thread;

  void run(const fs::path& place, const fs::path& readable) {
    auto done = shut_off(place, readable);
    std::unique_lock lock(mutex);
    shut = done;
    changed.notify_all();
    while (done) {
      changed.wait(lock, [&] { return over || wanted; });
      if (over) return;
      started = os::Process::start(*wanted);
      wanted = nullptr;
      changed.notify_all();
    }
  }
};

JobStarter::JobStarter(std::unique_ptr<State> state) : state_(std::move(state)) {}

JobStarter::~JobStarter() {
  {
    std::lock_guard lock(state_->mutex);
    state_->over = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
}

result<std::unique_ptr<JobStarter>> JobStarter::make(const fs::path& place,
                                                     const fs::path& readable) {
  // Before there is anything to be looked at, and anybody to look.
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
    return os::errno_failure(errno, "keeping jobs out of this process");
  std::unique_ptr<JobStarter> made(new JobStarter(std::make_unique<State>()));
  State& state = *made->state_;
  state.thread = std::thread([&state, place, readable] { state.run(place, readable); });
  {
    std::unique_lock lock(state.mutex);
    state.changed.wait(lock, [&] { return state.shut.has_value(); });
  }
  if (!*state.shut) return state.shut->error();
  if (auto kept = keep_capability(kMark); !kept) return kept.error();
  return made;
}

result<os::Process> JobStarter::start(const os::Spawn& spawn) {
  std::unique_lock lock(state_->mutex);
  state_->wanted = &spawn;
  state_->changed.notify_all();
  state_->changed.wait(lock, [&] { return state_->started.has_value(); });
  auto process = std::move(*state_->started);
  state_->started.reset();
  return process;
}

}  // namespace agent::supervisor
