// The real agent and its supervisors: detached jobs through every death, and the bridge.
#include <signal.h>
#include <sys/resource.h>

#include <fstream>
#include <list>

#include "protocol/os/fd_stream.h"
#include "protocol/os/paths.h"
#include "protocol/os/subreaper.h"
#include "protocol/os/unix_socket.h"
#include "tests/support/agent_process.h"
#include "tests/support/catch.h"
#include "tests/support/places.h"
#include "tests/support/socket_pair.h"

using namespace test;
using namespace protocol::wire;
namespace os = protocol::os;

namespace {

bool is_alive(const std::string& pid) {
  auto all = os::processes();
  return std::any_of(all.begin(), all.end(), [&](const os::ProcessInfo& p) {
    return p.pid == std::stoi(pid) && !p.zombie;
  });
}

// An agent with sandbox 'a' of ann, ready; the box does one command at a time.
struct World : AgentProcess {
  World() : AgentProcess({"--slots", "1"}) {
    start();
    auto client = session();
    client.create('a');
    client.send(0, Ready{});
    client.expect<Bound>(0);
    client.finish();
  }
  SessionClient bound(char digit = 'a') {
    auto client = session();
    client.create(digit);
    return client;
  }
  std::filesystem::path file(const std::string& name) const {
    return sandbox('a') / "workspace" / name;
  }
  // What a command wrote into this file, once its line is whole.
  std::string line(const std::string& name) {
    until([&] { return !read_text(file(name)).empty() && read_text(file(name)).back() == '\n'; });
    return read_text(file(name));
  }
  std::string detach(const std::string& script) {
    auto client = bound();
    LockRequested lock;
    lock.verb = "exec";
    lock.command = script;
    Exec exec;
    exec.script = script;
    exec.detach = true;
    client.send(1, lock);
    client.send(1, exec);
    client.expect<Granted>(1);
    auto job = client.expect<Detached>(1).job;
    client.finish();
    return job;
  }
  void kill_supervisor(char digit) const {
    std::string record = read_text(sandbox(digit) / "supervisor.json");
    auto at = record.find("\"pid\":") + 6;
    REQUIRE(::kill(static_cast<pid_t>(std::stol(record.substr(at))), SIGKILL) == 0);
  }
  struct Seen {
    int status = -1;
    std::string out, err;
  };
  Seen attach(const std::string& job) {
    auto client = session();
    client.send(9, Attach{job, {}});
    CHECK(client.expect<Started>(9).job == job);
    Seen seen;
    seen.status = client.expect<Exited>(9).status;
    seen.out = client.bulk(FrameKind::output, 9);
    seen.err = client.bulk(FrameKind::error, 9);
    client.finish();
    return seen;
  }
  // Whether somebody else could run something now; if not, it is this job that has the box.
  bool is_free(const std::string& holder) {
    auto client = bound('b');
    LockRequested now;
    now.wait_seconds = 0;
    client.send(1, now);
    auto answer = client.next();
    client.finish();
    if (const auto* refused = std::get_if<Refused>(&answer)) {
      CHECK(refused->holders.at(0).job == holder);
      return false;
    }
    return true;
  }
  void until_free(const std::string& holder = {}) {
    for (int asked = 0; !is_free(holder); ++asked) {
      REQUIRE(asked < 1000);
    }
  }
};

// A command that prints until a file is there, and then says so.
const char* kPrinter =
    "i=0; echo $$ >pid; until [ -e stop ]; do i=$((i+1)); echo line $i; sleep 0.01; done; "
    "echo last >&2; exit 7";

void check_lines(const std::string& output, std::size_t at_least) {
  std::string expected;
  std::size_t lines = 0;
  while (expected.size() < output.size()) {
    expected += "line " + std::to_string(++lines) + "\n";
  }
  CHECK(output == expected);
  CHECK(lines >= at_least);
}

}  // namespace

TEST_CASE("program: a detached job keeps the box busy until it ends, and its output to its end") {
  World world;
  auto job = world.detach(kPrinter);
  world.line("pid");
  CHECK_FALSE(world.is_free(job));
  auto early = world.session();
  early.send(2, Attach{job, {}});
  early.expect<Started>(2);
  std::ofstream(world.file("stop")) << "now\n";
  CHECK(early.expect<Exited>(2).status == 7);
  check_lines(early.bulk(FrameKind::output, 2), 1);
  CHECK(early.bulk(FrameKind::error, 2) == "last\n");
  world.until_free(job);
  auto late = world.attach(job);
  CHECK(late.status == 7);
  CHECK(late.out == early.bulk(FrameKind::output, 2));
  early.send(0, JobsRequest{});
  auto jobs = early.expect<Jobs>(0).jobs;
  REQUIRE(jobs.size() == 1);
  CHECK(jobs[0].state == "exited");
  CHECK(jobs[0].status == 7);
  early.finish();
}

