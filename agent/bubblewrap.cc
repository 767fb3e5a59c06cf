#include "agent/bubblewrap.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "protocol/os/paths.h"
#include "protocol/os/process.h"
#include "protocol/os/run.h"
#include "protocol/wire/quoting.h"

namespace agent {

namespace fs = std::filesystem;
namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

// /sys/devices/system: how many processors there are, which language runtimes ask.
constexpr std::array kTrees = {"/usr",   "/bin",    "/sbin", "/lib", "/lib32",
                               "/lib64", "/libx32", "/opt",  "/nix", "/sys/devices/system"};

// Of /etc. Nothing that has passwords, tokens or hosts of its owner in it belongs here: package
// managers' and git's system-wide settings do not, because they may.
constexpr std::array kSettings = {"alternatives",
                                  "bash.bashrc",
                                  "bash_completion.d",
                                  "ca-certificates",
                                  "crypto-policies",
                                  "debian_version",
                                  "fonts",
                                  "gai.conf",
                                  "group",
                                  "host.conf",
                                  "hosts",
                                  "inputrc",
                                  "ld.so.cache",
                                  "ld.so.conf",
                                  "ld.so.conf.d",
                                  "locale.alias",
                                  "locale.conf",
                                  "localtime",
                                  "login.defs",
                                  "lsb-release",
                                  "magic",
                                  "magic.mime",
                                  "mailcap",
                                  "maven",
                                  "mime.types",
                                  "mtab",
                                  "netconfig",
                                  "networks",
                                  "nsswitch.conf",
                                  "os-release",
                                  "passwd",
                                  "perl",
                                  "pki",
                                  "profile",
                                  "profile.d",
                                  "protocols",
                                  "resolv.conf",
                                  "rpc",
                                  "services",
                                  "sgml",
                                  "shells",
                                  "ssl",
                                  "terminfo",
                                  "timezone",
                                  "vim",
                                  "xml",
                                  "ca-certificates.conf"};
// With a version in their names.
constexpr std::array kVersionedSettings = {"java-", "python", "php", "ImageMagick-"};

bool is_beneath(const fs::path& path, const fs::path& directory) {
  auto [end, rest] = std::mismatch(directory.begin(), directory.end(), path.begin(), path.end());
  (void)rest;
  return end == directory.end();
}

// What can be read through a link that keeps its own target.
bool is_shown(const fs::path& path) {
  return is_beneath(path, "/proc") ||
         std::any_of(kTrees.begin(), kTrees.end(),
                     [&](const char* tree) { return is_beneath(path, tree); });
}

void look(const fs::path& root, const fs::path& path, std::vector<Shown>& found) {
  fs::path here = root / path.relative_path();
  std::error_code error;
  auto status = fs::symlink_status(here, error);
  if (!fs::exists(status)) return;
  if (fs::is_symlink(status)) {
    fs::path target = fs::read_symlink(here, error);
    // A link stays one where its target is shown: /etc/localtime's name is the time zone's.
    if (is_shown((path.parent_path() / target).lexically_normal())) {
      found.push_back({path, target.native()});
      return;
    }
    if (!fs::exists(here, error)) return;
  }
  found.push_back({path});
}

bool is_wanted_setting(const std::string& name) {
  return std::find(kSettings.begin(), kSettings.end(), name) != kSettings.end() ||
         std::any_of(kVersionedSettings.begin(), kVersionedSettings.end(),
                     [&](const char* prefix) { return name.starts_with(prefix); });
}

}  // namespace

std::vector<Shown> look_at_system(const fs::path& root) {
  std::vector<Shown> found;
  for (const char* tree : kTrees) look(root, tree, found);
  std::vector<std::string> settings;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root / "etc", error))
    if (is_wanted_setting(entry.path().filename().native()))
      settings.push_back(entry.path().filename().native());
  std::sort(settings.begin(), settings.end());
  for (const std::string& name : settings) look(root, fs::path("/etc") / name, found);
  return found;
}

fs::path home_place(const fs::path& home) {
  fs::path place = home.lexically_normal();
  bool usable = place.is_absolute() && place.has_relative_path();
  for (const char* taken : {"/etc", "/proc", "/dev", "/run", "/sys", kWorkspacePlace})
    usable = usable && !is_beneath(place, taken);
  // /tmp itself, /var and the like are more than a home.
  for (const char* more : {"/tmp", "/var", "/var/tmp", "/home"}) usable = usable && place != more;
  if (!usable || is_shown(place)) return "/home/sandbox";
  if (place.filename().empty()) place = place.parent_path();
  return place;
}

fs::path program_inside() { return fs::path(kStatePlace) / "sandbox-agent"; }

fs::path events_inside() { return fs::path(kStatePlace) / "cgroup"; }

fs::path directory_inside(const fs::path& directory) {
  return fs::path(kStatePlace) / directory.filename();
}

