// The session channel, with the test as the supervisor: what passes when, and when the lock goes
// back.
#include <atomic>
#include <fstream>
#include <future>
#include <thread>

#include "agent/isolation.h"
#include "protocol/os/paths.h"
#include "tests/support/agent_process.h"
#include "tests/support/agent_world.h"
#include "tests/support/catch.h"
#include "tests/support/places.h"
#include "tests/support/raw_ssh.h"

using namespace test;
using namespace protocol::wire;

TEST_CASE("info says which agent this is, before anything is bound") {
  AgentWorld world;
  world.start();
  auto client = world.session();
  client.send(0, InfoRequest{});
  auto info = client.expect<Info>(0);
  CHECK(info.agent.size() == 32);
  CHECK(info.name == "local");
  CHECK(info.user == "ann");
  CHECK(info.protocol == kProtocolVersion);
  CHECK(info.ttl_seconds == 1800);
  client.finish();
}

TEST_CASE("a session asks for version 1 of the protocol, or is told which side to update") {
  AgentWorld world;
  world.start();
  auto connection = world.connect();
  auto refused = [&](const std::string& argument) {
    auto stream = world.loop.run(connection->exec("__rwx_sandbox_session__ " + argument));
    REQUIRE(stream);
    SessionClient client(world.loop, connection, std::move(*stream));
    auto failed = client.expect<Failed>(0);
    client.until_end();
    return failed;
  };
  CHECK(refused("{\"version\":2}").message.find("client 2: update the agent on the box") !=
        std::string::npos);
  CHECK(refused("{\"version\":0}").message.find("client 0: update sandbox where the client runs") !=
        std::string::npos);
  for (const char* argument : {"{}", "nonsense", ""}) {
    CHECK(refused(argument).code == "bad_input");
  }
}

TEST_CASE("create makes a sandbox once, and finds it as it is after that") {
  AgentWorld world;
  world.start();
  auto first = world.session();
  auto bound = first.create('a');
  CHECK(bound.state == "starting");
  CHECK(bound.fresh);
  CHECK(bound.sandbox == sandbox_id('a'));
  first.send(0, Ready{});
  CHECK(first.expect<Bound>(0).state == "ready");
  auto second = world.session();
  CHECK(second.create('a').state == "ready");
  first.send(0, ListRequest{});
  CHECK(first.expect<Sandboxes>(0).sandboxes.size() == 1);
  CHECK(std::filesystem::is_directory(world.sandbox('a') / "workspace"));
  CHECK(std::filesystem::exists(world.sandbox('a') / "metadata.json"));
}

TEST_CASE(
    "a sandbox whose creator vanished is still there for the next one, also after a restart") {
  AgentWorld world;
  world.start();
  {
    auto client = world.session();
    client.create('a');
    client.vanish();
  }
  CHECK(world.stop());
  world.start();
  auto client = world.session();
  Bind bind;
  bind.sandbox = sandbox_id('a');
  client.send(0, bind);
  CHECK(client.expect<Bound>(0).state == "starting");
}

TEST_CASE("somebody else's sandbox does not exist, and its id cannot be taken") {
  AgentWorld world;
  world.start();
  auto ann = world.session();
  ann.create('a', "ann");
  auto bob = world.session();
  Bind bind;
  bind.sandbox = sandbox_id('a');
  bind.user = "bob";
  bob.send(0, bind);
  CHECK(bob.expect<Failed>(0).code == "not_found");
  Create create;
  create.sandbox = sandbox_id('a');
  create.user = "bob";
  bob.send(0, create);
  CHECK(bob.expect<Failed>(0).code == "exists");
  ListRequest list;
  list.user = "bob";
  bob.send(0, list);
  CHECK(bob.expect<Sandboxes>(0).sandboxes.empty());
}

TEST_CASE("a claimed user name counts only where it is trusted") {
  AgentWorld world([](auto& settings) { settings.serve.trust_claimed_users = false; });
  world.start();
  auto client = world.session();
  client.create('a', "bob");
  client.send(0, ListRequest{});
  auto list = client.expect<Sandboxes>(0);
  REQUIRE(list.sandboxes.size() == 1);
  CHECK(list.sandboxes[0].user == "ann");
}

