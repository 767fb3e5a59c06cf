#include "agent/supervisor/earlier_jobs.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>

#include "protocol/os/paths.h"

namespace agent::supervisor {

namespace os = protocol::os;
using namespace std::chrono_literals;
using protocol::wire::Errc;
using protocol::wire::Failure;
using std::chrono::steady_clock;

namespace {

constexpr auto kPause = 10ms;
constexpr auto kKillLimit = 3s;

// One job's, as far as it is still there.
struct Left {
  std::vector<os::ProcessInfo> processes;
  bool leader = false;
};

bool works_in(pid_t pid, const std::filesystem::path& root) {
  std::string directory = os::working_directory(pid);
  return directory == root || directory.starts_with(root.native() + "/");
}

Left left_of(const Ledger::Entry& entry, const std::vector<os::ProcessInfo>& all,
             const std::filesystem::path& root) {
  const std::string variable = std::string(kJobVariable) + "=" + entry.job;
  Left left;
  if (entry.state == Ledger::State::starting) {
    // Killed before it could say which process: nothing has had the time to hide.
    for (const os::ProcessInfo& process : all)
      if (!process.zombie && os::started_with(process.pid, variable))
        left.processes.push_back(process);
    return left;
  }
  for (const os::ProcessInfo& process : all) {
    // A number is not given away while a session has it: this is another's, and ours is empty.
    if (process.pid == entry.pid && process.started != entry.started) return {};
    left.leader |= process.pid == entry.pid && !process.zombie;
    if (process.session == entry.pid && !process.zombie) left.processes.push_back(process);
  }
  bool known = std::any_of(all.begin(), all.end(), [&](const os::ProcessInfo& process) {
    return process.pid == entry.pid;  // dead and not yet reaped will do
  });
  if (!known) {
    std::erase_if(left.processes, [&](const os::ProcessInfo& process) {
      return !os::started_with(process.pid, variable) && !works_in(process.pid, root);
    });
  }
  return left;
}

}  // namespace

result<void> end_earlier_jobs(Ledger& ledger, const Directory& directory, EndTimes times) {
  std::vector<Ledger::Entry> jobs;
  const std::string boot = os::boot_id();
  for (const Ledger::Entry& entry : std::vector(ledger.entries())) {
    if (entry.state == Ledger::State::free) continue;
    if (entry.boot != boot) {
      ledger.forget(entry.job);
    } else if (entry.state != Ledger::State::owed) {
      jobs.push_back(entry);
    }
  }
  if (jobs.empty()) return {};

  std::error_code error;
  auto root = std::filesystem::canonical(directory.root, error);
  if (error) root = directory.root;
  std::vector<os::ProcessInfo> left;
  bool leaders = false;
  auto look = [&] {
    auto all = os::processes();
    left.clear();
    leaders = false;
    for (const Ledger::Entry& entry : jobs) {
      Left found = left_of(entry, all, root);
      left.insert(left.end(), found.processes.begin(), found.processes.end());
      leaders |= found.leader;
    }
  };
  auto send = [&](int number) {
    for (const os::ProcessInfo& process : left) os::signal_process(process, number);
  };
  auto wait = [&](std::chrono::milliseconds time, const std::function<bool()>& done) {
    auto deadline = steady_clock::now() + time;
    for (look(); !done() && steady_clock::now() < deadline; look())
      std::this_thread::sleep_for(kPause);
  };
  auto nothing_left = [&] { return left.empty(); };

  look();
  for (const os::ProcessInfo& process : left)
    if (process.group == process.session) os::signal_process(process, SIGINT);
  wait(times.interrupt, [&] { return !leaders; });
  if (!left.empty()) {
    send(SIGTERM);
    send(SIGCONT);  // a stopped one would not hear of it
    wait(leaders ? times.terminate : times.leftovers, nothing_left);
  }
  auto deadline = steady_clock::now() + kKillLimit;
  while (!left.empty() && steady_clock::now() < deadline) {
    send(SIGKILL);
    std::this_thread::sleep_for(kPause);
    look();
  }
  if (!left.empty()) {
    return Failure(Errc::busy,
                   "a command of an earlier supervisor does not end: " + left.front().name +
                       " (pid " + std::to_string(left.front().pid) + ")");
  }
  for (const Ledger::Entry& entry : jobs) ledger.ended(entry.job);
  return {};
}

std::vector<os::ProcessInfo> earlier_residents(const Directory& directory) {
  const std::string variable = "SANDBOX_ID=" + directory.sandbox();
  auto found = os::processes();
  std::erase_if(found, [&](const os::ProcessInfo& process) {
    return process.zombie || process.pid == ::getpid() || !os::started_with(process.pid, variable);
  });
  return found;
}

}  // namespace agent::supervisor
