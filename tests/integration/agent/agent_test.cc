// An agent as a whole: its start, whom it lets in, and its end.
#include <fstream>

#include "agent/authorized_keys.h"
#include "tests/support/agent_process.h"
#include "tests/support/agent_world.h"
#include "tests/support/catch.h"

using namespace test;
using namespace protocol::wire;

TEST_CASE("a restarted agent ends what ran, before it lets anybody in") {
  AgentWorld world;
  world.start();
  {
    auto client = world.session();
    client.create('a');
    client.finish();
  }
  CHECK(world.stop());
  JobInfo running;
  running.job = "job1";
  running.state = "running";
  JobInfo resident;
  resident.job = "daemon";
  resident.state = "resident";
  FakeSupervisor supervisor(world, world.sandbox('a'), {running, resident});
  bool ended = false;
  world.loop.start(
      [](FakeSupervisor& s, AgentWorld& w, bool& done) -> protocol::os::awaitable<void> {
        while (s.connections() == 0) {
          co_await protocol::os::pause(w.loop.executor(), std::chrono::milliseconds(1));
        }
        auto& connection = s.connection_now(0);
        while (connection.came.empty()) {
          co_await protocol::os::pause(w.loop.executor(), std::chrono::milliseconds(1));
        }
        done = w.agent().address().empty();
        connection.frames->send(0, Ended{});
      }(supervisor, world, ended));
  world.start();
  CHECK(ended);
  CHECK(supervisor.has(0, "0 end_job"));
  CHECK(supervisor.connection(0).log.size() == 1);
}

TEST_CASE("a stopping agent sends waiters away, and ends commands when their time is over") {
  AgentWorld world;
  world.start();
  Running run(world);
  auto waiting = world.session();
  waiting.create('a');
  waiting.send(1, LockRequested{});
  waiting.expect<Queued>(1);
  world.agent().stop();
  CHECK(waiting.expect<Failed>(0).code == "gone");
  waiting.until_end();
  run.supervisor->expect(0, 0, "hangup");
  run.supervisor->send(0, 0, Ended{});
  CHECK(world.wait_for_end());
  CHECK(!std::filesystem::exists(world.state() / "agent.json"));
}

namespace {

// Returns when an agent on the same loop that nobody ever used has ended for that.
void outlast_an_idle_one(AgentWorld& world) {
  TemporaryDirectory directory;
  agent::AgentSettings settings;
  settings.serve.state = directory / "state";
  settings.serve.name = "other";
  settings.serve.isolation = agent::IsolationMode::none;
  settings.serve.idle_exit = std::chrono::seconds(1);
  agent::Agent idle(world.loop.executor(), settings);
  CHECK(world.loop.run(idle.run()));
  world.loop.settle();  // what it had under way ends before it goes
}

}  // namespace

TEST_CASE("an agent that nobody uses ends itself, but not under a session or a detached job") {
  AgentWorld world([](auto& settings) { settings.serve.idle_exit = std::chrono::seconds(1); });
  world.start();
  auto client = world.session();
  client.create('a');
  outlast_an_idle_one(world);
  CHECK(world.running());
  FakeSupervisor supervisor(world, world.sandbox('a'));
  Exec exec;
  exec.script = "make";
  exec.detach = true;
  client.send(1, LockRequested{});
  client.send(1, exec);
  client.expect<Granted>(1);
  supervisor.expect(0, 1, "exec");
  supervisor.send(0, 1, Started{std::string(32, '1'), 7});
  client.expect<Detached>(1);
  supervisor.expect(1, 1, "watch_job");
  client.vanish();
  outlast_an_idle_one(world);
  CHECK(world.running());
  supervisor.send(1, 1, Exited{});
  CHECK(world.wait_for_end());
}

TEST_CASE("a stopping agent lets nobody in and nothing begin, and lets what runs come to its end") {
  AgentWorld world([](auto& settings) { settings.stop_grace = std::chrono::minutes(10); });
  world.start();
  auto connection = world.connect();
  auto stream = world.loop.run(connection->exec("__rwx_sandbox_session__ {\"version\":1}"));
  REQUIRE(stream);
  SessionClient client(world.loop, connection, std::move(*stream));
  client.create('a');
  FakeSupervisor supervisor(world, world.sandbox('a'));
  client.send_command(1, "make");
  client.expect<Granted>(1);
  supervisor.expect(0, 1, "exec");
  supervisor.send(0, 1, Started{"job", 1});
  client.expect<Started>(1);
  world.agent().stop();
  world.until([&] { return !std::filesystem::exists(world.state() / "agent.sock"); });
  CHECK_THROWS(world.connect());
  auto late = world.loop.run(connection->exec("touch never"));
  if (late) {
    bool over = false;
    world.loop.start(
        [](protocol::os::ByteStream& from, bool& end) -> protocol::os::awaitable<void> {
          std::byte buffer[16];
          auto count = co_await from.read_some(buffer);
          end = !count || *count == 0;
        }(**late, over));
    world.until([&] { return over || supervisor.connections() > 1; });
    CHECK(over);
  }
  CHECK(supervisor.connections() == 1);
  supervisor.send(0, 1, Exited{});
  supervisor.send(0, 1, Unchanged{});
  client.expect<Exited>(1);
  client.expect<Unchanged>(1);
  client.expect<Released>(1);
  CHECK(!supervisor.has(0, "0 hangup"));
  CHECK(world.wait_for_end());
}

TEST_CASE("a damaged database is named, with what to do about it, and left as it is") {
  AgentWorld world;
  std::string garbage = "this is no database, and never was one";
  std::ofstream(world.state() / "agent.db") << garbage << std::flush;
  try {
    world.start();
    FAIL("it started");
  } catch (const agent::CannotRun& e) {
    std::string text = e.what();
    CHECK(e.status == 1);
    CHECK(text.find((world.state() / "agent.db").string()) != std::string::npos);
    CHECK(text.find("move ") != std::string::npos);
  }
  CHECK(read_text(world.state() / "agent.db") == garbage);
}

TEST_CASE("two agents never share a state directory") {
  AgentWorld world;
  world.start();
  agent::AgentSettings settings;
  settings.serve.state = world.state();
  settings.serve.name = "other";
  try {
    agent::Agent second(world.loop.executor(), settings);
    FAIL("it started");
  } catch (const agent::CannotRun& e) {
    CHECK(e.status == 75);
    CHECK(std::string(e.what()).find(world.state().string()) != std::string::npos);
  }
}

TEST_CASE("a key that the file does not name is not let in; one that is added while it runs is") {
  AgentWorld world;
  world.start();
  auto key = world.key();
  auto other = protocol::ssh::PrivateKey::generate_ed25519();
  REQUIRE(other);
  world.key() = *other;
  CHECK_THROWS(world.connect());
  REQUIRE(
      agent::authorize_key(world.state() / "authorized_keys", other->public_key().text(), "bob"));
  auto client = world.session();
  client.send(0, InfoRequest{});
  CHECK(client.expect<Info>(0).user == "bob");
}
