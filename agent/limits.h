// How this box holds sandboxes to their limits: by a cgroup where the agent has one, by limits of
// each process where it has not. What cannot be held is refused by name, never passed over.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/cgroups.h"
#include "agent/store.h"
#include "protocol/os/limits.h"

namespace agent {

struct LimitPlan {
  std::filesystem::path cgroup;      // for the supervisor and all it starts; empty: none
  protocol::os::ProcessLimits jobs;  // for each command
  std::int64_t seconds = 0;          // of each command
};

class Limits {
 public:
  // Looks for a cgroup, and logs when there is none.
  static Limits open();
  // By hand, for a box that is not this one.
  Limits(std::optional<Cgroups> cgroups, std::string why_none, bool root, std::vector<int> cpus)
      : cgroups_(std::move(cgroups)),
        why_none_(std::move(why_none)),
        root_(root),
        cpus_(std::move(cpus)) {}

  // Whether a sandbox is held to all of them as a whole, or to some only each of its commands.
  bool of_sandboxes() const { return by_cgroup("memory") && by_cgroup("cpu") && by_cgroup("pids"); }
  // Errc::bad_input for numbers that are no limits, Errc::unsupported naming the limit that cannot
  // be enforced here and what is missing.
  result<void> check(const protocol::wire::Limits& limits, bool isolated) const;
  // What holds this sandbox to its limits. Makes its cgroup. Errors of check, and denied, io ...
  result<LimitPlan> plan(const SandboxRecord& sandbox) const;
  // Its supervisor has ended.
  void forget(const std::string& sandbox) const;

 private:
  bool by_cgroup(const char* controller) const { return cgroups_ && cgroups_->has(controller); }

  std::optional<Cgroups> cgroups_;
  std::string why_none_;
  bool root_ = false;
  std::vector<int> cpus_;
};

}  // namespace agent
