// Detached jobs, with the test as the supervisor: whose lock it is when, and what is on the disk.
#include <list>

#include "agent/relay.h"
#include "agent/store.h"
#include "protocol/os/paths.h"
#include "protocol/wire/limits.h"
#include "tests/support/agent_world.h"
#include "tests/support/catch.h"

using namespace test;
using namespace protocol::wire;

namespace {

const std::string kJob = std::string(31, '0') + "1";

Exec detached(const std::string& script) {
  Exec exec;
  exec.script = script;
  exec.detach = true;
  return exec;
}

LockRequested at_once(const std::string& command, bool force = false) {
  LockRequested lock;
  lock.verb = "exec";
  lock.command = command;
  lock.wait_seconds = 0;
  lock.force = force;
  return lock;
}

struct World : AgentWorld {
  explicit World(std::function<void(agent::AgentSettings&)> tune = {})
      : AgentWorld(std::move(tune)) {
    start();
    auto client = bound("alice");
    client.finish();
    serve();
  }
  void serve(std::vector<JobInfo> jobs = {}) {
    supervisor.reset();
    supervisor = std::make_unique<FakeSupervisor>(*this, sandbox('a'), std::move(jobs));
  }
  SessionClient bound(const std::string& user, char digit = 'a') {
    auto client = session();
    client.create(digit, user);
    return client;
  }
  // With the job at the supervisor, on connection n, and its watch on the next.
  SessionClient detach(std::size_t n = 0, const std::string& job = kJob) {
    auto client = bound("alice");
    client.send(1, at_once("make all"));
    client.send(1, detached("make all"));
    client.expect<Granted>(1);
    auto exec = std::get<Exec>(supervisor->expect(n, 1, "exec"));
    CHECK(exec.detach);
    supervisor->send(n, 1, Started{job, 7});
    CHECK(client.expect<Detached>(1).job == job);
    supervisor->expect(n, 1, "detach");
    CHECK(std::get<WatchJob>(supervisor->expect(n + 1, 1, "watch_job")).job == job);
    return client;
  }
  std::vector<DetachedJob> jobs(const std::string& user) {
    auto client = session();
    client.send(5, JobsRequest{user});
    auto all = client.expect<Jobs>(5).jobs;
    client.finish();
    return all;
  }
  std::vector<Holder> holders(const std::string& user = "alice") {
    auto client = session();
    client.send(5, BoxRequest{user, {}});
    auto box = client.expect<Box>(5);
    client.finish();
    return box.holders;
  }
  void until_free() {
    for (int asked = 0; !holders().empty(); ++asked) {
      REQUIRE(asked < 1000);
    }
  }
  std::vector<agent::JobRecord> records() {
    auto store = agent::Store::open(state() / "agent.db");
    REQUIRE(store);
    return *loop.run((*store)->jobs());
  }

  std::unique_ptr<FakeSupervisor> supervisor;
};

JobInfo running(const std::string& job) {
  JobInfo info;
  info.job = job;
  info.state = "running";
  return info;
}

}  // namespace

TEST_CASE("a detached job has its session's lock until it ends, whatever becomes of the session") {
  World world;
  auto client = world.detach();
  auto other = world.bound("alice");
  other.send(1, at_once("ls"));
  auto refused = other.expect<Refused>(1);
  CHECK(refused.why == "busy");
  REQUIRE(refused.holders.size() == 1);
  CHECK(refused.holders[0].user == "alice");
  CHECK(refused.holders[0].command == "make all");
  CHECK(refused.holders[0].job == kJob);
  client.finish();
  CHECK_FALSE(world.supervisor->has(0, "0 hangup"));
  other.send(2, LockRequested{});
  CHECK(other.expect<Queued>(2).holders.at(0).job == kJob);
  world.supervisor->send(1, 1, Exited{3, "", false, false, {}});
  CHECK(other.expect<Granted>(2).queued);
  auto jobs = world.jobs("alice");
  REQUIRE(jobs.size() == 1);
  CHECK(jobs[0].job == kJob);
  CHECK(jobs[0].sandbox == sandbox_id('a'));
  CHECK(jobs[0].state == "exited");
  CHECK(jobs[0].status == 3);
  CHECK(jobs[0].ended_at.back() == 'Z');
}

