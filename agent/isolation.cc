#include "agent/isolation.h"

#include "agent/log.h"
#include "protocol/os/passed_on.h"
#include "protocol/os/process.h"
#include "protocol/wire/quoting.h"

namespace agent {

namespace fs = std::filesystem;
namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

constexpr int kInfoFd = 3, kOutsidePidFd = 4;

// What the programs of a build with sanitizers are told.
bool is_for_sanitizers(const std::string& name) {
  return name == "ASAN_OPTIONS" || name == "UBSAN_OPTIONS" || name == "TSAN_OPTIONS" ||
         name == "LSAN_OPTIONS";
}

Shown given(const fs::path& path) {
  Shown shown{path.lexically_normal()};
  // A device that cannot be used is of no use; who may is what its mode says.
  shown.writable = shown.path.native().starts_with("/dev/");
  return shown;
}

}  // namespace

std::optional<IsolationMode> isolation_mode(std::string_view word) {
  if (word == "auto") return IsolationMode::automatic;
  if (word == "bwrap") return IsolationMode::bwrap;
  if (word == "none") return IsolationMode::none;
  return std::nullopt;
}

result<Isolation> Isolation::open(Settings settings) {
  Isolation self(std::move(settings));
  const Settings& s = self.settings_;
  self.shut_.program = s.program;
  self.shut_.bubblewrap = s.bubblewrap;
  auto home = os::home_directory({});  // the account's own
  self.shut_.home = home_place(home ? *home : fs::path());
  self.shut_.shown = look_at_system();
  for (const fs::path& path : s.exposed) self.shut_.shown.push_back(given(path));
  for (const auto& [name, value] : s.environment)
    if (os::is_passed_on(name) || is_for_sanitizers(name)) self.shut_.environment[name] = value;
  if (s.mode == IsolationMode::none) {
    self.why_not_ = "its agent was started with --isolation none";
  } else {
    auto probed = probe_bubblewrap(self.shut_, s.scratch);
    self.works_ = static_cast<bool>(probed);
    if (!probed) self.why_not_ = probed.error().what;
  }
  if (self.works_) {
    // Not every system's bubblewrap can do without them: then there is more of a kernel to attack.
    const char* namespaces = self.shut_.own_users_only ? "none" : "allowed";
    log::info("isolation", {{"with", "bubblewrap"}, {"user_namespaces_inside", namespaces}});
    return self;
  }
  if (s.mode == IsolationMode::bwrap)
    return Failure(Errc::unsupported,
                   "--isolation bwrap, but bubblewrap does not work here: " + self.why_not_);
  if (auto allowed = self.allow_none(); !allowed) return allowed.error();
  log::warn("isolation", {{"with", "none"}, {"why", self.why_not_}});
  return self;
}

result<void> Isolation::allow_none() const {
  if (settings_.mode == IsolationMode::bwrap)
    return Failure(Errc::refused, "this box runs nothing without isolation (--isolation bwrap)");
  if (!settings_.trust_commands && settings_.users() > 1)
    return Failure(Errc::refused,
                   "this box has several users, and without isolation (" +
                       (works_ ? "which was not asked for" : why_not_) +
                       ") a command of one could do what the agent's account can: install "
                       "bubblewrap, or trust them all with --trust-commands");
  return {};
}

result<std::string> Isolation::choose(const std::string& wanted) const {
  auto mode = isolation_mode(wanted);
  if (!mode)
    return Failure(Errc::bad_input,
                   "isolation is auto, bwrap or none, not " + wire::printable(wanted, 80));
  if (*mode != IsolationMode::none && works_) return std::string("bwrap");
  if (*mode == IsolationMode::bwrap)
    return Failure(Errc::unsupported, "this box has no isolation: " + why_not_);
  if (auto allowed = allow_none(); !allowed) return allowed.error();
  return std::string("none");
}

result<std::vector<std::string>> Isolation::supervise(const SandboxRecord& sandbox,
                                                      const fs::path& directory,
                                                      const LimitPlan& plan) const {
  auto still = choose(sandbox.isolation);
  if (!still) {
    Failure failure = still.error();
    failure.what = "the sandbox was made with isolation " + sandbox.isolation + ": " + failure.what;
    return failure;
  }
  std::vector<std::string> command;
  auto add = [&command](std::initializer_list<std::string> words) {
    command.insert(command.end(), words);
  };
  fs::path events = plan.cgroup;
  if (*still == "none") {
    add({settings_.program.native(), "supervise", "--directory", directory.native()});
  } else {
    Shut shut = shut_;
    shut.directory = directory;
    shut.network = sandbox.network != "none";
    shut.info_fd = kInfoFd;
    shut.events = plan.cgroup;
    command = bubblewrap_command(shut);
    add({program_inside().native(), "supervise", "--directory",
         directory_inside(directory).native(), "--workspace", kWorkspacePlace, "--home",
         shut.home.native(), "--isolated", "--info-fd", std::to_string(kOutsidePidFd)});
    if (!plan.cgroup.empty()) events = events_inside();
  }
  for (auto& word : os::limit_options(plan.jobs)) command.push_back(word);
  if (plan.seconds > 0) add({"--seconds", std::to_string(plan.seconds)});
  if (plan.cgroup.empty()) return command;
  add({"--events", events.native()});

  // The first of them joins the group, and all the others are born into it.
  os::Spawn spawn;
  spawn.argv = command;
  auto program = os::find_program(spawn);
  if (!program) return program.error();
  os::ProcessLimits group;
  group.cgroup = plan.cgroup;
  std::vector<std::string> joining = {settings_.program.native(), "limited"};
  for (auto& word : os::limit_options(group)) joining.push_back(word);
  joining.insert(joining.end(), {"--", *program});
  joining.insert(joining.end(), command.begin(), command.end());
  return joining;
}

}  // namespace agent