TEST_CASE("what cannot be made or bound is answered by name, and the session goes on") {
  AgentWorld world;
  world.start();
  auto client = world.session();
  Create create;
  create.sandbox = "../../etc";
  client.send(0, create);
  CHECK(client.expect<Failed>(0).code == "bad_input");
  create.sandbox = sandbox_id('a');
  create.isolation = "magic";
  client.send(0, create);
  CHECK(client.expect<Failed>(0).code == "bad_input");
  create.isolation = "none";
  create.user = "a\nb";
  client.send(0, create);
  CHECK(client.expect<Failed>(0).code == "bad_input");
  client.send(0, Ready{});
  CHECK(client.expect<Failed>(0).step == "ready");
  client.send(0, End{});
  CHECK(client.expect<Failed>(0).step == "end");
  client.send(0, StatusRequest{});
  CHECK(client.expect<Failed>(0).step == "status_request");
  client.send(1, Exec{});
  CHECK(client.expect<Failed>(1).code == "bad_input");
  client.send(0, Exec{});
  CHECK(client.expect<Failed>(0).step == "exec");
  client.frames().forward({FrameKind::control, 3, "dance {}"});
  CHECK(client.expect<Failed>(3).code == "unsupported");
  client.frames().forward({FrameKind::control, 3, "bind {\"sandbox\":7}"});
  CHECK(client.expect<Failed>(3).code == "bad_input");
  client.frames().forward({static_cast<FrameKind>(99), 4, "x"});
  CHECK(client.expect<Failed>(4).code == "unsupported");
  client.create('a');
  client.send(0, Bind{});
  CHECK(client.expect<Failed>(0).code == "exists");
}

TEST_CASE("a frame that is too long ends the session, and says so") {
  AgentWorld world;
  world.start();
  auto connection = world.connect();
  auto stream = world.loop.run(connection->exec("__rwx_sandbox_session__ {\"version\":1}"));
  REQUIRE(stream);
  const char header[] = {'\x7f', '\x7f', '\x7f', '\x7f', 1, 0, 0, 0, 1};
  REQUIRE(world.loop.run((*stream)->write(std::as_bytes(std::span(header)))));
  SessionClient client(world.loop, connection, std::move(*stream));
  CHECK(client.expect<Failed>(0).code == "too_large");
  client.until_end();
}

TEST_CASE("a chain sent ahead runs, and released comes after the result has passed") {
  AgentWorld world;
  world.start();
  Running run(world);
  auto& supervisor = *run.supervisor;
  CHECK(supervisor.connection(0).hello.fence.find('.') != std::string::npos);
  CHECK(supervisor.connection(0).hello.origin == std::string(32, 'e'));
  supervisor.connection(0).frames->forward({FrameKind::output, 1, "hello\n"});
  supervisor.connection(0).frames->end_bulk(FrameKind::output, 1);
  supervisor.connection(0).frames->end_bulk(FrameKind::error, 1);
  supervisor.send(0, 1, Exited{7, "", false, false, {}});
  CHECK(run.client.expect<Exited>(1).status == 7);
  CHECK(run.client.bulk(FrameKind::output, 1) == "hello\n");
  supervisor.expect(0, 1, "__rwx_sandbox_lock_released__");
  Result result;
  result.result = "cafe";
  supervisor.send(0, 1, result);
  CHECK(run.client.expect<Result>(1).result == "cafe");
  run.client.expect<Released>(1);
  // Its pack may still come when the lock is another's already.
  auto other = world.session();
  other.create('a');
  other.send(1, LockRequested{});
  other.expect<Granted>(1);
  supervisor.connection(0).frames->forward({FrameKind::result_pack, 1, "pack"});
  supervisor.connection(0).frames->end_bulk(FrameKind::result_pack, 1);
  run.client.send(0, Merged{"cafe"});
  supervisor.expect(0, 0, "merged");
  run.client.send(0, InfoRequest{});
  run.client.expect<Info>(0);
  CHECK(run.client.bulk(FrameKind::result_pack, 1) == "pack");
  run.client.finish();
}