TEST_CASE("a session that has detached a job may ask for the lock again, and waits for the job") {
  World world;
  auto client = world.detach();
  client.send(2, LockRequested{});
  CHECK(client.expect<Queued>(2).holders.at(0).job == kJob);
  world.supervisor->send(1, 1, Exited{});
  client.expect<Granted>(2);
}

TEST_CASE("what was sent behind a detached command is skipped") {
  World world;
  auto client = world.bound("alice");
  client.send(1, at_once("make all"));
  client.send(1, detached("make all"));
  client.send(1, LockReleased{});
  client.expect<Granted>(1);
  CHECK(client.expect<Skipped>(1).step == "__rwx_sandbox_lock_released__");
  world.supervisor->expect(0, 1, "exec");
  world.supervisor->send(0, 1, Started{kJob, 7});
  client.expect<Detached>(1);
  CHECK(world.holders().at(0).job == kJob);
}

TEST_CASE("a job is written down before its client hears that it is detached") {
  World world;
  auto client = world.detach();
  world.supervisor->send(1, 1, Exited{});
  world.until_free();
  client.finish();
  CHECK(world.stop());
  auto records = world.records();
  REQUIRE(records.size() == 1);
  CHECK(records[0].id == kJob);
  CHECK(records[0].user == "alice");
  CHECK(records[0].command == "make all");
  CHECK(records[0].fence.find('.') != std::string::npos);
  CHECK(records[0].state == "exited");
}

TEST_CASE("a client that vanishes before its job is detached has it ended like any other") {
  World world;
  auto client = world.bound("alice");
  client.send(1, at_once("make all"));
  client.send(1, detached("make all"));
  client.expect<Granted>(1);
  world.supervisor->expect(0, 1, "exec");
  client.vanish();
  world.supervisor->expect(0, 0, "hangup");
  world.supervisor->send(0, 1, Started{kJob, 7});
  world.supervisor->send(0, 0, Ended{});
  world.until_free();
  CHECK(world.jobs("alice").empty());
}

TEST_CASE("a supervisor cannot pass one job off as another") {
  World world;
  auto first = world.detach();
  auto second = world.bound("alice");
  second.send(1, at_once("evil", true));
  second.send(1, detached("evil"));
  second.expect<Granted>(1);
  world.supervisor->expect(2, 1, "exec");
  world.supervisor->send(2, 1, Started{kJob, 7});
  CHECK(second.expect<Failed>(1).code == "bad_input");
  world.supervisor->expect(2, 0, "hangup");
  world.supervisor->send(2, 0, Ended{});
  second.expect<Released>(1);
  CHECK(world.jobs("alice").size() == 1);
  CHECK(world.jobs("alice").at(0).command == "make all");
}

TEST_CASE("silence ends no detached job") {
  World world([](auto& settings) { settings.lock_ttl = std::chrono::seconds(1); });
  auto client = world.detach();
  client.finish();
  // Another's wait is as long as the limit of silence, and more: it ends, the job does not.
  auto other = world.bound("alice");
  LockRequested wait;
  wait.wait_seconds = 2;
  other.send(1, wait);
  other.expect<Queued>(1);
  Message answer = Heartbeat{};
  bool stop = false;
  world.loop.start([](AgentWorld& w, SessionClient& c, bool& end) -> protocol::os::awaitable<void> {
    while (!end) {
      c.send(0, Heartbeat{});
      co_await protocol::os::pause(w.loop.executor(), std::chrono::milliseconds(100));
    }
  }(world, other, stop));
  CHECK(other.expect<Refused>(1).why == "expired");
  stop = true;
  CHECK(world.holders().at(0).job == kJob);
  CHECK_FALSE(world.supervisor->has(1, "0 hangup"));
}

