// What isolation costs when things start, with the real programs and for each kind: trying
// bubblewrap (once per agent), starting a supervisor until it answers (once per sandbox and hour),
// and what a user sees of that: a command whose supervisor runs, and one whose has to be started.
// Prints one line per number.
//
//   isolation_bench [ROUNDS]
#include <signal.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>

#include "agent/isolation.h"
#include "agent/supervisors.h"
#include "protocol/os/paths.h"
#include "tests/support/loop.h"
#include "tests/support/places.h"
#include "tests/support/system.h"

namespace {

namespace fs = std::filesystem;
namespace os = protocol::os;
using Clock = std::chrono::steady_clock;

template <class Value>
Value must(protocol::wire::result<Value> value) {
  if (!value) throw std::runtime_error(value.error().what);
  return std::move(*value);
}

class Times {
 public:
  template <class Run>
  void add(const Run& run) {
    auto begin = Clock::now();
    run();
    all_.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  }
  void print(const std::string& what) {
    std::sort(all_.begin(), all_.end());
    std::printf("%-36s p50 %8.2f ms   p90 %8.2f ms   n %zu\n", what.c_str(), all_[all_.size() / 2],
                all_[all_.size() * 9 / 10], all_.size());
  }

 private:
  std::vector<double> all_;
};

// `reap`: what has to run for its end to be seen.
void kill_supervisor(const fs::path& sandbox, const std::function<void()>& reap) {
  auto record = boost::json::parse(test::file_text(sandbox / "supervisor.json"));
  auto pid = static_cast<pid_t>(record.at("pid").to_number<std::int64_t>());
  ::kill(pid, SIGKILL);
  bool ended = test::eventually([&] {
    reap();
    return ::kill(pid, 0) != 0;
  });
  if (!ended) throw std::runtime_error("a supervisor does not end");
}

agent::Isolation open(const std::string& mode, const fs::path& scratch) {
  agent::Isolation::Settings settings;
  settings.mode = *agent::isolation_mode(mode);
  settings.program = SANDBOX_BIN_DIR "/sandbox-agent";
  settings.scratch = scratch;
  settings.environment = os::environment();
  settings.users = [] { return std::size_t{1}; };
  return must(agent::Isolation::open(std::move(settings)));
}

void supervisors(const std::string& mode, const fs::path& scratch, int rounds) {
  auto isolation = open(mode, scratch);
  agent::SandboxRecord sandbox;
  sandbox.id = os::random_hex(32);
  sandbox.isolation = mode;
  auto directory = scratch / sandbox.id;
  for (const char* part : {"workspace", "home", "logs"}) fs::create_directories(directory / part);
  test::Loop loop;
  agent::Supervisors all(
      loop.executor(), 1,
      [&](const fs::path& place) { return isolation.supervise(sandbox, place); },
      [](const std::string&) {});
  Times times;
  for (int i = 0; i < rounds; ++i) {
    times.add([&] { must(loop.run(all.connect(directory, {}))); });
    kill_supervisor(directory, [&loop] { loop.settle(); });
  }
  times.print(mode + ": supervisor, start to answer");
}

void commands(const std::string& mode, int rounds) {
  test::Machine machine;
  machine.environment["SANDBOX_ISOLATION"] = mode;
  auto exec = [&machine] {
    auto ended = machine.run({"exec", "--", "true"});
    if (ended.status != 0) throw std::runtime_error(ended.err);
  };
  exec();
  auto sandbox = fs::directory_iterator(machine.state() / "agent/sandboxes")->path();
  Times warm, started;
  for (int i = 0; i < rounds; ++i) {
    warm.add(exec);
    kill_supervisor(sandbox, [] {});
    started.add(exec);
  }
  warm.print(mode + ": exec");
  started.print(mode + ": exec, supervisor was killed");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    int rounds = argc > 1 ? std::atoi(argv[1]) : 30;
    test::Machine scratch;
    Times probes;
    for (int i = 0; i < rounds; ++i) probes.add([&] { open("bwrap", scratch.root()); });
    probes.print("bubblewrap probe");
    for (const char* mode : {"none", "bwrap"}) {
      supervisors(mode, scratch.root(), rounds);
      commands(mode, rounds);
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "isolation_bench: %s\n", error.what());
    return 1;
  }
}
