#include "agent/limits.h"

#include <unistd.h>

#include <algorithm>
#include <functional>

#include "agent/log.h"

namespace agent {

namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

// What the supervisor and its git need for themselves.
constexpr std::int64_t kOwnTasks = 16;
constexpr std::int64_t kLeastMemory = 16ll << 20;  // below, not even a shell starts
constexpr std::int64_t kMost = 1ll << 50;

std::string processors(std::size_t count) {
  return std::to_string(count) + (count == 1 ? " processor" : " processors");
}

}  // namespace

Limits Limits::open() {
  auto cgroups = Cgroups::open();
  std::string why = cgroups ? "" : cgroups.error().what;
  if (!cgroups) log::info("limits", {{"by", "process"}, {"why", why}});
  return Limits(cgroups ? std::optional(*cgroups) : std::nullopt, why, ::geteuid() == 0,
                protocol::os::usable_cpus());
}

result<void> Limits::check(const wire::Limits& limits, bool isolated) const {
  for (std::int64_t value : {limits.memory, limits.millicpus, limits.pids, limits.seconds})
    if (value < 0 || value > kMost)
      return Failure(Errc::bad_input, "a limit of " + std::to_string(value) + " is none");
  if (limits.memory > 0 && limits.memory < kLeastMemory)
    return Failure(Errc::bad_input, "limits.memory: nothing runs in less than 16M");
  auto cannot = [&](const char* limit, const std::string& why, const std::string& next) {
    return Failure(
        Errc::unsupported,
        "this box cannot enforce limits." + std::string(limit) + ": " + why + ", and " +
            (cgroups_ ? "its cgroup has no such limit" : "it has no cgroup (" + why_none_ + ")") +
            "; " + next);
  };
  const std::string or_cgroup =
      ", give it a cgroup (systemd: Delegate=yes), or leave the limit out";
  // The kernel counts per user and user namespace, and does not count for root.
  if (limits.pids > 0 && !by_cgroup("pids")) {
    if (root_)
      return cannot("pids", "its agent runs as root, which has no such limit",
                    "run the agent as another user" + or_cgroup);
    if (!isolated)
      return cannot("pids", "without isolation, all that its account runs would count",
                    "isolate the sandbox" + or_cgroup);
  }
  if (limits.millicpus > 0 && !by_cgroup("cpu")) {
    if (limits.millicpus % 1000 != 0)
      return cannot("cpus", "it can give whole processors only", "ask for whole ones" + or_cgroup);
    if (limits.millicpus / 1000 > static_cast<std::int64_t>(cpus_.size()))
      return Failure(Errc::unsupported, "limits.cpus: this box has " + processors(cpus_.size()));
  }
  return {};
}

result<LimitPlan> Limits::plan(const SandboxRecord& sandbox) const {
  const wire::Limits& limits = sandbox.limits;
  auto checked = check(limits, sandbox.isolation == "bwrap");
  if (!checked) return checked.error();
  LimitPlan plan;
  plan.seconds = limits.seconds;
  wire::Limits together = limits;
  if (together.pids > 0) together.pids += kOwnTasks;
  bool limited = limits.memory > 0 || limits.millicpus > 0 || limits.pids > 0;
  if (cgroups_ && limited) {
    auto made = cgroups_->make(sandbox.id, together);
    if (!made) return made.error();
    plan.cgroup = *made;
  }
  if (!by_cgroup("memory")) plan.jobs.memory = limits.memory;
  if (!by_cgroup("pids")) plan.jobs.pids = together.pids;
  if (!by_cgroup("cpu")) {
    // Not all of them on the same ones.
    auto count = static_cast<std::size_t>(limits.millicpus / 1000);
    std::size_t first = std::hash<std::string>()(sandbox.id);
    for (std::size_t i = 0; i < count; ++i)
      plan.jobs.cpus.push_back(cpus_[(first + i) % cpus_.size()]);
  }
  return plan;
}

void Limits::forget(const std::string& sandbox) const {
  if (cgroups_) cgroups_->remove(sandbox);
}

}  // namespace agent
