#include "protocol/os/limits.h"

#ifdef __linux__
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#endif

#include <array>
#include <cerrno>
#include <cstddef>
#include <fstream>

#include "protocol/os/fd.h"

namespace protocol::os {

using wire::Errc;
using wire::Failure;
using wire::result;

std::vector<std::string> limit_options(const ProcessLimits& limits) {
  std::vector<std::string> words;
  auto add = [&words](const char* option, std::string value) {
    words.emplace_back(option);
    words.push_back(std::move(value));
  };
  if (!limits.cgroup.empty()) add("--cgroup", limits.cgroup.native());
  if (limits.memory > 0) add("--memory", std::to_string(limits.memory));
  if (limits.pids > 0) add("--pids", std::to_string(limits.pids));
  for (int cpu : limits.cpus) add("--cpu", std::to_string(cpu));
  return words;
}

#ifdef __linux__

namespace {

// Soft and hard, and never more than there was.
template <class Resource>
result<void> lower(Resource resource, std::int64_t value, const char* what) {
  rlimit limit = {};
  if (::getrlimit(resource, &limit) != 0) return errno_failure(errno, what);
  auto wanted = static_cast<rlim_t>(value);
  if (limit.rlim_max == RLIM_INFINITY || wanted < limit.rlim_max) limit.rlim_max = wanted;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(resource, &limit) != 0) return errno_failure(errno, what);
  return {};
}

sock_filter instruction(int code, std::size_t value, int if_true = 0, int if_false = 0) {
  return {static_cast<std::uint16_t>(code), static_cast<std::uint8_t>(if_true),
          static_cast<std::uint8_t>(if_false), static_cast<std::uint32_t>(value)};
}

// Whoever is to run on some processors could ask for the others. From now on it is told EPERM.
result<void> refuse_other_cpus() {
#if defined(__x86_64__)
  constexpr std::uint32_t kSecondArchitecture = AUDIT_ARCH_I386;
#elif defined(__aarch64__)
  constexpr std::uint32_t kSecondArchitecture = AUDIT_ARCH_ARM;
#else
  return Failure(Errc::unsupported, "a limit of processors, on this kind of machine");
#endif
#if defined(__x86_64__) || defined(__aarch64__)
  constexpr std::uint32_t kSecondNumber = 241;  // of the same call, on either
  constexpr std::uint32_t kX32 = 0x40000000;    // what x32 adds to its numbers
  std::array<sock_filter, 9> program = {
      instruction(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      instruction(BPF_JMP | BPF_JEQ | BPF_K, kSecondArchitecture, 3, 0),
      instruction(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      instruction(BPF_ALU | BPF_AND | BPF_K, ~kX32),
      instruction(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_setaffinity, 2, 3),
      instruction(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      instruction(BPF_JMP | BPF_JEQ | BPF_K, kSecondNumber, 0, 1),
      instruction(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog filter = {static_cast<unsigned short>(program.size()), program.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) != 0)
    return errno_failure(errno, "a limit of processors");
  return {};
#endif
}

}  // namespace

result<void> take_on(const ProcessLimits& limits) {
  if (!limits.cgroup.empty()) {
    std::ofstream file(limits.cgroup / "cgroup.procs");
    file << "0" << std::flush;
    if (!file) return Failure(Errc::denied, "the control group " + limits.cgroup.native());
  }
  if (limits.memory > 0)
    if (auto set = lower(RLIMIT_AS, limits.memory, "a limit of memory"); !set) return set;
  if (limits.pids > 0)
    if (auto set = lower(RLIMIT_NPROC, limits.pids, "a limit of processes"); !set) return set;
  if (limits.cpus.empty()) return {};
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  for (int cpu : limits.cpus) CPU_SET(static_cast<std::size_t>(cpu), &cpus);
  if (::sched_setaffinity(0, sizeof cpus, &cpus) != 0)
    return errno_failure(errno, "a limit of processors");
  return refuse_other_cpus();
}

std::vector<int> usable_cpus() {
  std::vector<int> usable;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (::sched_getaffinity(0, sizeof cpus, &cpus) != 0) return usable;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(static_cast<std::size_t>(cpu), &cpus)) usable.push_back(cpu);
  return usable;
}

#else

result<void> take_on(const ProcessLimits& limits) {
  if (limits.any()) return Failure(Errc::unsupported, "limits, on this system");
  return {};
}

std::vector<int> usable_cpus() { return {}; }

#endif

}  // namespace protocol::os