TEST_CASE("input, signals and window sizes reach the command, and only after its exec") {
  AgentWorld world;
  world.start();
  Running run(world);
  run.client.send(1, Signal{"INT"});
  run.client.send(1, Window{30, 100});
  run.client.send(2, Signal{"TERM"});
  auto sent = world.loop.run(run.client.frames().send_bulk(FrameKind::input, 1, "stdin"));
  REQUIRE(sent);
  run.supervisor->expect(0, 1, "window");
  CHECK(run.supervisor->has(0, "1 signal"));
  world.until([&] { return run.supervisor->has(0, "1 bulk 17"); });
  CHECK(!run.supervisor->has(0, "2 signal"));
}

TEST_CASE(
    "five at once run one after another, and each is granted only after the one before is "
    "released") {
  AgentWorld world;
  world.start();
  Running run(world);
  std::vector<SessionClient> waiting;
  for (int i = 0; i < 4; ++i) {
    auto client = world.session();
    client.create('a');
    client.send_command(1, "next");
    auto queued = client.expect<Queued>(1);
    CHECK(queued.position == i + 1);
    REQUIRE(!queued.holders.empty());
    CHECK(queued.holders[0].command == "make");
    client.expect<Skipped>(1);
    client.expect<Skipped>(1);
    waiting.push_back(std::move(client));
  }
  CHECK(run.supervisor->connections() == 1);
  run.supervisor->send(0, 1, Exited{});
  run.supervisor->send(0, 1, Unchanged{});
  run.client.expect<Exited>(1);
  run.client.expect<Unchanged>(1);
  run.client.expect<Released>(1);
  std::string last_fence;
  for (std::size_t i = 0; i < waiting.size(); ++i) {
    auto& client = waiting[i];
    Message message = client.next();
    while (std::holds_alternative<Queued>(message)) {
      message = client.next();
    }
    auto granted = std::get<Granted>(message);
    CHECK(granted.queued);
    CHECK(granted.fence != last_fence);
    last_fence = granted.fence;
    client.send(2, Exec{});
    client.send(2, LockReleased{});
    std::size_t n = i + 1;
    run.supervisor->expect(n, 2, "exec");
    CHECK(run.supervisor->connections() == n + 1);
    CHECK(run.supervisor->connection(n).hello.fence == granted.fence);
    run.supervisor->send(n, 2, Exited{});
    run.supervisor->send(n, 2, Unchanged{});
    client.expect<Exited>(2);
    client.expect<Unchanged>(2);
    client.expect<Released>(2);
  }
}

TEST_CASE("a refused request has done nothing") {
  AgentWorld world;
  world.start();
  Running run(world);
  auto other = world.session();
  other.create('a');
  LockRequested now;
  now.wait_seconds = 0;
  other.send(1, now);
  other.send(1, SyncStart{});
  other.frames().end_bulk(FrameKind::pack, 1);
  other.send(1, SyncEnd{});
  other.send(1, Exec{});
  other.send(1, LockReleased{});
  auto refused = other.expect<Refused>(1);
  CHECK(refused.why == "busy");
  REQUIRE(!refused.holders.empty());
  CHECK(refused.holders[0].user == "ann");
  CHECK(other.expect<Skipped>(1).step == "__rwx_sandbox_sync_start__");
  CHECK(other.expect<Skipped>(1).step == "exec");
  CHECK(other.expect<Skipped>(1).step == "__rwx_sandbox_lock_released__");
  CHECK(run.supervisor->connections() == 1);
}

TEST_CASE(
    "a client that vanishes has its job ended, and the next is granted only when it is reaped") {
  AgentWorld world;
  world.start();
  Running run(world);
  auto next = world.session();
  next.create('a');
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  run.client.vanish();
  run.supervisor->expect(0, 0, "hangup");
  next.send(0, InfoRequest{});
  next.expect<Info>(0);  // and no grant before it
  run.supervisor->send(0, 0, Ended{});
  CHECK(next.expect<Granted>(1).queued);
}

TEST_CASE(
    "a client that vanishes after its command and before its release has its result taken before "
    "the next one is let in") {
  AgentWorld world;
  world.start();
  auto client = world.session();
  client.create('a');
  FakeSupervisor supervisor(world, world.sandbox('a'));
  client.send(1, LockRequested{});
  client.send(1, Exec{});
  client.expect<Granted>(1);
  supervisor.expect(0, 1, "exec");
  supervisor.send(0, 1, Started{"job", 1});
  supervisor.send(0, 1, Exited{});
  client.expect<Started>(1);
  client.expect<Exited>(1);
  auto next = world.session();
  next.create('a');
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  client.vanish();
  supervisor.expect(0, 0, "hangup");
  next.send(0, InfoRequest{});
  next.expect<Info>(0);  // and no grant before it
  supervisor.send(0, 0, Ended{});
  CHECK(next.expect<Granted>(1).queued);
}