TEST_CASE("ending a sandbox is refused while a detached job runs in it, and ends it by force") {
  World world;
  auto client = world.detach();
  client.send(0, End{});
  CHECK(client.expect<Refused>(0).holders.at(0).job == kJob);
  client.send(0, End{true});
  world.supervisor->expect(2, 0, "shutdown");
  world.supervisor->connection(1).frames->close();
  world.supervisor->send(2, 0, Ended{});
  world.supervisor->expect(3, 0, "shutdown");
  world.supervisor->send(3, 0, Ended{});
  client.expect<Ended>(0);
  CHECK(world.holders().empty());
  CHECK(world.jobs("alice").empty());
}

// ---- other people's jobs

TEST_CASE("others see that a job runs and whose it is, but neither its sandbox nor its output") {
  World world;
  auto client = world.detach();
  auto seen = world.jobs("bob");
  REQUIRE(seen.size() == 1);
  CHECK(seen[0].user == "alice");
  CHECK(seen[0].command == "make all");
  CHECK(seen[0].sandbox.empty());
  auto bob = world.session();
  bob.send(3, Attach{kJob, "bob"});
  CHECK(bob.expect<Failed>(3).code == "denied");
  bob.send(4, Attach{"ffffff", "bob"});
  CHECK(bob.expect<Failed>(4).code == "not_found");
  bob.send(0, Attach{kJob, "alice"});
  CHECK(bob.expect<Failed>(0).code == "bad_input");
  world.supervisor->send(1, 1, Exited{});
  world.until_free();
  CHECK(world.jobs("bob").empty());
}

TEST_CASE("attach brings all output under the client's credit, and ends nothing when it ends") {
  World world;
  auto first = world.detach();
  first.finish();
  auto client = world.session();
  client.send(4, Attach{kJob.substr(0, 8), "alice"});
  CHECK(std::get<Attach>(world.supervisor->expect(2, 4, "attach")).job == kJob);
  world.supervisor->send(2, 4, Started{kJob, 7});
  CHECK(client.expect<Started>(4).job == kJob);
  auto& from = world.supervisor->connection(2);
  const std::string much(kInitialStreamCredit, 'x');
  bool all = false;
  world.loop.start([](protocol::os::FrameStream& frames, std::string bytes,
                      bool& done) -> protocol::os::awaitable<void> {
    for (int i = 0; i < 4; ++i) {
      auto sent = co_await frames.send_bulk(FrameKind::output, 4, bytes);
      done = sent.has_value();
    }
    frames.end_bulk(FrameKind::output, 4);
    frames.end_bulk(FrameKind::error, 4);
    frames.send(4, Exited{9, "", false, false, {}});
  }(*from.frames, much, all));
  CHECK(client.expect<Exited>(4).status == 9);
  CHECK(all);
  CHECK(client.bulk(FrameKind::output, 4).size() == 4 * much.size());
  // Its number is used up, and the session is none the worse for it.
  client.send(4, Attach{kJob, "alice"});
  CHECK(client.expect<Failed>(4).code == "bad_input");
  client.send(6, Attach{kJob, "alice"});
  world.supervisor->expect(3, 6, "attach");
  client.finish();
  world.until([&] { return world.supervisor->connection_now(3).gone; });
  CHECK_FALSE(world.supervisor->has(3, "0 hangup"));
  CHECK(world.holders().at(0).job == kJob);
}

// ---- kill

