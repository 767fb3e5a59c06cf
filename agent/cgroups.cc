#include "agent/cgroups.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "agent/log.h"
#include "protocol/os/fd.h"

namespace agent {

namespace fs = std::filesystem;
namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

// Each line of `membership` is HIERARCHY:CONTROLLERS:PATH; version 2's is 0.
std::optional<std::string> own_path(const fs::path& membership) {
  std::ifstream file(membership);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("0::")) return line.substr(3);
  return std::nullopt;
}

// A line: ID PARENT DEVICE ROOT PLACE OPTIONS [TAG...] - TYPE SOURCE OPTIONS.
std::optional<fs::path> mount_of(const fs::path& mounts) {
  std::ifstream file(mounts);
  for (std::string line; std::getline(file, line);) {
    auto dash = line.find(" - ");
    if (dash == std::string::npos || !line.substr(dash + 3).starts_with("cgroup2 ")) continue;
    std::istringstream fields(line);
    std::string skipped, place;
    fields >> skipped >> skipped >> skipped >> skipped >> place;
    return fs::path(place);
  }
  return std::nullopt;
}

std::set<std::string> words_of(const fs::path& file) {
  std::ifstream in(file);
  std::set<std::string> words;
  for (std::string word; in >> word;) words.insert(word);
  return words;
}

// The kernel makes the files; it takes or refuses what is written in one call.
result<void> write(const fs::path& file, const std::string& text) {
  os::Fd fd(::open(file.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
  if (!fd || ::write(fd.get(), text.data(), text.size()) < 0)
    return os::errno_failure(errno, file.native());
  return {};
}

std::string or_no_limit(std::int64_t value) {
  return value > 0 ? std::to_string(value) : std::string("max");
}

result<void> set(const fs::path& group, const std::string& controller, const wire::Limits& limits) {
  if (controller == "pids") return write(group / "pids.max", or_no_limit(limits.pids));
  if (controller == "cpu") {
    std::string cpu = limits.millicpus > 0 ? std::to_string(limits.millicpus * 100) : "max";
    return write(group / "cpu.max", cpu + " 100000");
  }
  auto done = write(group / "memory.max", or_no_limit(limits.memory));
  if (!done || limits.memory == 0) return done;
  // Swapping would be a way around a limit of memory. Where the kernel does not count what is
  // swapped there is no such file, and what is in memory is limited all the same.
  done = write(group / "memory.swap.max", "0");
  if (!done && done.error().code == Errc::not_found) return {};
  return done;
}

result<fs::path> make_group(const fs::path& group) {
  if (::mkdir(group.c_str(), 0755) != 0 && errno != EEXIST)
    return os::errno_failure(errno, group.native());
  return group;
}

}  // namespace

result<Cgroups> Cgroups::open(const fs::path& mounts, const fs::path& membership) {
  auto none = [](const std::string& why) { return Failure(Errc::unsupported, why); };
  auto path = own_path(membership);
  auto mount = mount_of(mounts);
  if (!path || !mount) return none("there is no cgroup v2 tree here");
  Cgroups self;
  self.root_ = (*mount / fs::path(*path).relative_path()).lexically_normal();
  if (self.root_.filename().empty()) self.root_ = self.root_.parent_path();
  std::set<std::string> there = words_of(self.root_ / "cgroup.controllers");
  std::string wanted;
  for (const char* controller : {"memory", "cpu", "pids"}) {
    if (!there.contains(controller)) continue;
    self.controllers_.insert(controller);
    wanted += std::string(wanted.empty() ? "+" : " +") + controller;
  }
  if (wanted.empty())
    return none("the agent's cgroup v2 has no controller for memory, cpu or pids");
  if (::access((self.root_ / "cgroup.subtree_control").c_str(), W_OK) != 0)
    return none("the agent's cgroup " + self.root_.native() + " is not its own (Delegate=yes)");
  // A group has either processes or limited groups in it.
  fs::path leaf = self.root_ / "agent";
  if (::mkdir(leaf.c_str(), 0755) != 0 && errno != EEXIST)
    return none(os::errno_failure(errno, leaf.native()).what);
  if (auto moved = write(leaf / "cgroup.procs", std::to_string(::getpid())); !moved)
    return none(moved.error().what);
  if (auto given = write(self.root_ / "cgroup.subtree_control", wanted); !given)
    return none("other processes share the agent's cgroup: " + given.error().what);
  if (auto works = self.try_controllers(); !works) return none(works.error().what);
  return self;
}

result<void> Cgroups::try_controllers() {
  auto group = make_group(root_ / "probe");
  if (!group) return group.error();
  result<void> works;
  const wire::Limits some{.memory = 1 << 30, .millicpus = 1000, .pids = 1000};
  for (const std::string& controller : std::set<std::string>(controllers_)) {
    auto taken = set(*group, controller, some);
    if (taken) continue;
    controllers_.erase(controller);
    works = taken;
    log::warn("limits", {{"without", controller}, {"why", taken.error().what}});
  }
  ::rmdir(group->c_str());
  if (controllers_.empty()) return works;
  return {};
}

result<fs::path> Cgroups::make(const std::string& sandbox, const wire::Limits& limits) const {
  auto group = make_group(root_ / ("sandbox-" + sandbox));
  if (!group) return group;
  for (const std::string& controller : controllers_)
    if (auto done = set(*group, controller, limits); !done) return done.error();
  return group;
}

void Cgroups::remove(const std::string& sandbox) const {
  ::rmdir((root_ / ("sandbox-" + sandbox)).c_str());
}

}  // namespace agent
