// The processes of this machine, and those that end up as our children because their parent died.
// Linux reads /proc; elsewhere `ps` is asked, and nothing becomes our child but what we started.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace protocol::os {

struct ProcessInfo {
  pid_t pid = 0, parent = 0, group = 0, session = 0;
  bool zombie = false;
  std::uint64_t started = 0;  // in the system's ticks; with the pid it names one process for good
  std::string name;           // "sleep", as the kernel knows it
};

// All that are there now, by pid.
std::vector<ProcessInfo> processes();
// Those of one session, zombies left out.
std::vector<ProcessInfo> session_processes(pid_t session);
// All whose chain of parents leads to `ancestor`, zombies left out.
std::vector<ProcessInfo> descendants(pid_t ancestor);
// The start ticks of one process; 0 when it is not there.
std::uint64_t start_ticks(pid_t pid);

// Signals exactly that process, never one that has got its number since. False when it is gone.
bool signal_process(const ProcessInfo& process, int signal);
// Whether "NAME=value" was in the environment that the process's program was started with, and the
// directory that it works in. False, and empty, where that may not be known.
bool started_with(pid_t pid, std::string_view variable);
std::string working_directory(pid_t pid);

// From now on orphaned descendants become children of this process. False where there is no such
// thing.
bool become_subreaper();
bool is_subreaper();
// Children that no Process stands for: what others left behind, for want of a parent came to us and
// was not reaped. True also where that cannot be known. Costs little, however many processes the
// machine runs.
bool has_orphans();
// Reaps ended children that no Process stands for. Call at SIGCHLD. How many.
int reap_orphans();

}  // namespace protocol::os
