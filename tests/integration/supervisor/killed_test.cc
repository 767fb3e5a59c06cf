// The real program, killed with -9, and the one that comes after it.
#include <signal.h>

#include <fstream>

#include "protocol/os/paths.h"
#include "protocol/os/process.h"
#include "protocol/os/subreaper.h"
#include "protocol/os/unix_socket.h"
#include "tests/support/catch.h"
#include "tests/support/places.h"
#include "tests/support/supervised.h"

using namespace std::chrono_literals;
using test::Client;
using test::Supervised;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

class Program {
 public:
  Program() { std::filesystem::create_directories(sandbox() / "logs"); }
  ~Program() {
    if (process_) kill();
  }
  std::filesystem::path sandbox() const { return directory_ / id_; }
  std::filesystem::path workspace() const { return sandbox() / "workspace"; }

  // Until it says that it is ready.
  void start() {
    auto pipe = os::make_pipe();
    REQUIRE(pipe);
    os::Spawn spawn;
    spawn.argv = {SANDBOX_BIN_DIR "/sandbox-agent", "supervise", "--directory", sandbox().native()};
    spawn.stdout_fd = pipe->write.get();
    spawn.new_session = true;
    auto started = os::Process::start(spawn);
    REQUIRE(started);
    process_.emplace(std::move(*started));
    pipe->write.reset();
    char said[16];
    REQUIRE(::read(pipe->read.get(), said, sizeof said) == 6);
  }
  // With -9, at once.
  void kill() {
    REQUIRE(process_->kill(SIGKILL));
    process_->wait_blocking();
    process_.reset();
  }
  void wait() {
    CHECK(process_->wait_blocking().ok());
    process_.reset();
  }
  std::unique_ptr<Client> connect() {
    auto stream = loop.run(os::connect_unix(loop.executor(), sandbox() / "supervisor.sock"));
    REQUIRE(stream);
    auto client = std::make_unique<Client>(loop, std::move(*stream));
    client->send(0, wire::Hello{});
    client->expect<wire::Hello>();
    return client;
  }
  test::Loop loop;

 private:
  test::TemporaryDirectory directory_;
  std::string id_ = os::random_hex(32);
  std::optional<os::Process> process_;
};

bool is_alive(std::int64_t pid) { return !os::session_processes(static_cast<pid_t>(pid)).empty(); }

}  // namespace

TEST_CASE("a command of a supervisor that was killed does not live to meet the next command") {
  Program program;
  program.start();
  auto client = program.connect();
  client->exec(1, "echo ready; while :; do echo beat >>beats; sleep 0.01; done");
  auto started = client->expect<wire::Started>();
  client->wait_output(1, "ready");
  client.reset();
  program.kill();
  CHECK(is_alive(started.pid));

  program.start();
  CHECK_FALSE(is_alive(started.pid));
  client = program.connect();
  client->exec(1, "wc -l <beats; sleep 0.1; wc -l <beats");
  CHECK(client->expect<wire::Exited>().status == 0);
  std::string counted = client->output(1);
  std::string first = counted.substr(0, counted.find('\n'));
  CHECK(counted == first + "\n" + first + "\n");
}

TEST_CASE("a supervisor that was killed at any moment of a job's life leaves no command behind") {
  Program program;
  const std::string mine = "SANDBOX_ID=" + program.sandbox().filename().native();
  for (int round = 0; round < 12; ++round) {
    INFO("round " << round);
    program.start();
    auto client = program.connect();
    for (std::uint32_t number = 1; number <= 20; ++number)
      client->exec(number, "trap '' INT; exec sleep 605");
    client->loop.run(os::pause(program.loop.executor(), std::chrono::milliseconds(round)));
    client.reset();
    program.kill();
    program.start();
    for (const os::ProcessInfo& process : os::processes())
      CHECK_FALSE(os::started_with(process.pid, mine));
    program.kill();
  }
}

TEST_CASE("a resident of a supervisor that was killed is the next one's") {
  Program program;
  program.start();
  auto client = program.connect();
  client->exec(1, "setsid sh -c 'echo $$; exec sleep 606 >/dev/null 2>&1' & wait");
  client->wait_output(1, "\n");
  auto resident = std::stol(client->output(1));
  client.reset();
  program.kill();
  program.start();
  CHECK(is_alive(resident));
  client = program.connect();
  client->send(1, wire::StatusRequest{});
  auto status = client->expect<wire::Status>();
  REQUIRE(status.jobs.size() == 1);
  CHECK(status.jobs[0].state == "resident");
  CHECK(status.jobs[0].pid == resident);
  client->send(2, wire::Shutdown{});
  client->expect<wire::Ended>();
  CHECK_FALSE(is_alive(resident));
  program.wait();
}