TEST_CASE("input for an attached job that nobody takes is not piled up in the agent") {
  World world;
  auto detached = world.detach();
  auto client = world.session();
  client.send(4, Attach{kJob, "alice"});
  world.supervisor->expect(2, 4, "attach");
  world.supervisor->connection(2).reading = false;
  const std::string bytes(kMaxBulkBytes, 'x');
  // As much, and what is on its way to a supervisor that does not read.
  constexpr std::size_t kTooMuch = agent::kMaxRelayBytes + 1024 * 1024;
  for (std::size_t sent = 0; sent < kTooMuch; sent += bytes.size()) {
    client.frames().forward({FrameKind::input, 4, bytes});
  }
  auto failed = client.expect<Failed>(0);
  CHECK(failed.step == "session");
  CHECK(failed.code == "too_large");
}

TEST_CASE("one user's attached jobs have a bound over all sessions") {
  World world;
  auto detached = world.detach();
  std::list<SessionClient> clients;
  for (std::size_t all = 0; all < kMaxUserAttached; all += kMaxAttached) {
    clients.push_back(world.session());
    for (std::uint32_t request = 1; request <= kMaxAttached; ++request) {
      clients.back().send(request, Attach{kJob, "alice"});
    }
    clients.back().send(0, InfoRequest{});
    clients.back().expect<Info>(0);  // and nothing that failed before it
  }
  clients.push_back(world.session());
  clients.back().send(1, Attach{kJob, "alice"});
  CHECK(clients.back().expect<Failed>(1).code == "too_large");
}

TEST_CASE("kill answers when the job is reaped and its lock is free") {
  World world;
  auto client = world.detach();
  auto killer = world.session();
  Kill kill;
  kill.job = kJob.substr(0, 10);
  kill.signal = "TERM";
  kill.user = "alice";
  killer.send(2, kill);
  auto end = std::get<EndJob>(world.supervisor->expect(2, 0, "end_job"));
  CHECK(end.job == kJob);
  CHECK(end.signal == "TERM");
  world.supervisor->send(2, 0, Ended{});
  killer.send(0, InfoRequest{});
  killer.expect<Info>(0);  // and not killed before its watch has seen it end
  world.supervisor->send(1, 1, Exited{0, "TERM", false, false, {}});
  CHECK(killer.expect<Killed>(2).jobs == std::vector<std::string>{kJob});
  CHECK(world.holders().empty());
  CHECK(world.jobs("alice").at(0).signal == "TERM");
  killer.send(3, kill);
  CHECK(killer.expect<Killed>(3).jobs.empty());  // it had ended
}

TEST_CASE("a kill that names nothing, nobody's or somebody else's job changes nothing") {
  World world;
  auto client = world.detach();
  auto bob = world.session();
  Kill kill;
  kill.user = "bob";
  kill.job = kJob;
  bob.send(1, kill);
  auto denied = bob.expect<Failed>(1);
  CHECK(denied.code == "denied");
  CHECK(denied.message.find("alice") != std::string::npos);
  kill.job = "123456";
  bob.send(2, kill);
  CHECK(bob.expect<Failed>(2).code == "not_found");
  kill.job = kJob;
  kill.signal = "WHATEVER";
  bob.send(3, kill);
  CHECK(bob.expect<Failed>(3).code == "bad_input");
  Kill all;
  all.user = "bob";
  all.all = true;
  bob.send(4, all);
  CHECK(bob.expect<Killed>(4).jobs.empty());
  CHECK(world.supervisor->connections() == 2);
  CHECK(world.holders().at(0).job == kJob);
}

TEST_CASE("somebody else's job is killed by force, which is recorded and told") {
  World world;
  auto client = world.detach();
  client.finish();
  auto bob = world.session();
  Kill kill;
  kill.user = "bob";
  kill.all = true;
  kill.force = true;
  bob.send(1, kill);
  world.supervisor->expect(2, 0, "end_job");
  world.supervisor->send(2, 0, Ended{});
  world.supervisor->send(1, 1, Exited{0, "INT", false, false, {}});
  CHECK(bob.expect<Killed>(1).jobs.size() == 1);
  bob.finish();
  auto alice = world.session();
  alice.send(0, BoxRequest{"alice", {}});
  CHECK(alice.expect<Notice>(0).text.find("killed by bob") != std::string::npos);
  alice.expect<Box>(0);
  alice.finish();
  CHECK(world.stop());
  auto store = agent::Store::open(world.state() / "agent.db");
  REQUIRE(store);
  auto trail = world.loop.run((*store)->audit_trail(10));
  REQUIRE(trail->size() == 1);
  CHECK((*trail)[0].action == "kill --force");
  CHECK((*trail)[0].user == "bob");
}