TEST_CASE("a command's result is taken before a later step's failure frees its lock") {
  AgentWorld world;
  world.start();
  auto client = world.session();
  client.create('a');
  FakeSupervisor supervisor(world, world.sandbox('a'));
  client.send(1, LockRequested{});
  client.send(1, Exec{});
  client.send(2, SyncStart{});
  client.frames().end_bulk(FrameKind::pack, 2);
  client.send(2, SyncEnd{});
  client.send(2, Exec{});
  client.expect<Granted>(1);
  supervisor.expect(0, 2, "exec");
  supervisor.send(0, 1, Started{"job", 1});
  supervisor.send(0, 1, Exited{});
  client.expect<Started>(1);
  client.expect<Exited>(1);
  supervisor.send(0, 2, Failed{"__rwx_sandbox_sync_start__", "no_space", "the disk is full"});
  CHECK(client.expect<Failed>(2).code == "no_space");
  supervisor.expect(0, 0, "hangup");
  client.send(0, InfoRequest{});
  client.expect<Info>(0);  // and not released before it
  supervisor.send(0, 0, Ended{});
  CHECK(client.expect<Skipped>(2).step == "exec");
  client.expect<Released>(2);
}

TEST_CASE("a client that floods its command with signals is hung up on, and not its supervisor") {
  AgentWorld world;
  world.start();
  Running run(world);
  auto next = world.session();
  next.create('a');
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  run.supervisor->connection(0).reading = false;
  const std::string padded =
      R"(signal {"name":"WINCH","padding":")" + std::string(1000 * 1000, 'x') + "\"}";
  for (int sent = 0; sent < 7; ++sent) {
    run.client.frames().forward({FrameKind::control, 1, padded});
    auto flushed = world.loop.run(run.client.frames().flush());
    if (!flushed) {
      break;  // it was hung up on already
    }
  }
  auto failed = run.client.expect<Failed>(0);
  CHECK(failed.step == "session");
  CHECK(failed.code == "too_large");
  run.supervisor->connection(0).reading = true;
  run.supervisor->expect(0, 0, "hangup");
  next.send(0, InfoRequest{});
  next.expect<Info>(0);  // and no grant before it
  run.supervisor->send(0, 0, Ended{});
  CHECK(next.expect<Granted>(1).queued);
}

TEST_CASE("a supervisor that dies fails what it owed, and the lock goes back") {
  AgentWorld world;
  world.start();
  Running run(world);
  auto next = world.session();
  next.create('a');
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  run.supervisor->connection(0).frames->close();
  auto failed = run.client.expect<Failed>(1);
  CHECK(failed.step == "exec");
  CHECK(failed.code == "gone");
  run.client.expect<Skipped>(1);
  run.supervisor->expect(1, 0, "end_job");
  run.supervisor->send(1, 0, Ended{});
  run.client.expect<Released>(1);
  next.expect<Granted>(1);
}

TEST_CASE("the lock of a dead supervisor's command waits for the next supervisor to answer") {
  TemporaryDirectory directory;
  auto program = directory / "program";
  std::ofstream(program) << "#!/bin/sh\necho x >>\"$(dirname \"$0\")/launches\"\nexit 1\n";
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  AgentWorld world([&](auto& settings) {
    settings.program = program;
    settings.serve.isolation = agent::IsolationMode::none;
  });
  world.start();
  Running run(world);
  auto next = world.session();
  next.create('a');
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  SECTION("while its client is there") {
    run.supervisor.reset();
    CHECK(run.client.expect<Failed>(1).code == "gone");
    run.client.expect<Skipped>(1);
  }
  SECTION("and when its client goes meanwhile") {
    run.supervisor.reset();
    CHECK(run.client.expect<Failed>(1).code == "gone");
    run.client.vanish();
  }
  SECTION("and when its client had gone before") {
    run.client.vanish();
    run.supervisor->expect(0, 0, "hangup");
    run.supervisor.reset();
  }
  world.until([&] { return read_text(directory / "launches") == "x\nx\n"; });
  FakeSupervisor successor(world, world.sandbox('a'));
  successor.expect(0, 0, "end_job");
  successor.send(0, 0, Ended{});
  next.expect<Granted>(1);
  CHECK(successor.connections() == 1);
}

