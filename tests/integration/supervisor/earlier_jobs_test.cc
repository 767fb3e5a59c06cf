// Real processes, but no supervisor: what is theirs and what only looks like it.
#include "agent/supervisor/earlier_jobs.h"

#include <signal.h>
#include <unistd.h>

#include "protocol/os/paths.h"
#include "protocol/os/process.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

using namespace agent::supervisor;
using namespace std::chrono_literals;
using std::chrono::steady_clock;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

struct World {
  test::TemporaryDirectory temporary;
  Directory directory{temporary / os::random_hex(32)};
  EndTimes times{300ms, 300ms, 300ms};

  World() { std::filesystem::create_directories(directory.workspace()); }
  Ledger ledger() {
    auto opened = Ledger::open(directory.ledger());
    REQUIRE(opened);
    return std::move(*opened);
  }
};

// A process that an earlier supervisor might have started; killed at the end, whoever has it then.
struct Started {
  os::Fd out;
  os::Process process;

  Started(const World& world, const std::string& script, const std::string& job = "j1",
          const std::string& cwd = "/")
      : process(start(world, script, job, cwd, out)) {
    char byte;
    REQUIRE(::read(out.get(), &byte, 1) == 1);  // it says that it is ready
  }
  static os::Process start(const World& world, const std::string& script, const std::string& job,
                           const std::string& cwd, os::Fd& out) {
    auto pipe = os::make_pipe();
    REQUIRE(pipe);
    os::Spawn spawn;
    spawn.argv = {"/bin/sh", "-c", script};
    spawn.env = std::map<std::string, std::string>{{"PATH", ::getenv("PATH")},
                                                   {"SANDBOX_ID", world.directory.sandbox()}};
    if (!job.empty()) (*spawn.env)[kJobVariable] = job;
    spawn.cwd = cwd;
    spawn.new_session = true;
    spawn.stdout_fd = pipe->write.get();
    auto started = os::Process::start(spawn);
    REQUIRE(started);
    out = std::move(pipe->read);
    return std::move(*started);
  }
  ~Started() {
    for (const os::ProcessInfo& left : os::session_processes(process.pid()))
      ::kill(left.pid, SIGKILL);
    (void)process.kill(SIGKILL);
    process.wait_blocking();
  }
  pid_t pid() const { return process.pid(); }
  std::uint64_t ticks() const { return os::start_ticks(process.pid()); }
  // A zombie is dead.
  bool alive() const { return !os::session_processes(process.pid()).empty(); }
};

constexpr const char* kWaits = "echo .; exec sleep 600 >/dev/null";

void note_running(Ledger& ledger, const Started& process, const std::string& job = "j1") {
  REQUIRE(ledger.starting(job, "origin"));
  ledger.running(job, process.pid(), process.ticks());
}

}  // namespace

TEST_CASE("a job that an earlier supervisor left is ended, and its result is owed") {
  World world;
  Started job(world, kWaits);
  Ledger before = world.ledger();
  note_running(before, job);
  Ledger ledger = world.ledger();
  REQUIRE(end_earlier_jobs(ledger, world.directory, world.times));
  CHECK_FALSE(job.alive());
  CHECK(ledger.owed() == std::vector<std::string>{"origin"});
  CHECK(job.process.wait_blocking().signal == SIGINT);
}

TEST_CASE("a job that hears neither INT nor TERM is killed, in its time, with all of its session") {
  World world;
  Started job(world,
              "trap 'echo i' INT; trap 'echo t' TERM; "
              "(trap '' INT TERM; while :; do sleep 0.02; done) & "
              "echo .; while :; do sleep 0.02; done");
  Ledger ledger = world.ledger();
  note_running(ledger, job);
  auto begun = steady_clock::now();
  REQUIRE(end_earlier_jobs(ledger, world.directory, world.times));
  CHECK(steady_clock::now() - begun >= world.times.interrupt + world.times.terminate);
  CHECK_FALSE(job.alive());
  CHECK(job.process.wait_blocking().signal == SIGKILL);
  char said[64] = {};
  CHECK(::read(job.out.get(), said, sizeof said) > 0);
  CHECK(std::string(said) == "\ni\nt\n");
}

