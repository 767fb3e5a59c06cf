// The agent's own part of the cgroup v2 tree, where it was given one (systemd: Delegate=yes). It
// moves itself into a leaf of it, and makes one group per sandbox beside that, in which the
// sandbox's supervisor and all that it starts are held to limits together.
#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include "protocol/wire/messages.h"
#include "protocol/wire/result.h"

namespace agent {

using protocol::wire::result;

class Cgroups {
 public:
  // `mounts` and `membership` are the files in which the kernel says where the tree is and where in
  // it this process is. Errc::unsupported says why there is none to be had.
  static result<Cgroups> open(const std::filesystem::path& mounts = "/proc/self/mountinfo",
                              const std::filesystem::path& membership = "/proc/self/cgroup");

  // Whether it can limit "memory", "cpu" or "pids".
  bool has(const std::string& controller) const { return controllers_.contains(controller); }

  // The directory of the sandbox's group, made or found, with the limits of these that its
  // controllers have, and no others. Errc::denied, io ...
  result<std::filesystem::path> make(const std::string& sandbox,
                                     const protocol::wire::Limits& limits) const;
  // When nothing is in it; else it stays.
  void remove(const std::string& sandbox) const;

 private:
  // Leaves out the controllers that do not take a limit, so that nothing is found out only when a
  // sandbox starts. The error is that of the last one, when none is left.
  result<void> try_controllers();

  std::filesystem::path root_;
  std::set<std::string> controllers_;
};

}  // namespace agent
