#include "protocol/os/subreaper.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>

#include "protocol/os/fd.h"
#include "protocol/os/own_children.h"
#ifndef __linux__
#include "protocol/os/run.h"
#endif

namespace protocol::os {

namespace {

#ifdef __linux__
// A line of /proc/PID/stat: `pid (name) state ppid pgrp session ...`; the name may hold anything,
// `)` too. Field 22 is the start time.
bool read_stat(pid_t pid, ProcessInfo& info) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line, '\0') || line.empty()) return false;
  std::size_t open = line.find('('), close = line.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open) return false;
  info.pid = pid;
  info.name = line.substr(open + 1, close - open - 1);
  std::istringstream fields(line.substr(close + 1));
  std::string state, skipped;
  fields >> state >> info.parent >> info.group >> info.session;
  for (int field = 7; field < 22; ++field) fields >> skipped;
  fields >> info.started;
  info.zombie = state == "Z" || state == "X";
  return static_cast<bool>(fields);
}
#endif

// Our children as the kernel lists them; std::nullopt where it does not.
std::optional<std::vector<pid_t>> children() {
#ifdef __linux__
  std::vector<pid_t> pids;
  std::error_code error;
  bool listed = false;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", error)) {
    std::ifstream file(task.path() / "children");
    listed = listed || file.good();
    for (pid_t pid; file >> pid;) pids.push_back(pid);
  }
  if (listed) return pids;
#endif
  return std::nullopt;
}

}  // namespace

std::vector<ProcessInfo> processes() {
  std::vector<ProcessInfo> all;
#ifdef __linux__
  DIR* directory = ::opendir("/proc");
  if (!directory) return all;
  while (const dirent* entry = ::readdir(directory)) {
    char* end = nullptr;
    long pid = std::strtol(entry->d_name, &end, 10);
    if (pid <= 0 || *end != '\0') continue;
    ProcessInfo info;
    if (read_stat(static_cast<pid_t>(pid), info)) all.push_back(std::move(info));
  }
  ::closedir(directory);
#else
  Spawn ps;
  ps.argv = {"ps", "-axo", "pid=,ppid=,pgid=,sess=,stat=,comm="};
  auto output = run(ps);
  if (!output) return all;
  std::istringstream lines(output->out);
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream fields(line);
    ProcessInfo info;
    std::string session, state;
    if (!(fields >> info.pid >> info.parent >> info.group >> session >> state)) continue;
    std::getline(fields >> std::ws, info.name);
    info.session = ::getsid(info.pid);
    info.zombie = state.starts_with("Z");
    all.push_back(std::move(info));
  }
#endif
  std::sort(all.begin(), all.end(),
            [](const ProcessInfo& a, const ProcessInfo& b) { return a.pid < b.pid; });
  return all;
}

std::vector<ProcessInfo> session_processes(pid_t session) {
  auto all = processes();
  std::erase_if(all, [session](const ProcessInfo& p) { return p.session != session || p.zombie; });
  return all;
}

std::vector<ProcessInfo> descendants(pid_t ancestor) {
  auto all = processes();
  std::set<pid_t> family = {ancestor};
  // Numbers wrap around, so a child may come before its parent: again until nothing is new.
  for (std::size_t before = 0; before != family.size();) {
    before = family.size();
    for (const ProcessInfo& process : all)
      if (family.contains(process.parent)) family.insert(process.pid);
  }
  std::erase_if(all, [&](const ProcessInfo& p) {
    return p.pid == ancestor || p.zombie || !family.contains(p.pid);
  });
  return all;
}

std::uint64_t start_ticks(pid_t pid) {
#ifdef __linux__
  ProcessInfo info;
  return read_stat(pid, info) ? info.started : 0;
#else
  (void)pid;
  return 0;
#endif
}

bool signal_process(const ProcessInfo& process, int signal) {
#if defined(__linux__) && defined(SYS_pidfd_open) && defined(SYS_pidfd_send_signal)
  // A descriptor stands for the process that has the number now, so that the number may be looked
  // at in peace. Without one (an old kernel) there is a moment between the look and the signal.
  Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0)));
  if (start_ticks(process.pid) != process.started) return false;
  if (fd) return ::syscall(SYS_pidfd_send_signal, fd.get(), signal, nullptr, 0) == 0;
#endif
  return ::kill(process.pid, signal) == 0;
}

bool started_with(pid_t pid, std::string_view variable) {
#ifdef __linux__
  std::ifstream file("/proc/" + std::to_string(pid) + "/environ", std::ios::binary);
  std::string all =
      std::string(1, '\0') +
      std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()) + '\0';
  std::string wanted = std::string(1, '\0').append(variable) + '\0';
  return all.find(wanted) != std::string::npos;
#else
  (void)pid, (void)variable;
  return false;
#endif
}

std::string working_directory(pid_t pid) {
#ifdef __linux__
  char path[PATH_MAX];
  std::string link = "/proc/" + std::to_string(pid) + "/cwd";
  ssize_t size = ::readlink(link.c_str(), path, sizeof path);
  return size > 0 ? std::string(path, static_cast<std::size_t>(size)) : std::string();
#else
  (void)pid;
  return {};
#endif
}

bool become_subreaper() {
#ifdef __linux__
  return ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0;
#else
  return false;
#endif
}

bool is_subreaper() {
#ifdef __linux__
  int set = 0;
  return ::prctl(PR_GET_CHILD_SUBREAPER, &set, 0, 0, 0) == 0 && (set != 0 || ::getpid() == 1);
#else
  return false;
#endif
}

bool has_orphans() {
  auto pids = children();
  if (!pids) return true;
  std::lock_guard lock(own_children().mutex);
  return std::any_of(pids->begin(), pids->end(),
                     [](pid_t pid) { return !own_children().pids.contains(pid); });
}

int reap_orphans() {
  auto pids = children();
  if (!pids) {
    pids.emplace();
    for (const ProcessInfo& process : processes())
      if (process.zombie && process.parent == ::getpid()) pids->push_back(process.pid);
  }
  int count = 0;
  for (pid_t pid : *pids) {
    std::lock_guard lock(own_children().mutex);
    if (own_children().pids.contains(pid)) continue;
    if (::waitpid(pid, nullptr, WNOHANG) == pid) ++count;
  }
  return count;
}

}  // namespace protocol::os