TEST_CASE("a job that outlives its connection is ended before its lock goes to the next") {
  AgentWorld world;
  world.start();
  auto client = world.session();
  client.create('a');
  JobInfo job, other;
  job.state = other.state = "running";
  job.job = "job";
  other.job = "other";
  FakeSupervisor supervisor(world, world.sandbox('a'), {other, job});
  client.send_command(1, "make");
  client.expect<Granted>(1);
  supervisor.expect(0, 1, "exec");
  // Without `started` it may not have been read when it is asked what runs.
  bool started = GENERATE(true, false);
  if (started) {
    supervisor.send(0, 1, Started{"job", 1});
    client.expect<Started>(1);
  }
  auto next = world.session();
  next.create('a');
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  supervisor.connection(0).frames->close();
  CHECK(client.expect<Failed>(1).code == "gone");
  client.expect<Skipped>(1);
  auto end = std::get<EndJob>(supervisor.expect(1, 0, "end_job"));
  CHECK(end.job == (started ? "job" : ""));
  CHECK(!end.connection.empty());
  CHECK(end.connection == supervisor.connection(0).hello.connection);
  CHECK(supervisor.connection(0).hello.epoch > 0);
  next.send(0, InfoRequest{});
  next.expect<Info>(0);  // and no grant before it
  supervisor.send(1, 0, Ended{});
  client.expect<Released>(1);
  next.expect<Granted>(1);
}

TEST_CASE("a stock client's command that may still begin keeps its connection's lock") {
  AgentWorld world;
  world.start();
  auto next = world.session();
  next.create('a');
  FakeSupervisor supervisor(world, world.sandbox('a'));
  auto stock = std::async(std::launch::async, [port = world.port(), key = world.key()] {
    RawSsh client(port);
    client.login(key);
    client.run("__rwx_sandbox_lock_requested__");
    return client.run("make").status;
  });
  supervisor.expect(0, 1, "exec");
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  supervisor.connection(0).frames->close();
  auto end = std::get<EndJob>(supervisor.expect(1, 0, "end_job"));
  CHECK(!end.connection.empty());
  CHECK(end.connection == supervisor.connection(0).hello.connection);
  world.until([&] { return stock.wait_for(std::chrono::seconds(0)) == std::future_status::ready; });
  CHECK(stock.get() == 255);
  next.send(0, InfoRequest{});
  next.expect<Info>(0);  // and no grant before it
  supervisor.send(1, 0, Ended{});
  next.expect<Granted>(1);
}

TEST_CASE("a tunnel that is still being dialled keeps no lock of a stock client that has gone") {
  AgentWorld world;
  world.start();
  auto next = world.session();
  next.create('a');
  FakeSupervisor supervisor(world, world.sandbox('a'));
  std::atomic<bool> dialled = false;
  auto stock = std::async(std::launch::async, [&, port = world.port(), key = world.key()] {
    RawSsh client(port);
    client.login(key);
    client.run("__rwx_sandbox_lock_requested__");
    ssh_set_blocking(client.session(), 0);
    ssh_channel tunnel = ssh_channel_new(client.session());
    while (!dialled) {
      ssh_channel_open_forward(tunnel, "127.0.0.1", 80, "127.0.0.1", 0);
      std::this_thread::yield();
    }
  });
  struct Let {
    std::atomic<bool>& go;
    ~Let() { go = true; }
  } let_go{dialled};
  supervisor.expect(0, 1, "dial");
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  dialled = true;
  next.expect<Granted>(1);
  stock.get();
}