TEST_CASE("who forces a command beside a detached job leaves a notice to its user") {
  World world;
  auto client = world.detach();
  client.finish();
  auto other = world.bound("alice");
  other.send(1, at_once("ls", true));
  CHECK(other.expect<Granted>(1).bypassed.at(0).job == kJob);
  // It is written while he is let in, and told once.
  auto alice = world.session();
  std::string told;
  for (int asked = 0; told.empty(); ++asked) {
    REQUIRE(asked < 1000);
    alice.send(0, BoxRequest{"alice", {}});
    auto message = alice.next();
    if (const auto* notice = std::get_if<Notice>(&message)) {
      told = notice->text;
      alice.expect<Box>(0);
    }
  }
  CHECK(told.find(kJob) != std::string::npos);
}

// ---- restarts

TEST_CASE("a restarted agent has a running job's lock again before it lets anybody in") {
  World world;
  auto client = world.detach();
  client.finish();
  CHECK(world.stop());
  CHECK_FALSE(world.supervisor->has(0, "0 hangup"));
  world.serve({running(kJob), running("stranger")});
  bool closed = false;
  world.loop.start([](World& w, bool& before) -> protocol::os::awaitable<void> {
    while (!w.supervisor->has(0, "0 end_job")) {
      co_await protocol::os::pause(w.loop.executor(), std::chrono::milliseconds(1));
    }
    before = w.agent().address().empty();
    w.supervisor->connection_now(0).frames->send(0, Ended{});
  }(world, closed));
  world.start();
  CHECK(closed);
  auto holders = world.holders();
  REQUIRE(holders.size() == 1);
  CHECK(holders[0].job == kJob);
  CHECK(holders[0].command == "make all");
  auto other = world.bound("alice");
  other.send(1, LockRequested{});
  other.expect<Queued>(1);
  world.supervisor->expect(1, 1, "watch_job");
  world.supervisor->send(1, 1, Exited{});
  other.expect<Granted>(1);
}

TEST_CASE("a job that ended while no agent was there is asked how, and holds nothing") {
  World world;
  auto client = world.detach();
  client.finish();
  CHECK(world.stop());
  world.serve();
  world.loop.start([](World& w) -> protocol::os::awaitable<void> {
    while (!w.supervisor->has(1, "1 watch_job")) {
      co_await protocol::os::pause(w.loop.executor(), std::chrono::milliseconds(1));
    }
    w.supervisor->connection_now(1).frames->send(1, Exited{5, "", false, false, {}});
  }(world));
  world.start();
  CHECK(world.holders().empty());
  auto jobs = world.jobs("alice");
  REQUIRE(jobs.size() == 1);
  CHECK(jobs[0].state == "exited");
  CHECK(jobs[0].status == 5);
}

TEST_CASE("a job of whose end nothing is known is lost, and holds nothing") {
  World world;
  auto client = world.detach();
  world.supervisor->send(1, 1, Failed{"watch_job", "gone", "how it ended was not recorded"});
  world.until_free();
  auto jobs = world.jobs("alice");
  REQUIRE(jobs.size() == 1);
  CHECK(jobs[0].state == "lost");
  CHECK_FALSE(jobs[0].status);
}

TEST_CASE("a supervisor that dies under a detached job is asked again before the lock is free") {
  World world;
  auto client = world.detach();
  world.supervisor->connection(1).frames->close();
  world.supervisor->expect(2, 1, "watch_job");
  CHECK(world.holders().size() == 1);
  world.supervisor->send(2, 1, Exited{});
  world.until_free();
}