namespace {

// By place, parents before what is in them: nothing covers what was mounted before it.
std::map<fs::path, std::vector<std::string>> mounts(const Shut& shut) {
  std::map<fs::path, std::vector<std::string>> at;
  at["/proc"] = {"--proc", "/proc"};
  // For root in here, who is the box's root too, the modes of these files say yes.
  for (const char* part :
       {"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"})
    at[part] = {"--ro-bind-try", part, part};
  at["/dev"] = {"--dev", "/dev"};
  at["/tmp"] = {"--perms", "1777", "--tmpfs", "/tmp"};
  at["/run"] = {"--perms", "0755", "--tmpfs", "/run"};
  at["/var/tmp"] = {"--perms", "1777", "--tmpfs", "/var/tmp"};
  at["/var/run"] = {"--symlink", "/run", "/var/run"};
  for (const Shown& each : shut.shown) {
    std::string path = each.path.native();
    if (!each.link.empty()) {
      at[path] = {"--symlink", each.link, path};
    } else {
      at[path] = {each.writable ? "--dev-bind-try" : "--ro-bind-try", path, path};
    }
  }
  auto bind = [&at](const char* how, const fs::path& source, const fs::path& place) {
    at[place] = {how, source.native(), place.native()};
  };
  bind("--bind", shut.directory / "home", shut.home);
  bind("--bind", shut.directory / "workspace", kWorkspacePlace);
  bind("--bind", shut.directory, directory_inside(shut.directory));
  bind("--ro-bind", shut.program, program_inside());
  if (!shut.events.empty()) bind("--ro-bind", shut.events, events_inside());
  // Bubblewrap makes what is missing above a mount for its owner alone.
  std::map<fs::path, std::vector<std::string>> all = at;
  for (const auto& [place, words] : at) {
    for (fs::path above = place.parent_path(); above.has_relative_path();
         above = above.parent_path()) {
      bool covered = std::any_of(at.begin(), at.end(),
                                 [&](const auto& each) { return is_beneath(above, each.first); });
      if (!covered) all[above] = {"--perms", "0755", "--dir", above.native()};
    }
  }
  return all;
}

}  // namespace

std::vector<std::string> bubblewrap_command(const Shut& shut) {
  std::vector<std::string> out = {shut.bubblewrap.native()};
  auto add = [&out](std::initializer_list<std::string> words) { out.insert(out.end(), words); };
  add({"--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
       "--unshare-cgroup-try"});
  if (shut.own_users_only) add({"--disable-userns"});
  if (!shut.network) add({"--unshare-net"});
  // The supervisor reaps; with bubblewrap's own first process between, a signal could reach that.
  add({"--as-pid-1"});
  // For the supervisor's first moments, and one that sets it apart from jobs: job_starter.h.
  add({"--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETPCAP"});
  add({"--cap-add", "CAP_WAKE_ALARM"});
  if (shut.info_fd >= 0) add({"--info-fd", std::to_string(shut.info_fd)});
  add({"--clearenv"});
  for (const auto& [name, value] : shut.environment) add({"--setenv", name, value});

  for (const auto& [place, words] : mounts(shut)) out.insert(out.end(), words.begin(), words.end());
  add({"--remount-ro", "/", "--chdir", "/", "--"});
  return out;
}

wire::result<void> probe_bubblewrap(Shut& shut, const fs::path& scratch) {
  Shut tried = shut;
  tried.directory = scratch / ("probe-" + os::random_hex(16));
  struct Scratch {
    fs::path directory;
    ~Scratch() {
      std::error_code ignored;
      fs::remove_all(directory, ignored);
    }
  } guard{tried.directory};
  for (const char* part : {"workspace", "home"})
    if (auto made = os::make_private_directory(tried.directory / part); !made) return made;

  Failure why(Errc::unsupported, "");
  for (bool own_users_only : {true, false}) {
    tried.own_users_only = own_users_only;
    os::Spawn spawn;
    spawn.argv = bubblewrap_command(tried);
    for (const std::string& word :
         {program_inside().native(), std::string("supervise"), std::string("--directory"),
          directory_inside(tried.directory).native(), std::string("--isolated"),
          std::string("--try")})
      spawn.argv.push_back(word);
    auto output = os::run(spawn);
    if (!output) {
      why.what = output.error().what;
      if (output.error().code == Errc::not_found) why.what += " (the package bubblewrap has it)";
      break;
    }
    if (output->exit.ok()) {
      shut.own_users_only = own_users_only;
      return {};
    }
    std::string said = output->err.substr(0, output->err.find_last_not_of('\n') + 1);
    if (why.what.empty() || own_users_only)
      why.what = said.empty() ? "bwrap ended with status " + std::to_string(output->exit.status)
                              : wire::printable(said.substr(said.rfind('\n') + 1), 300);
  }
  return why;
}

}  // namespace agent