TEST_CASE("a result's pack that its supervisor cannot finish comes to an end all the same") {
  AgentWorld world;
  world.start();
  Running run(world);
  run.supervisor->send(0, 1, Exited{});
  run.supervisor->send(0, 1, Result{"r1", "base", {}, {}});
  run.client.expect<Exited>(1);
  run.client.expect<Result>(1);
  run.client.expect<Released>(1);
  run.supervisor->connection(0).frames->close();
  auto failed = run.client.expect<Failed>(1);
  CHECK(failed.step == "result_pack");
  CHECK(failed.code == "gone");
  run.client.send(0, InfoRequest{});
  run.client.expect<Info>(0);
  CHECK(run.client.bulk_ended(FrameKind::result_pack, 1));
}

TEST_CASE("a waiting client that vanishes leaves the line") {
  AgentWorld world;
  world.start();
  Running run(world);
  auto second = world.session();
  second.create('a');
  second.send(1, LockRequested{});
  second.expect<Queued>(1);
  auto third = world.session();
  third.create('a');
  third.send(1, LockRequested{});
  CHECK(third.expect<Queued>(1).position == 2);
  second.vanish();
  CHECK(third.expect<Queued>(1).position == 1);
}

TEST_CASE("a stale answer keeps the lock for the next request of the same session") {
  AgentWorld world;
  world.start();
  auto client = world.session();
  client.create('a');
  FakeSupervisor supervisor(world, world.sandbox('a'));
  client.send(1, LockRequested{});
  client.send(1, SyncStart{});
  client.frames().end_bulk(FrameKind::pack, 1);
  client.send(1, SyncEnd{});
  client.send(1, LockReleased{});
  client.expect<Granted>(1);
  supervisor.expect(0, 1, "__rwx_sandbox_lock_released__");
  supervisor.send(0, 1, Stale{"cafe"});
  supervisor.send(0, 1, Result{});
  supervisor.connection(0).frames->end_bulk(FrameKind::result_pack, 1);
  supervisor.send(0, 1, Skipped{"__rwx_sandbox_lock_released__"});
  client.expect<Stale>(1);
  client.expect<Result>(1);
  client.expect<Skipped>(1);
  client.send(2, SyncStart{});
  client.frames().end_bulk(FrameKind::pack, 2);
  client.send(2, SyncEnd{});
  client.send(2, LockReleased{});
  supervisor.expect(0, 2, "__rwx_sandbox_lock_released__");
  supervisor.send(0, 2, Applied{});
  supervisor.send(0, 2, Unchanged{});
  client.expect<Applied>(2);
  client.expect<Unchanged>(2);
  client.expect<Released>(2);
  CHECK(supervisor.connections() == 1);
  auto again = world.session();
  CHECK(!again.create('a').fresh);
}

TEST_CASE("a failed step gives the lock back; what else was sent ahead under it is ended first") {
  AgentWorld world;
  world.start();
  auto client = world.session();
  client.create('a');
  FakeSupervisor supervisor(world, world.sandbox('a'));
  client.send(1, LockRequested{});
  client.send(1, SyncStart{});
  client.frames().end_bulk(FrameKind::pack, 1);
  client.send(1, SyncEnd{});
  client.send(2, Exec{});
  client.expect<Granted>(1);
  supervisor.expect(0, 2, "exec");
  supervisor.send(0, 1, Failed{"__rwx_sandbox_sync_start__", "no_space", "the disk is full"});
  CHECK(client.expect<Failed>(1).code == "no_space");
  supervisor.expect(0, 0, "hangup");
  supervisor.send(0, 0, Ended{});
  CHECK(client.expect<Failed>(2).code == "cancelled");
  client.expect<Released>(1);
}

TEST_CASE("a supervisor cannot forge what only the agent says") {
  AgentWorld world;
  world.start();
  Running run(world);
  run.supervisor->send(0, 1, Granted{});
  run.supervisor->send(0, 1, Released{});
  run.supervisor->send(0, 0, Bound{});
  run.supervisor->connection(0).frames->forward({FrameKind::control, 1, "dance"});
  run.supervisor->send(0, 1, Notice{"hello"});
  CHECK(run.client.expect<Notice>(1).text == "hello");
}