TEST_CASE(
    "an older supervisor, which cannot be watched, is asked what runs until the job does not") {
  World world;
  auto client = world.detach();
  client.finish();
  CHECK(world.stop());
  world.serve({running(kJob)});
  world.start();
  const Failed unknown{"watch_job", "unsupported", "no message is called that"};
  world.supervisor->expect(1, 1, "watch_job");
  world.supervisor->send(1, 1, unknown);
  world.supervisor->expect(2, 1, "watch_job");
  CHECK(world.holders().size() == 1);
  world.serve();  // and in its hello the job is no more
  world.supervisor->expect(0, 1, "watch_job");
  world.supervisor->send(0, 1, unknown);
  world.until_free();
}

TEST_CASE("what an earlier agent left is kept from others for as long as it cannot be ended") {
  World world;
  CHECK(world.stop());
  // One that is there and will not talk.
  world.supervisor.reset();
  auto listener = protocol::os::UnixListener::listen(world.loop.executor(),
                                                     world.sandbox('a') / "supervisor.sock");
  REQUIRE(listener);
  world.loop.start([](World& w, protocol::os::UnixListener& door) -> protocol::os::awaitable<void> {
    auto stream = co_await door.accept();
    if (!stream) {
      co_return;
    }
    protocol::os::FrameStream frames(w.loop.executor(), std::move(*stream));
    auto hello = co_await frames.read();
    (void)hello;
    frames.send(0, Failed{"hello", "busy", "not now"});
    auto flushed = co_await frames.flush();
    (void)flushed;
  }(world, *listener));
  world.start();
  auto client = world.bound("alice");
  client.send(1, at_once("make"));
  CHECK(client.expect<Refused>(1).why == "busy");
  // When it does, what runs from before is ended, and nothing else.
  listener->remove();
  listener->close();
  JobInfo old = running("old");
  old.started_at = "2001-01-01T00:00:00Z";
  JobInfo fresh = running("fresh");
  fresh.started_at = "2999-01-01T00:00:00Z";
  world.serve({old, fresh});
  CHECK(std::get<EndJob>(world.supervisor->expect(0, 0, "end_job")).job == "old");
  client.send(2, LockRequested{});
  client.expect<Queued>(2);
  world.supervisor->send(0, 0, Ended{});
  client.expect<Granted>(2);
}

// ---- through the box's own sshd

TEST_CASE("a session on the agent's unix socket is the account's, and as any other") {
  AgentWorld world([](auto& settings) { settings.serve.trust_claimed_users = false; });
  world.start();
  auto connect = [&] {
    auto stream = world.loop.run(
        protocol::os::connect_unix(world.loop.executor(), world.state() / "agent.sock"));
    REQUIRE(stream);
    return SessionClient(world.loop, nullptr, std::move(*stream));
  };
  auto client = connect();
  client.send(0, SessionStart{kProtocolVersion});
  CHECK(client.expect<Info>(0).user == protocol::os::user_name());
  client.create('a', "bob");
  client.send(0, ListRequest{});
  CHECK(client.expect<Sandboxes>(0).sandboxes.at(0).user == protocol::os::user_name());
  auto refused = connect();
  refused.send(0, SessionStart{77});
  CHECK(refused.expect<Failed>(0).code == "unsupported");
  refused.until_end();
  auto silent = connect();
  silent.send(0, InfoRequest{});
  CHECK(silent.expect<Failed>(0).code == "bad_input");
  silent.until_end();
  auto mode = std::filesystem::status(world.state() / "agent.sock").permissions();
  CHECK(mode == (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
  // The agent stops though it is there.
  CHECK(world.stop());
  client.until_end();
  CHECK_FALSE(std::filesystem::exists(world.state() / "agent.sock"));
}