TEST_CASE("program: a killed agent's detached job goes on, and its successor has its lock") {
  World world;
  auto job = world.detach(kPrinter);
  auto pid = world.line("pid");
  world.kill(SIGKILL);
  CHECK(world.wait() == 128 + SIGKILL);
  CHECK(is_alive(pid));
  world.start();
  CHECK(is_alive(pid));
  CHECK_FALSE(world.is_free(job));
  std::ofstream(world.file("stop")) << "now\n";
  auto seen = world.attach(job);
  CHECK(seen.status == 7);
  check_lines(seen.out, 1);
  CHECK(seen.err == "last\n");
  world.until_free(job);
}

TEST_CASE(
    "program: a job that ended while no agent was there holds nothing, and its output is there") {
  World world;
  auto job = world.detach(kPrinter);
  auto pid = world.line("pid");
  world.kill(SIGKILL);
  world.wait();
  std::ofstream(world.file("stop")) << "now\n";
  world.until([&] { return !is_alive(pid); });
  world.start();
  CHECK(world.is_free({}));
  auto client = world.session();
  client.send(0, JobsRequest{});
  CHECK(client.expect<Jobs>(0).jobs.at(0).status == 7);
  client.finish();
  auto seen = world.attach(job);
  CHECK(seen.status == 7);
  check_lines(seen.out, 1);
}

TEST_CASE("program: a job that is killed while no agent was there holds nothing either") {
  World world;
  world.detach("echo $$ >pid; exec sleep 1000");
  auto pid = world.line("pid");
  world.kill(SIGKILL);
  world.wait();
  ::kill(static_cast<pid_t>(std::stol(pid)), SIGKILL);
  world.until([&] { return !is_alive(pid); });
  world.start();
  CHECK(world.is_free({}));
  auto client = world.session();
  client.send(0, JobsRequest{});
  auto ended = client.expect<Jobs>(0).jobs.at(0);
  CHECK(ended.state == "exited");
  CHECK(ended.signal == "KILL");
  client.finish();
}

TEST_CASE("program: an agent that is told to stop leaves detached jobs running") {
  World world;
  auto job = world.detach(kPrinter);
  auto pid = world.line("pid");
  world.kill(SIGTERM);
  CHECK(world.wait() == 0);
  CHECK(is_alive(pid));
  world.start();
  CHECK_FALSE(world.is_free(job));
  auto client = world.session();
  Kill kill;
  kill.job = job;
  client.send(3, kill);
  CHECK(client.expect<Killed>(3).jobs == std::vector<std::string>{job});
  CHECK_FALSE(is_alive(pid));
  client.finish();
  CHECK(world.is_free({}));
}

TEST_CASE("program: nobody runs beside what a killed supervisor has left") {
  World world;
  auto client = world.bound();
  // It writes nothing: the pipes that it had went with the supervisor.
  client.send_command(1,
                      "exec >/dev/null 2>&1; trap 'rm -f busy; exit' INT; touch busy;"
                      "echo $$ >pid; while :; do sleep 0.01; done");
  client.expect<Granted>(1);
  client.expect<Started>(1);
  auto pid = world.line("pid");
  auto next = world.bound('b');
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  world.kill_supervisor('a');
  CHECK(client.expect<Failed>(1).code == "gone");
  Message message = next.next();
  while (!std::holds_alternative<Granted>(message)) {
    message = next.next();
  }
  CHECK_FALSE(is_alive(pid));
  CHECK_FALSE(std::filesystem::exists(world.file("busy")));
}

TEST_CASE("program: a low soft limit of open files keeps no client out, and is that of commands") {
  struct FewFiles {
    FewFiles() {
      REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
      rlimit few = before;
      few.rlim_cur = 128;
      REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
    }
    ~FewFiles() { ::setrlimit(RLIMIT_NOFILE, &before); }
    rlimit before = {};
  };
  std::unique_ptr<World> world;
  {
    FewFiles limit;
    world = std::make_unique<World>();
  }
  auto client = world->bound();
  CHECK(client.run(1, "ulimit -Sn").out == "128\n");
  // Each has a connection and a session lock there.
  std::list<SessionClient> clients;
  for (int i = 0; i < 80; ++i) {
    clients.push_back(world->bound());
  }
  clients.back().send(0, InfoRequest{});
  clients.back().expect<Info>(0);
}

