// The command line that starts a program shut off from its box, with bubblewrap. What it sees is
// the system (read-only), a sandbox's workspace and home, and what the box's owner gives to every
// sandbox; it has its own processes, /tmp, devices, IPC, host name and users, an empty environment,
// no privileges and no way to get any. Whatever it is, it is the first process in there, and its
// end is the end of them all.
//
// The builder is pure: look_at_system() looks, bubblewrap_command() writes, probe_bubblewrap()
// tries.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "protocol/wire/result.h"

namespace agent {

// Where the program finds things, in every sandbox and every run: build caches hold absolute paths.
inline constexpr const char* kWorkspacePlace = "/workspace";
// The sandbox's own directory, by its id, and the agent's program: for the supervisor alone
// (supervisor/job_starter.h hides all of it from jobs).
inline constexpr const char* kStatePlace = "/run/sandbox";

// One thing of the box that is shown under its own path.
struct Shown {
  std::filesystem::path path;
  std::string link = {};  // not empty: a symbolic link with this target
  bool writable = false;  // else read-only
  bool operator==(const Shown&) const = default;
};

// The parts of the system that programs need to run, and nothing that is somebody's: /usr and /opt,
// the directories beside them, and of /etc what compilers, the resolver and TLS read. What is not
// there is left out. `root` is what to look at in place of /.
std::vector<Shown> look_at_system(const std::filesystem::path& root = "/");

// Where an account's home is mounted: its own place, unless that would cover a part of the system.
std::filesystem::path home_place(const std::filesystem::path& home);

struct Shut {
  std::filesystem::path bubblewrap = "bwrap";
  std::vector<Shown> shown;         // the system, then what else is given
  std::filesystem::path directory;  // the sandbox's, with `workspace` and `home` in it
  std::filesystem::path home;       // home_place() of the account
  std::filesystem::path program;    // the agent's
  std::map<std::string, std::string> environment;
  bool network = true;                // the box's; else an own one with nothing but a loopback
  bool own_users_only = true;         // no further user namespaces inside; not every system can
  int info_fd = -1;                   // where bubblewrap writes {"child-pid": ...}; -1: nowhere
  std::filesystem::path events = {};  // a cgroup's directory, shown as kStatePlace/cgroup; or empty
};

// bwrap and its options, up to and with `--`; the agent's program, as it is called inside, and its
// arguments follow.
std::vector<std::string> bubblewrap_command(const Shut& shut);

// As it is called inside.
std::filesystem::path program_inside();
std::filesystem::path events_inside();
std::filesystem::path directory_inside(const std::filesystem::path& directory);

// Runs `sandbox-agent supervise --try` in what such a command line makes, with a directory of its
// own beneath `scratch`. Blocks for some 20 ms. Errc::unsupported says why it does not work here.
// Of own_users_only it tells what works, in `shut`.
protocol::wire::result<void> probe_bubblewrap(Shut& shut, const std::filesystem::path& scratch);

}  // namespace agent
