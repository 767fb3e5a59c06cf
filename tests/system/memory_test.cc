// What the programs hold in memory while a large file goes to the box and another comes back.
#include <signal.h>

#include <boost/json.hpp>
#include <fstream>
#include <random>
#include <sstream>

#include "tests/support/catch.h"
#include "tests/support/system.h"

namespace fs = std::filesystem;
using test::Machine;

namespace {

constexpr std::size_t kLarge = 50u << 20;
// Less than half of the file: whoever held it, or a pack of it, as a whole would be above.
constexpr std::size_t kMost = 24u << 10;  // KiB, beyond what the same process needs for nothing

// A number of /proc/PID/status; 0 when it has gone.
std::size_t status_number(pid_t pid, const std::string& name) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return std::stoul(line.substr(name.size() + 1));
  }
  return 0;
}

std::string program_of(pid_t pid) {
  std::ifstream comm("/proc/" + std::to_string(pid) + "/comm");
  std::string name;
  std::getline(comm, name);
  return name;
}

// The agent and, beneath it, its supervisors.
std::vector<pid_t> agents(pid_t agent) {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    auto pid = static_cast<pid_t>(std::stol(name));
    if (program_of(pid) != "sandbox-agent") continue;
    for (pid_t above = pid; above > 1; above = static_cast<pid_t>(status_number(above, "PPid"))) {
      if (above == agent) {
        found.push_back(pid);
        break;
      }
    }
  }
  return found;
}

// Runs a command to its end, and returns the CLI's peak in KiB.
std::size_t peak_of(Machine& machine, const std::string& script) {
  auto running = machine.start({"exec", "--", "sh", "-c", script});
  std::size_t peak = 0;
  REQUIRE(test::eventually(
      [&] {
        std::size_t now = status_number(running.pid(), "VmHWM");
        peak = std::max(peak, now);
        return now == 0;
      },
      std::chrono::seconds(120)));
  auto ended = running.wait();
  INFO(ended.err);
  REQUIRE(ended.status == 0);
  return peak;
}

}  // namespace

TEST_CASE("50 MB that no compression makes smaller go and come back, and nobody holds them") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  const std::size_t idle = peak_of(machine, "true");
  std::map<pid_t, std::size_t> before;
  for (pid_t pid : agents(machine.agent_pid())) before[pid] = status_number(pid, "VmHWM");
  REQUIRE(before.size() >= 2);

  std::string bytes(kLarge, '\0');
  std::mt19937_64 random(1);
  for (std::size_t at = 0; at < kLarge; at += 8) {
    std::uint64_t number = random();
    bytes.replace(at, 8, reinterpret_cast<const char*>(&number), 8);
  }
  test::write_text(machine.project() / "sent", bytes);
  const std::size_t peak = peak_of(machine, "head -c 52428800 /dev/urandom > made; rm sent");
  auto sum = [&](const std::string& command) {
    return machine.run_program({"sh", "-c", command}).out;
  };
  CHECK_FALSE(fs::exists(machine.project() / "sent"));
  CHECK(fs::file_size(machine.project() / "made") == kLarge);
  auto made = sum("sha256sum < made");
  CHECK(made.size() > 64);
  CHECK(machine.exec("sha256sum < made").out == made);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(peak < idle + kMost);
  for (const auto& [pid, was] : before) {
    INFO(pid << ": " << was << " KiB before");
    CHECK(status_number(pid, "VmHWM") < was + kMost);
  }
#else
  static_cast<void>(peak);
  static_cast<void>(idle);
#endif
}