TEST_CASE("program: nothing new begins under a lock whose supervisor was killed") {
  World world;
  auto client = world.bound();
  Exec exec;
  exec.script =
      "exec >/dev/null 2>&1; trap 'until [ -e go ]; do sleep 0.01; done; exit' INT;"
      "echo $$ >pid; while :; do sleep 0.01; done";
  client.send(1, LockRequested{});
  client.send(1, exec);
  client.expect<Granted>(1);
  client.expect<Started>(1);
  auto pid = world.line("pid");
  auto next = world.bound('b');
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  world.kill_supervisor('a');
  CHECK(client.expect<Failed>(1).code == "gone");
  // What is left is being ended, which this command takes its time for.
  exec.script = "touch ran; sleep 100";
  client.send(2, exec);
  auto failed = client.expect<Failed>(2);
  CHECK(failed.step == "exec");
  CHECK(failed.code == "refused");
  std::ofstream(world.file("go")) << "now\n";
  client.expect<Released>(1);
  Message message = next.next();
  while (!std::holds_alternative<Granted>(message)) {
    message = next.next();
  }
  CHECK_FALSE(is_alive(pid));
  CHECK_FALSE(std::filesystem::exists(world.file("ran")));
}

TEST_CASE(
    "program: a detached job whose supervisor is killed is lost, and frees the box when it is "
    "gone") {
  World world;
  world.detach("echo out; echo $$ >pid; exec sleep 1000");
  auto pid = world.line("pid");
  world.kill_supervisor('a');
  auto next = world.bound('b');
  next.send(1, LockRequested{});
  Message message = next.next();
  while (!std::holds_alternative<Granted>(message)) {
    message = next.next();
  }
  CHECK_FALSE(is_alive(pid));
  next.send(0, JobsRequest{});
  CHECK(next.expect<Jobs>(0).jobs.at(0).state == "lost");
}

// ---- the bridge ------------------------------------------------------------------------------

TEST_CASE(
    "program: the bridge joins stdin and stdout to the agent's socket, to the end of either") {
  World world;
  auto pair = test::make_socket_pair();
  os::Spawn spawn;
  spawn.argv = {SANDBOX_BIN_DIR "/sandbox-agent", "bridge", "--state", world.state().string()};
  spawn.stdin_fd = pair.second.get();
  spawn.stdout_fd = pair.second.get();
  auto bridge = os::Process::start(spawn);
  REQUIRE(bridge);
  pair.second.reset();
  SessionClient client(world.loop, nullptr,
                       os::FdStream::both(world.loop.executor(), std::move(pair.first)));
  client.send(0, SessionStart{kProtocolVersion});
  CHECK(client.expect<Info>(0).user == os::user_name());
  client.create('c');
  CHECK(client.run(1, "head -c 1000000 /dev/zero").out.size() == 1000000);
  client.finish();
  CHECK(bridge->wait_blocking().ok());
}

TEST_CASE("program: a bridge whose client is killed ends, and frees what its session had") {
  World world;
  auto pair = test::make_socket_pair();
  os::Spawn spawn;
  spawn.argv = {SANDBOX_BIN_DIR "/sandbox-agent", "bridge", "--state", world.state().string()};
  spawn.stdin_fd = pair.second.get();
  spawn.stdout_fd = pair.second.get();
  auto bridge = os::Process::start(spawn);
  REQUIRE(bridge);
  pair.second.reset();
  SessionClient client(world.loop, nullptr,
                       os::FdStream::both(world.loop.executor(), std::move(pair.first)));
  client.send(0, SessionStart{kProtocolVersion});
  client.expect<Info>(0);
  client.create('c');
  client.send(1, LockRequested{});
  client.expect<Granted>(1);
  CHECK_FALSE(world.is_free({}));
  client.frames().close();
  world.until_free();
  CHECK(bridge->wait_blocking().ok());
}

TEST_CASE("program: a bridge to nobody says what to do, and starts nothing") {
  TemporaryDirectory directory;
  os::Spawn spawn;
  spawn.argv = {SANDBOX_BIN_DIR "/sandbox-agent", "bridge", "--state", directory.path().string()};
  auto ran = os::run(spawn);
  REQUIRE(ran);
  CHECK(ran->exit.status == 1);
  CHECK(ran->out.empty());
  CHECK(ran->err.find("sandbox-agent serve") != std::string::npos);
  CHECK(std::filesystem::is_empty(directory.path()));
}