TEST_CASE("status comes from the supervisor, with who holds and waits from the agent") {
  AgentWorld world;
  world.start();
  Running run(world);
  auto reader = world.session();
  reader.create('a');
  reader.send(0, StatusRequest{});
  run.supervisor->expect(1, 0, "status_request");
  CHECK(run.supervisor->connection(1).hello.fence.empty());
  Status status;
  status.snapshot = "cafe";
  status.sandbox.user = "mallory";
  run.supervisor->send(1, 0, status);
  auto seen = reader.expect<Status>(0);
  CHECK(seen.snapshot == "cafe");
  CHECK(seen.sandbox.user == "ann");
  REQUIRE(seen.sandbox.holders.size() == 1);
  CHECK(seen.sandbox.holders[0].command == "make");
}

TEST_CASE("end refuses while somebody else's command runs, and with force ends that, too") {
  AgentWorld world;
  world.start();
  Running run(world);
  auto other = world.session();
  other.create('a');
  other.send(0, End{});
  auto busy = other.expect<Refused>(0);
  CHECK(busy.why == "busy");
  REQUIRE(busy.holders.size() == 1);
  CHECK(busy.holders[0].command == "make");
  other.send(0, End{true});
  run.supervisor->expect(1, 0, "shutdown");
  run.supervisor->send(1, 0, Ended{});
  run.supervisor->expect(0, 0, "hangup");
  run.supervisor->send(0, 0, Ended{});
  CHECK(run.client.expect<Failed>(0).code == "gone");
  run.client.until_end();
  // Once its users have left it is asked again: one of them might have started it anew.
  run.supervisor->expect(2, 0, "shutdown");
  run.supervisor->send(2, 0, Ended{});
  other.expect<Ended>(0);
  CHECK(!std::filesystem::exists(world.sandbox('a')));
  other.send(0, ListRequest{});
  CHECK(other.expect<Sandboxes>(0).sandboxes.empty());
}

TEST_CASE("a silent client loses its lock, but not while heartbeats come") {
  AgentWorld world([](auto& settings) { settings.lock_ttl = std::chrono::seconds(1); });
  world.start();
  Running run(world);
  auto next = world.session();
  next.create('a');
  LockRequested lock;
  next.send(1, lock);
  CHECK(next.expect<Queued>(1).position == 1);
  bool stop = false;
  world.loop.start(
      [](AgentWorld& w, SessionClient& client, bool& end) -> protocol::os::awaitable<void> {
        while (!end) {
          client.send(0, Heartbeat{});
          co_await protocol::os::pause(w.loop.executor(), std::chrono::milliseconds(100));
        }
      }(world, next, stop));
  run.supervisor->expect(0, 0, "hangup");
  run.supervisor->send(0, 0, Ended{});
  next.expect<Granted>(1);
  stop = true;
}

TEST_CASE("a lock is granted and given back without a byte to the disk") {
  AgentWorld world;
  world.start();
  auto client = world.session();
  client.create('a');
  client.send(0, Ready{});
  client.expect<Bound>(0);
  auto written = [&] {
    return read_text(world.state() / "agent.db") + read_text(world.state() / "agent.db-wal");
  };
  std::string before = written();
  REQUIRE(std::filesystem::exists(world.state() / "agent.db-wal"));
  for (std::uint32_t request = 1; request <= 3; ++request) {
    client.send(request, LockRequested{});
    client.send(request, LockReleased{});
    client.expect<Granted>(request);
    client.expect<Released>(request);
  }
  CHECK(written() == before);
}

TEST_CASE("a session and a box say what a sandbox really runs in") {
  AgentWorld world([](auto& settings) {
    settings.serve.isolation = agent::IsolationMode::automatic;
    settings.serve.trust_commands = true;
  });
  agent::Isolation::Settings like;
  TemporaryDirectory scratch;
  like.scratch = scratch.path();
  like.program = std::filesystem::path(SANDBOX_BIN_DIR) / "sandbox-agent";
  like.environment = protocol::os::environment();
  like.users = [] { return std::size_t{1}; };
  auto isolation = agent::Isolation::open(like);
  REQUIRE(isolation);
  world.start();
  auto client = world.session();
  client.send(0, BoxRequest{});
  CHECK(client.expect<Box>(0).isolation == isolation->by_default());
  CHECK(client.create('a').isolation == isolation->by_default());
  auto other = world.session();
  Create create;
  create.sandbox = sandbox_id('b');
  create.isolation = "none";
  other.send(0, create);
  CHECK(other.expect<Bound>(0).isolation == "none");
}
