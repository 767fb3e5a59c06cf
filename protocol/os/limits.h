// Limits that a process takes on, for itself and for all that it starts or becomes. Linux;
// elsewhere every one but none is Errc::unsupported.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "protocol/wire/result.h"

namespace protocol::os {

struct ProcessLimits {
  std::filesystem::path cgroup = {};  // to be in this one: its directory; empty: stay
  std::int64_t memory = 0;            // bytes of address space, of each process; 0: no limit
  std::int64_t pids = 0;              // processes and threads of this user in its user namespace
  std::vector<int> cpus = {};         // the processors to run on, for good; empty: all
  bool any() const { return !cgroup.empty() || memory > 0 || pids > 0 || !cpus.empty(); }
};

// Of the calling process, before it starts anything. An error names the limit that cannot be had.
wire::result<void> take_on(const ProcessLimits& limits);

// As options of a program, and nothing for what is not limited: --cgroup DIR --memory BYTES
// --pids N --cpu N --cpu M.
std::vector<std::string> limit_options(const ProcessLimits& limits);

// The processors that this process may run on.
std::vector<int> usable_cpus();

}  // namespace protocol::os