TEST_CASE("a process that has got the number of a job since is not touched") {
  World world;
  Started other(world, kWaits, "");
  Ledger ledger = world.ledger();
  REQUIRE(ledger.starting("j1", "origin"));
  SECTION("with another start") { ledger.running("j1", other.pid(), other.ticks() - 1); }
  SECTION("in a session that is not ours") {
    // The number's session has lost its leader, and nothing shows that it was ours.
    Started leaderless(world, "sleep 601 >/dev/null & echo .; sleep 0.05", "");
    REQUIRE(leaderless.process.wait_blocking().ok());
    ledger.running("j1", leaderless.pid(), 5);
    REQUIRE(leaderless.alive());
    REQUIRE(end_earlier_jobs(ledger, world.directory, world.times));
    CHECK(leaderless.alive());
  }
  REQUIRE(end_earlier_jobs(ledger, world.directory, world.times));
  CHECK(other.alive());
  CHECK(ledger.is_owed("origin"));
}

TEST_CASE(
    "what was noted before the machine was started anew says nothing of what runs now, and what "
    "was changed then is no result") {
  World world;
  Started other(world, kWaits);
  {
    Ledger ledger = world.ledger();
    note_running(ledger, other);
    REQUIRE(ledger.starting("j2", "origin"));
    ledger.ended("j2");
  }
  std::string text = *os::read_file(world.directory.ledger(), 1 << 20);
  std::string boot = os::boot_id();
  for (std::size_t at; (at = text.find(boot)) != std::string::npos;) text[at] = boot[0] ^ 1;
  REQUIRE(os::write_file(world.directory.ledger(), text));
  Ledger ledger = world.ledger();
  REQUIRE(end_earlier_jobs(ledger, world.directory, world.times));
  CHECK(other.alive());
  CHECK(ledger.owed().empty());
  CHECK(world.ledger().owed().empty());
}

TEST_CASE("what stayed in a job's session is ended though the job itself is gone") {
  World world;
  std::string cwd = "/";
  std::string job = "j1";
  SECTION("known by the job's variable") {}
  SECTION("known by where it works") {
    cwd = world.directory.workspace().native();
    job = "";
  }
  Started left(world, "trap '' INT; sleep 602 >/dev/null & echo .; sleep 0.05", job, cwd);
  auto ticks = left.ticks();
  REQUIRE(left.process.wait_blocking().ok());
  REQUIRE(left.alive());
  Ledger ledger = world.ledger();
  REQUIRE(ledger.starting("j1", "origin"));
  ledger.running("j1", left.pid(), ticks);
  REQUIRE(end_earlier_jobs(ledger, world.directory, world.times));
  CHECK_FALSE(left.alive());
}

TEST_CASE("a job whose process had not been noted yet is found and ended") {
  World world;
  Started job(world, kWaits, "j7");
  Started other(world, kWaits, "j8");
  Ledger ledger = world.ledger();
  REQUIRE(ledger.starting("j7", "origin"));
  REQUIRE(end_earlier_jobs(ledger, world.directory, world.times));
  CHECK_FALSE(job.alive());
  CHECK(other.alive());
}

TEST_CASE("what left its job's session stays, and is known as a resident") {
  World world;
  Started job(world,
              "setsid sh -c 'echo $$; exec sleep 603 >/dev/null' & exec sleep 604 >/dev/null");
  char text[32] = {};
  REQUIRE(::read(job.out.get(), text, sizeof text - 1) > 0);  // after the digit that was awaited
  Ledger ledger = world.ledger();
  note_running(ledger, job);
  REQUIRE(end_earlier_jobs(ledger, world.directory, world.times));
  CHECK_FALSE(job.alive());
  auto residents = earlier_residents(world.directory);
  REQUIRE(residents.size() == 1);
  CHECK(residents[0].name == "sleep");
  CHECK(os::signal_process(residents[0], SIGKILL));
}

TEST_CASE("a signal reaches the process that was meant, or none") {
  World world;
  Started process(world, kWaits);
  os::ProcessInfo info = os::session_processes(process.pid()).at(0);
  os::ProcessInfo earlier = info;
  --earlier.started;
  CHECK_FALSE(os::signal_process(earlier, SIGKILL));
  CHECK(process.alive());
  CHECK(os::signal_process(info, SIGKILL));
  CHECK(process.process.wait_blocking().signal == SIGKILL);
}