// ---- results that are owed ---------------------------------------------------------------------

namespace {

wire::Result some_result(std::string id) {
  wire::Result result;
  result.result = std::move(id);
  result.base = "base";
  return result;
}

using Calls = std::vector<std::string>;

}  // namespace

TEST_CASE("a result that could not be taken comes home with the next operation, and is no drift") {
  Supervised s;
  auto client = s.connect("a");
  client->sync(1, "s1", "pack");
  client->exec(1, "true");
  client->send(1, wire::LockReleased{});
  s.script->fail_take = wire::Failure(wire::Errc::no_space, "the disk is full");
  CHECK(client->expect<wire::Failed>().code == "no_space");
  client->send(2, wire::StatusRequest{});
  CHECK(client->expect<wire::Status>().unmerged);
  s.script->calls.clear();

  SECTION("as long as it cannot be taken nothing is written over it") {
    auto other = s.connect("b");
    other->sync(1, "s2", "pack");
    other->exec(1, "touch never");
    auto failed = other->expect<wire::Failed>();
    CHECK(failed.step == "__rwx_sandbox_sync_start__");
    CHECK(failed.code == "no_space");
    CHECK(failed.message.find("earlier command") != std::string::npos);
    other->expect<wire::Skipped>();
    CHECK(s.script->taken_calls() == Calls{"take a"});
  }
  s.script->fail_take.reset();
  s.script->next = some_result("r1");
  SECTION("a sync of another origin") {
    s.script->calls.clear();
    auto other = s.connect("b");
    other->sync(1, "s2", "pack");
    other->expect<wire::Applied>();
    CHECK(s.script->taken_calls() == Calls{"take a", "pack 4", "apply s2"});
    client->sync(3, "s3", "pack");
    CHECK(client->expect<wire::Stale>().result == "r1");
  }
  SECTION("a sync of its own") {
    client->sync(3, "s3", "pack");
    CHECK(client->expect<wire::Stale>().result == "r1");
    CHECK(client->expect<wire::Result>().result == "r1");
  }
  SECTION("a pull of its own") {
    client->send(3, wire::Pull{});
    CHECK(client->expect<wire::Result>().result == "r1");
  }
  SECTION("a command of another origin, before it begins") {
    auto other = s.connect("b");
    s.script->calls.clear();
    other->exec(1, "true");
    other->expect<wire::Exited>();
    CHECK(s.script->taken_calls() == Calls{"take a"});
  }
  SECTION("the end of its session") {
    client->send(0, wire::Hangup{});
    client->expect<wire::Ended>();
    CHECK(s.script->results.contains("a"));
  }
  SECTION("the same, after the supervisor began anew") {
    client->send(0, wire::Shutdown{});
    client->expect<wire::Ended>();
    client.reset();
    s.wait_stopped();
    s.supervisor.reset();
    // What an ending session took is what a killed supervisor's would not have.
    s.script->results.clear();
    s.script->next = some_result("r1");
    {
      auto ledger = agent::supervisor::Ledger::open(s.options.directory / "supervisor.jobs");
      REQUIRE(ledger);
      REQUIRE(ledger->starting("0123456789abcdef", "a"));
    }
    auto other = s.connect("b");
    other->sync(1, "s2", "pack");
    other->expect<wire::Applied>();
    CHECK(s.script->results.contains("a"));
  }
  // Once is enough.
  auto later = s.connect("c");
  later->sync(1, "s8", "pack");
  later->expect<wire::Applied>();
  s.script->calls.clear();
  later->sync(2, "s9", "pack");
  later->expect<wire::Applied>();
  CHECK(s.script->taken_calls() == Calls{"pack 4", "apply s9"});
}

TEST_CASE("a command that makes room on a full disk is not kept from running") {
  Supervised s;
  auto client = s.connect("a");
  client->exec(1, "true");
  client->send(1, wire::LockReleased{});
  s.script->fail_take = wire::Failure(wire::Errc::no_space, "the disk is full");
  client->expect<wire::Failed>();
  auto other = s.connect("");
  other->exec(1, "exit 3");
  CHECK(other->expect<wire::Exited>().status == 3);
}

TEST_CASE("a result that somebody else's operation took is still the answer to its own release") {
  Supervised s;
  auto client = s.connect("a");
  client->exec(1, "true");
  client->expect<wire::Exited>();
  s.script->next = some_result("r1");
  auto forced = s.connect("b");
  forced->sync(1, "s2", "pack");
  forced->expect<wire::Applied>();
  client->send(1, wire::LockReleased{});
  CHECK(client->expect<wire::Result>().result == "r1");
}
