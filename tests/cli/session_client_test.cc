// The client's side of a request against an agent that follows a script, over a stream in memory.
#include "cli/session_client.h"

#include <deque>
#include <functional>

#include "cli/error.h"
#include "cli/report.h"
#include "tests/support/catch.h"
#include "tests/support/fake_origin.h"
#include "tests/support/loop.h"
#include "tests/support/memory_stream.h"

namespace {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::FrameKind;

// The agent's end: reads whole steps as words, so that a script says what it expects.
class Agent {
 public:
  Agent(os::executor executor, std::unique_ptr<os::ByteStream> stream)
      : frames(executor, std::move(stream)) {}

  // The next message; pack bytes are collected in `pack`, input in `input`.
  os::awaitable<std::pair<std::uint32_t, wire::Message>> next() {
    for (;;) {
      auto frame = co_await frames.read();
      if (!frame || !*frame) {
        throw std::runtime_error("the client has gone");
      }
      wire::Frame& got = **frame;
      if (got.kind == FrameKind::pack) {
        pack += got.payload;
        frames.consumed(got.kind, got.request, got.payload.size());
      } else if (got.kind == FrameKind::input) {
        input += got.payload;
        frames.consumed(got.kind, got.request, got.payload.size());
        if (got.payload.empty()) {
          input_ended = true;
        }
      } else if (got.kind == FrameKind::control) {
        auto message = wire::decode(got.payload);
        REQUIRE(message);
        if (!std::holds_alternative<wire::Heartbeat>(*message)) {
          co_return std::pair(got.request, *message);
        }
        ++heartbeats;
      }
    }
  }
  // Reads until a message of that kind; returns it and remembers its request number.
  template <class T>
  os::awaitable<T> expect() {
    for (;;) {
      auto got = co_await next();
      seen.push_back(std::string(wire::message_name(got.second)));
      if (auto* message = std::get_if<T>(&got.second)) {
        request = got.first;
        co_return *message;
      }
    }
  }
  void say(const wire::Message& message) { frames.send(request, message); }
  os::awaitable<void> output(FrameKind kind, std::string bytes) {
    auto sent = co_await frames.send_bulk(kind, request, bytes);
    CHECK(sent);
    frames.end_bulk(kind, request);
  }
  os::awaitable<void> result(std::string id, std::string bytes) {
    wire::Result result;
    result.result = id;
    result.base = "base";
    say(result);
    co_await output(FrameKind::result_pack, bytes);
  }
  // What a command without surprises does.
  os::awaitable<void> run_command(std::string out, std::string error, int status) {
    wire::Started started;
    started.job = "job";
    say(started);
    co_await output(FrameKind::output, out);
    co_await output(FrameKind::error, error);
    wire::Exited exited;
    exited.status = status;
    say(exited);
  }
  void applied(const wire::SyncStart& sync) {
    wire::Applied applied;
    applied.snapshot = sync.snapshot;
    say(applied);
  }

  os::FrameStream frames;
  std::string pack, input;
  bool input_ended = false;
  int heartbeats = 0;
  std::uint32_t request = 0;
  std::vector<std::string> seen;
};

class Streams : public cli::CommandStreams {
 public:
  explicit Streams(os::executor executor) : wakeup_(executor) {}
  void begin() override { began = true; }
  void end() override {
    ended = true;
    wakeup_.notify();
  }
  os::awaitable<wire::result<void>> write(FrameKind stream, std::string bytes) override {
    wire::result<void> written;
    if (closed) {
      written = wire::Failure(wire::Errc::gone, "closed");
    } else if (full) {
      written = wire::Failure(wire::Errc::no_space, "cannot write to stdout: the disk is full");
    } else {
      (stream == FrameKind::output ? out : error) += bytes;
    }
    co_return written;
  }
  os::awaitable<std::optional<std::string>> read_input() override {
    while (input.empty() && !ended && keep_open) {
      co_await wakeup_.wait();
    }
    std::optional<std::string> bytes;
    if (!input.empty()) {
      bytes = input.front();
      input.pop_front();
    }
    co_return bytes;
  }
  std::string out, error;
  std::deque<std::string> input;
  bool began = false, ended = false, closed = false, full = false, keep_open = false;

 private:
  os::Wakeup wakeup_;
};

struct World {
  World() {
    auto [mine, theirs] = test::MemoryStream::pair(loop.executor());
    agent = std::make_unique<Agent>(loop.executor(), std::move(theirs));
    auto session =
        std::make_unique<cli::Session>(loop.executor(), std::move(mine), trace, "the box");
    client =
        std::make_unique<cli::SessionClient>(loop.executor(), pool, std::move(session), output);
    client->bind({"sandbox", origin->id(), "me"});
  }
  ~World() {
    client.reset();
    agent->frames.close();
    loop.settle();
  }
  cli::Cycle cycle() {
    cli::Cycle made;
    wire::LockRequested lock;
    lock.verb = "exec";
    made.lock = lock;
    wire::Exec exec;
    exec.argv = {"make"};
    made.exec = exec;
    made.streams = &streams;
    return made;
  }
  cli::CycleOutcome run(std::function<os::awaitable<void>(Agent&)> script) {
    return run(std::move(script), cycle());
  }
  cli::CycleOutcome run(std::function<os::awaitable<void>(Agent&)> script, cli::Cycle what) {
    loop.start(play(std::move(script)));
    return loop.run(client->run(origin, std::move(what)));
  }
  os::awaitable<void> play(std::function<os::awaitable<void>(Agent&)> script) {
    auto bind = co_await agent->expect<wire::Bind>();
    CHECK(bind.sandbox == "sandbox");
    wire::Bound bound;
    bound.sandbox = bind.sandbox;
    bound.agent = agent_id;
    bound.ttl_seconds = 1800;
    agent->say(bound);
    co_await script(*agent);
    done = true;
  }

  test::Loop loop;
  boost::asio::thread_pool pool{4};
  cli::OutputOptions options = [] {
    cli::OutputOptions quiet;
    quiet.json = true;
    return quiet;
  }();
  cli::Output output{options};
  cli::Trace trace{output, false};
  std::shared_ptr<test::FakeOrigin> origin = std::make_shared<test::FakeOrigin>();
  Streams streams{loop.executor()};
  std::unique_ptr<Agent> agent;
  std::unique_ptr<cli::SessionClient> client;
  std::string agent_id = "0123456789abcdef0123456789abcdef";
  bool done = false;
};

}  // namespace

TEST_CASE("a whole request travels without waiting for any answer") {
  World world;
  auto outcome = world.run([](Agent& agent) -> os::awaitable<void> {
    // Nothing is answered before the last step has come.
    co_await agent.expect<wire::LockReleased>();
    CHECK(agent.seen == std::vector<std::string>{
                            "bind", "__rwx_sandbox_lock_requested__", "__rwx_sandbox_sync_start__",
                            "__rwx_sandbox_sync_end__", "exec", "__rwx_sandbox_lock_released__"});
    CHECK(agent.pack == "pack of snapshot1");
    agent.say(wire::Granted{"1.1", 1800, false, {}});
    agent.say(wire::Applied{"snapshot1", "", {}, {}});
    co_await agent.run_command("out", "err", 3);
    co_await agent.result("r1", "result bytes");
    agent.say(wire::Released{});
    auto merged = co_await agent.expect<wire::Merged>();
    CHECK(merged.result == "r1");
  });
  CHECK(outcome.exited->status == 3);
  CHECK(outcome.snapshot == "snapshot1");
  CHECK(outcome.granted.fence == "1.1");
  CHECK(world.streams.out == "out");
  CHECK(world.streams.error == "err");
  CHECK(world.streams.began);
  CHECK(world.streams.ended);
  CHECK(world.origin->happened == std::vector<std::string>{"snapshot1", "read 12", "merge r1"});
  CHECK(world.origin->bases == "snapshot1");
}

TEST_CASE("commands under one lock ask for it once, and what they changed comes with its release") {
  World world;
  auto first = world.cycle();
  first.release = false;
  auto then = world.cycle();
  then.lock.reset();
  then.sync = false;
  Streams more{world.loop.executor()};
  then.streams = &more;
  auto script = [](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::Exec>();
    agent.say(wire::Granted{"1.1", 1800, false, {}});
    agent.say(wire::Applied{"snapshot1", "", {}, {}});
    co_await agent.run_command("one", "", 0);
    agent.seen.clear();
    co_await agent.expect<wire::LockReleased>();
    CHECK(agent.seen == std::vector<std::string>{"exec", "__rwx_sandbox_lock_released__"});
    co_await agent.run_command("two", "", 0);
    co_await agent.result("r1", "result bytes");
    agent.say(wire::Released{});
  };
  auto outcome = world.run(script, std::move(first));
  CHECK(outcome.exited->status == 0);
  CHECK(outcome.snapshot == "snapshot1");
  auto last = world.loop.run(world.client->run(world.origin, std::move(then)));
  CHECK(last.exited->status == 0);
  CHECK(last.all_brought_back());
  CHECK(world.streams.out == "one");
  CHECK(more.out == "two");
  CHECK(world.origin->happened == std::vector<std::string>{"snapshot1", "read 12", "merge r1"});
}

TEST_CASE("a detached command is the last step, and leaves the lock to its job") {
  World world;
  auto cycle = world.cycle();
  cycle.exec->detach = true;
  auto outcome = world.run(
      [](Agent& agent) -> os::awaitable<void> {
        auto exec = co_await agent.expect<wire::Exec>();
        CHECK(exec.detach);
        agent.say(wire::Granted{});
        agent.say(wire::Applied{"snapshot1", "", {}, {}});
        agent.say(wire::Detached{"0123456789abcdef0123456789abcdef"});
      },
      std::move(cycle));
  CHECK(outcome.job == "0123456789abcdef0123456789abcdef");
  CHECK_FALSE(outcome.exited);
  CHECK(outcome.all_brought_back());
  CHECK_FALSE(world.streams.began);
  CHECK(world.agent->seen.back() == "exec");
}

TEST_CASE("a detached job's id is looked at, since it becomes a file's name") {
  World world;
  auto cycle = world.cycle();
  cycle.exec->detach = true;
  CHECK_THROWS_WITH(world.run(
                        [](Agent& agent) -> os::awaitable<void> {
                          co_await agent.expect<wire::Exec>();
                          agent.say(wire::Granted{});
                          agent.say(wire::Applied{"snapshot1", "", {}, {}});
                          agent.say(wire::Detached{"../../x"});
                        },
                        std::move(cycle)),
                    Catch::Contains("`../../x`, which is no id"));
}

TEST_CASE("an agent's id is looked at before it is kept") {
  World world;
  world.agent_id = "../\xff";
  CHECK_THROWS_WITH(
      world.run([](Agent& agent) -> os::awaitable<void> { co_await agent.expect<wire::Exec>(); }),
      Catch::Contains("is no agent's id"));
}

TEST_CASE("an agent that cannot detach is told from one that can") {
  World world;
  auto cycle = world.cycle();
  cycle.exec->detach = true;
  CHECK_THROWS_WITH(world.run(
                        [](Agent& agent) -> os::awaitable<void> {
                          co_await agent.expect<wire::Exec>();
                          agent.say(wire::Granted{});
                          agent.say(wire::Applied{"snapshot1", "", {}, {}});
                          agent.say(wire::Started{"job", 7});
                        },
                        std::move(cycle)),
                    Catch::Contains("cannot detach"));
}

TEST_CASE("a snapshot that was taken beforehand is used") {
  World world;
  auto cycle = world.cycle();
  cycle.prepared = cli::prepare(*world.origin, "sandbox");
  world.run(
      [](Agent& agent) -> os::awaitable<void> {
        co_await agent.expect<wire::LockReleased>();
        agent.say(wire::Granted{});
        agent.say(wire::Applied{"snapshot1", "", {}, {}});
        co_await agent.run_command("", "", 0);
        agent.say(wire::Unchanged{});
        agent.say(wire::Released{});
      },
      std::move(cycle));
  CHECK(world.origin->snapshots == 1);
}

TEST_CASE("whoever was in line takes a new snapshot and sends the steps again") {
  World world;
  auto outcome = world.run([](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::LockReleased>();
    auto first = agent.request;
    agent.say(wire::Queued{1, {{"bob", "exec", "sleep", 3}}});
    agent.say(wire::Skipped{"sync_start"});
    agent.say(wire::Granted{"1.2", 1800, true, {}});
    agent.seen.clear();
    co_await agent.expect<wire::LockReleased>();
    CHECK(agent.request > first);
    CHECK(agent.seen == std::vector<std::string>{"__rwx_sandbox_sync_start__",
                                                 "__rwx_sandbox_sync_end__", "exec",
                                                 "__rwx_sandbox_lock_released__"});
    agent.say(wire::Applied{"snapshot2", "", {}, {}});
    co_await agent.run_command("x", "", 0);
    agent.say(wire::Unchanged{});
    agent.say(wire::Released{});
  });
  CHECK(outcome.snapshot == "snapshot2");
  CHECK(world.streams.out == "x");
}

TEST_CASE("a stale origin merges the newer result before it snapshots again") {
  World world;
  auto outcome = world.run([](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.say(wire::Stale{"r1"});
    co_await agent.result("r1", "bytes");
    agent.say(wire::Skipped{"exec"});
    auto again = co_await agent.expect<wire::SyncStart>();
    CHECK(again.merged == "r1");
    co_await agent.expect<wire::LockReleased>();
    agent.applied(again);
    co_await agent.run_command("", "", 0);
    agent.say(wire::Unchanged{});
    agent.say(wire::Released{});
  });
  CHECK(world.origin->happened ==
        std::vector<std::string>{"snapshot1", "read 5", "merge r1", "snapshot2"});
  CHECK(outcome.snapshot == "snapshot2");
}

TEST_CASE("a command forced in beside another runs on what is there, and says so") {
  World world;
  auto outcome = world.run([](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::LockReleased>();
    wire::Granted granted;
    granted.fence = "1.2";
    granted.bypassed = {{"ann", "exec", "make", 3, "", "", ""}};
    granted.shared = true;
    agent.say(granted);
    agent.say(wire::Skipped{std::string(wire::message_name(wire::SyncStart{}))});
    co_await agent.run_command("out", "", 0);
    agent.say(wire::Unchanged{});
    agent.say(wire::Released{});
  });
  CHECK(outcome.not_synced);
  CHECK(outcome.exited->status == 0);
  CHECK(outcome.snapshot.empty());
  CHECK(outcome.all_brought_back());
  CHECK(world.origin->bases.empty());
  CHECK(world.streams.out == "out");
}

TEST_CASE("a missing base is answered with a pack on what the box has") {
  World world;
  world.origin->bases = "lost";
  world.run([](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::LockReleased>();
    CHECK(agent.pack == "pack of snapshot1 on lost");
    agent.pack.clear();
    agent.say(wire::Granted{});
    agent.say(wire::Missing{{"have1", "have2"}});
    auto again = co_await agent.expect<wire::SyncStart>();
    CHECK(again.base == "have1");
    CHECK(again.snapshot == "snapshot1");
    co_await agent.expect<wire::LockReleased>();
    CHECK(agent.pack == "pack of snapshot1 on have1");
    agent.applied(again);
    co_await agent.run_command("", "", 0);
    agent.say(wire::Unchanged{});
    agent.say(wire::Released{});
  });
}

TEST_CASE("a box that has nothing gets everything") {
  World world;
  world.origin->bases = "lost";
  world.run([](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::LockReleased>();
    agent.pack.clear();
    agent.say(wire::Granted{});
    agent.say(wire::Missing{});
    auto again = co_await agent.expect<wire::SyncStart>();
    CHECK(again.base.empty());
    co_await agent.expect<wire::LockReleased>();
    CHECK(agent.pack == "pack of snapshot1");
    agent.applied(again);
    co_await agent.run_command("", "", 0);
    agent.say(wire::Unchanged{});
    agent.say(wire::Released{});
  });
}

TEST_CASE("a refusal ends the request with nothing done") {
  World world;
  auto outcome = world.run([](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::LockReleased>();
    wire::Refused refused;
    refused.why = "busy";
    refused.holders = {{"bob", "exec", "make", 5}};
    agent.say(refused);
    agent.say(wire::Skipped{"sync_start"});
  });
  REQUIRE(outcome.refused);
  CHECK(outcome.refused->holders[0].user == "bob");
  CHECK_FALSE(world.streams.began);
}

TEST_CASE("a refusal in the middle of a large pack stops the sending") {
  World world;
  world.origin->pack_bytes = 8 << 20;
  auto outcome = world.run([](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::SyncStart>();
    wire::Refused refused;
    refused.why = "busy";
    agent.say(refused);
    for (bool reading = true; reading;) {  // as agents do
      try {
        co_await agent.next();
      } catch (const std::runtime_error&) {
        reading = false;
      }
    }
  });
  CHECK(outcome.refused);
  CHECK(world.agent->pack.size() < 1 << 20);
}

TEST_CASE("a large pack goes under credit") {
  World world;
  world.origin->pack_bytes = 8 << 20;
  world.run([](Agent& agent) -> os::awaitable<void> {
    auto sync = co_await agent.expect<wire::SyncStart>();
    co_await agent.expect<wire::LockReleased>();
    CHECK(agent.pack.size() == 8 << 20);
    agent.say(wire::Granted{});
    agent.applied(sync);
    co_await agent.run_command("", "", 0);
    agent.say(wire::Unchanged{});
    agent.say(wire::Released{});
  });
}

TEST_CASE("a step that fails is reported when the lock is free again") {
  World world;
  auto outcome = world.run([](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.say(wire::Applied{"snapshot1", "", {}, {}});
    agent.say(wire::Failed{"exec", "not_found", "make"});
    agent.say(wire::Unchanged{});
    agent.say(wire::Released{});
  });
  REQUIRE(outcome.failed);
  CHECK(outcome.failed->code == "not_found");
  CHECK_FALSE(outcome.exited);
}

TEST_CASE("input goes to the command and ends with it") {
  World world;
  world.streams.input = {"one\n", "two\n"};
  world.run([](Agent& agent) -> os::awaitable<void> {
    auto sync = co_await agent.expect<wire::SyncStart>();
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.applied(sync);
    agent.say(wire::Started{"job", 7});
    auto signalled = agent.next();  // reads input on the way; ends with the merge of the result
    co_await agent.output(FrameKind::output, "");
    co_await agent.output(FrameKind::error, "");
    co_await os::pause(co_await boost::asio::this_coro::executor, std::chrono::milliseconds(50));
    agent.say(wire::Exited{});
    co_await agent.result("r1", "x");
    agent.say(wire::Released{});
    co_await std::move(signalled);
    CHECK(agent.input == "one\ntwo\n");
    CHECK(agent.input_ended);
  });
}

TEST_CASE("a command that ends while its input stays open ends the exec") {
  World world;
  world.streams.keep_open = true;
  auto outcome = world.run([](Agent& agent) -> os::awaitable<void> {
    auto sync = co_await agent.expect<wire::SyncStart>();
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.applied(sync);
    co_await agent.run_command("done", "", 0);
    agent.say(wire::Unchanged{});
    agent.say(wire::Released{});
  });
  CHECK(world.streams.out == "done");
  CHECK(outcome.exited);
}

TEST_CASE("when nobody reads our stdout the command gets SIGPIPE") {
  World world;
  world.streams.closed = true;
  world.run([](Agent& agent) -> os::awaitable<void> {
    auto sync = co_await agent.expect<wire::SyncStart>();
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.applied(sync);
    agent.say(wire::Started{"job", 7});
    co_await agent.output(FrameKind::output, "y\n");
    auto signal = co_await agent.expect<wire::Signal>();
    CHECK(signal.name == "PIPE");
    CHECK(signal.stream == "output");
    co_await agent.output(FrameKind::error, "");
    wire::Exited exited;
    exited.signal = "PIPE";
    agent.say(exited);
    agent.say(wire::Unchanged{});
    agent.say(wire::Released{});
  });
}

TEST_CASE("a command whose output cannot be written here goes on, and its success is not all") {
  World world;
  world.streams.full = true;
  auto outcome = world.run([](Agent& agent) -> os::awaitable<void> {
    auto sync = co_await agent.expect<wire::SyncStart>();
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.applied(sync);
    co_await agent.run_command(std::string(wire::kInitialStreamCredit, 'x'), "", 0);
    co_await agent.result("r1", "bytes");
    agent.say(wire::Released{});
    // A signal would have come before this.
    auto next = co_await agent.next();
    CHECK(wire::message_name(next.second) == "merged");
  });
  CHECK(outcome.output_lost == "cannot write to stdout: the disk is full");
  CHECK(outcome.all_brought_back());
  CHECK(cli::exit_status(outcome) == 254);
  outcome.exited->status = 3;
  CHECK(cli::exit_status(outcome) == 3);
}

TEST_CASE("a refused signal says nothing about the command") {
  World world;
  auto outcome = world.run([](Agent& agent) -> os::awaitable<void> {
    auto sync = co_await agent.expect<wire::SyncStart>();
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.applied(sync);
    agent.say(wire::Failed{"signal", "bad_input", "\"FOO\" is not the name of a signal"});
    agent.say(wire::Failed{"window", "bad_input", "window: rows"});
    co_await agent.run_command("out", "", 0);
    agent.say(wire::Failed{"signal", "not_found", "it has ended"});
    wire::Result result;
    result.result = "r1";
    agent.say(result);
    agent.say(wire::Failed{"signal", "not_found", "it has ended"});
    co_await agent.output(FrameKind::result_pack, "bytes");
    agent.say(wire::Released{});
  });
  CHECK_FALSE(outcome.failed);
  CHECK(outcome.all_brought_back());
  CHECK(world.streams.out == "out");
  CHECK(world.origin->last_merged == "r1");
}

TEST_CASE("a result whose pack breaks off is not waited for, and the command's status stands") {
  for (bool ended_too : {false, true}) {
    INFO(ended_too);
    World world;
    auto outcome = world.run([ended_too](Agent& agent) -> os::awaitable<void> {
      auto sync = co_await agent.expect<wire::SyncStart>();
      co_await agent.expect<wire::LockReleased>();
      agent.say(wire::Granted{});
      agent.applied(sync);
      co_await agent.run_command("", "", 0);
      wire::Result result;
      result.result = "r1";
      agent.say(result);
      agent.say(wire::Released{});
      auto sent = co_await agent.frames.send_bulk(FrameKind::result_pack, agent.request, "half");
      CHECK(sent);
      agent.say(wire::Failed{"result_pack", "io", "the result's pack: Input/output error"});
      if (ended_too) agent.frames.end_bulk(FrameKind::result_pack, agent.request);
    });
    CHECK(outcome.not_merged == "the result's pack: Input/output error");
    CHECK_FALSE(outcome.failed);
    CHECK(cli::exit_status(outcome) == 254);
    CHECK(world.origin->last_merged.empty());
  }
}

TEST_CASE("a pull whose pack breaks off says so") {
  World world;
  world.loop.start(world.play([](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::Pull>();
    agent.say(wire::Result{});
    agent.say(wire::Failed{"result_pack", "io", "a disk error"});
  }));
  auto outcome = world.loop.run(world.client->pull(world.origin));
  CHECK(outcome.not_merged == "a disk error");
  CHECK(world.origin->last_merged.empty());
}

TEST_CASE("whatever fails after the command has ended costs its changes, not its status") {
  World cut;
  auto outcome = cut.run([](Agent& agent) -> os::awaitable<void> {
    auto sync = co_await agent.expect<wire::SyncStart>();
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.applied(sync);
    co_await agent.run_command("out", "", 3);
    wire::Result result;
    result.result = "r1";
    agent.say(result);
    co_await agent.frames.finish();
    agent.frames.close();
  });
  CHECK(cli::exit_status(outcome) == 3);
  CHECK_FALSE(outcome.all_brought_back());
  CHECK(outcome.not_merged.find("closed the session") != std::string::npos);

  World refused;
  outcome = refused.run([](Agent& agent) -> os::awaitable<void> {
    auto sync = co_await agent.expect<wire::SyncStart>();
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.applied(sync);
    co_await agent.run_command("out", "", 0);
    agent.say(wire::Failed{"__rwx_sandbox_lock_released__", "no_space", "the disk is full"});
    agent.say(wire::Released{});
  });
  CHECK(cli::exit_status(outcome) == 254);
  CHECK(outcome.not_merged == "the disk is full");

  World settled;
  outcome = settled.run([](Agent& agent) -> os::awaitable<void> {
    auto sync = co_await agent.expect<wire::SyncStart>();
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.applied(sync);
    co_await agent.run_command("out", "", 0);
    agent.say(wire::Unchanged{});
    co_await agent.frames.finish();
    agent.frames.close();
  });
  CHECK(cli::exit_status(outcome) == 0);
}

TEST_CASE("a box that vanishes is an error, and the output that came is kept") {
  World world;
  CHECK_THROWS_AS(world.run([](Agent& agent) -> os::awaitable<void> {
    auto sync = co_await agent.expect<wire::SyncStart>();
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.applied(sync);
    agent.say(wire::Started{"job", 7});
    auto sent = co_await agent.frames.send_bulk(FrameKind::output, agent.request, "half a li");
    CHECK(sent);
    co_await agent.frames.finish();
    agent.frames.close();
  }),
                  cli::UserError);
  CHECK(world.streams.out == "half a li");
  CHECK(world.streams.ended);
}

TEST_CASE("a sandbox that is not there is told apart from everything else") {
  World world;
  auto script = [](World& w) -> os::awaitable<void> {
    co_await w.agent->expect<wire::Bind>();
    w.agent->request = 0;
    w.agent->say(wire::Failed{"bind", "not_found", "no sandbox"});
    co_await w.agent->expect<wire::InfoRequest>();
    wire::Info info;
    info.agent = "agent";
    w.agent->say(info);
  };
  world.loop.start(script(world));
  CHECK_THROWS_AS(world.loop.run(world.client->run(world.origin, world.cycle())), cli::BindFailed);
  auto answer = world.loop.run(world.client->ask(wire::InfoRequest{}));
  CHECK(std::get<wire::Info>(answer).agent == "agent");
}

TEST_CASE("a sandbox that is ended before anything ran may be looked for again, after that not") {
  World before;
  CHECK_THROWS_AS(before.run([](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Queued{1, {}});
    agent.request = 0;
    agent.say(wire::Failed{"session", "gone", "the sandbox was ended"});
  }),
                  cli::BindFailed);
  World after;
  CHECK_THROWS_AS(after.run([](Agent& agent) -> os::awaitable<void> {
    auto sync = co_await agent.expect<wire::SyncStart>();
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.applied(sync);
    agent.say(wire::Started{"job", 7});
    agent.request = 0;
    agent.say(wire::Failed{"session", "gone", "the sandbox was ended"});
  }),
                  cli::UserError);
}

TEST_CASE("a result that cannot be read is not claimed as merged") {
  World world;
  world.origin->refuse_pack = true;
  auto outcome = world.run([](Agent& agent) -> os::awaitable<void> {
    auto sync = co_await agent.expect<wire::SyncStart>();
    co_await agent.expect<wire::LockReleased>();
    agent.say(wire::Granted{});
    agent.applied(sync);
    co_await agent.run_command("", "", 0);
    co_await agent.result("r1", "bytes");
    agent.say(wire::Released{});
  });
  CHECK(outcome.not_merged == "the pack is damaged");
  CHECK_FALSE(outcome.all_brought_back());
  CHECK(world.origin->last_merged.empty());
}

TEST_CASE("a work tree that cannot be read, and a pack that cannot be made, are errors of ours") {
  World first;
  first.origin->fail_snapshot = true;
  CHECK_THROWS_WITH(first.loop.run(first.client->run(first.origin, first.cycle())),
                    Catch::Contains("/work: no space left"));
  World second;
  second.origin->fail_pack = true;
  CHECK_THROWS_WITH(second.run([](Agent& agent) -> os::awaitable<void> {
    bool gone = false;
    try {
      co_await agent.expect<wire::LockReleased>();
    } catch (const std::runtime_error&) {
      gone = true;
    }
    CHECK(gone);
  }),
                    Catch::Contains("object missing"));
}

TEST_CASE("a push has no exec") {
  World world;
  auto cycle = world.cycle();
  cycle.exec.reset();
  cycle.streams = nullptr;
  auto outcome = world.run(
      [](Agent& agent) -> os::awaitable<void> {
        auto sync = co_await agent.expect<wire::SyncStart>();
        co_await agent.expect<wire::LockReleased>();
        CHECK(std::find(agent.seen.begin(), agent.seen.end(), "exec") == agent.seen.end());
        agent.say(wire::Granted{});
        agent.applied(sync);
        agent.say(wire::Unchanged{});
        agent.say(wire::Released{});
      },
      std::move(cycle));
  CHECK(outcome.snapshot == "snapshot1");
}

TEST_CASE("pull asks until there is nothing more") {
  World world;
  world.loop.start(world.play([](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::Pull>();
    co_await agent.result("r1", "bytes");
    auto again = co_await agent.expect<wire::Pull>();
    CHECK(again.merged == "r1");
    agent.say(wire::Unchanged{});
  }));
  auto outcome = world.loop.run(world.client->pull(world.origin));
  CHECK(outcome.all_brought_back());
  CHECK(world.origin->last_merged == "r1");
}

TEST_CASE("a result whose base is gone here is asked for once more, whole") {
  World world;
  world.origin->lacks_base = true;
  auto whole_result = [](Agent& agent) -> os::awaitable<void> {
    auto asked = co_await agent.expect<wire::Pull>();
    CHECK(asked.whole);
    wire::Result whole;
    whole.result = "r1";
    whole.shallow = {"end"};
    agent.say(whole);
    auto sent = co_await agent.frames.send_bulk(FrameKind::result_pack, agent.request, "whole");
    CHECK(sent);
    agent.frames.end_bulk(FrameKind::result_pack, agent.request);
    auto more = co_await agent.expect<wire::Pull>();
    CHECK_FALSE(more.whole);
    agent.say(wire::Unchanged{});
  };
  SECTION("by a pull") {
    world.loop.start(world.play([&](Agent& agent) -> os::awaitable<void> {
      auto asked = co_await agent.expect<wire::Pull>();
      CHECK_FALSE(asked.whole);
      co_await agent.result("r1", "thin");
      co_await whole_result(agent);
    }));
    auto outcome = world.loop.run(world.client->pull(world.origin));
    CHECK(outcome.all_brought_back());
  }
  SECTION("after a command") {
    auto outcome = world.run([&](Agent& agent) -> os::awaitable<void> {
      auto sync = co_await agent.expect<wire::SyncStart>();
      co_await agent.expect<wire::LockReleased>();
      agent.say(wire::Granted{});
      agent.applied(sync);
      co_await agent.run_command("", "", 0);
      co_await agent.result("r1", "thin");
      agent.say(wire::Released{});
      co_await whole_result(agent);
    });
    CHECK(outcome.all_brought_back());
    CHECK(cli::exit_status(outcome) == 0);
  }
  SECTION("before a command, when it is an earlier one's") {
    auto outcome = world.run([&](Agent& agent) -> os::awaitable<void> {
      co_await agent.expect<wire::SyncStart>();
      co_await agent.expect<wire::LockReleased>();
      agent.say(wire::Granted{});
      agent.say(wire::Stale{"r1"});
      co_await agent.result("r1", "thin");
      co_await whole_result(agent);
      auto sync = co_await agent.expect<wire::SyncStart>();
      CHECK(sync.merged == "r1");
      co_await agent.expect<wire::LockReleased>();
      agent.applied(sync);
      co_await agent.run_command("", "", 0);
      agent.say(wire::Unchanged{});
      agent.say(wire::Released{});
    });
    CHECK(outcome.all_brought_back());
  }
  CHECK(world.origin->last_merged == "r1");
}

TEST_CASE("an agent that sends the same pack again is not asked a third time") {
  World world;
  world.origin->lacks_base = true;
  world.loop.start(world.play([](Agent& agent) -> os::awaitable<void> {
    co_await agent.expect<wire::Pull>();
    co_await agent.result("r1", "thin");
    co_await agent.expect<wire::Pull>();
    co_await agent.result("r1", "thin");
  }));
  auto outcome = world.loop.run(world.client->pull(world.origin));
  CHECK(outcome.not_merged == "the base is not here");
  CHECK(world.origin->last_merged.empty());
}

TEST_CASE("a command too large for the wire is refused before anything is sent") {
  World world;
  auto cycle = world.cycle();
  cycle.exec->env["BIG"] = std::string(2 << 20, 'x');
  CHECK_THROWS_AS(world.loop.run(world.client->run(world.origin, std::move(cycle))),
                  cli::UserError);
}

TEST_CASE("an agent that takes no snapshot ever is left") {
  World world;
  world.origin->bases = "base";
  CHECK_THROWS_WITH(world.run([](Agent& agent) -> os::awaitable<void> {
    for (bool more = true; more;) {
      try {
        co_await agent.expect<wire::LockReleased>();
        agent.say(wire::Missing{{"x"}});
      } catch (const std::runtime_error&) {
        more = false;
      }
    }
  }),
                    Catch::Contains("takes none of our snapshots"));
}

TEST_CASE("heartbeats come while a command runs") {
  World world;
  auto script = [](World& w) -> os::awaitable<void> {
    co_await w.agent->expect<wire::Bind>();
    wire::Bound bound;
    bound.ttl_seconds = 1;
    w.agent->say(bound);
    auto sync = co_await w.agent->expect<wire::SyncStart>();
    co_await w.agent->expect<wire::LockReleased>();
    w.agent->say(wire::Granted{});
    w.agent->applied(sync);
    w.agent->say(wire::Started{"job", 7});
    auto signal = co_await w.agent->expect<wire::Signal>();
    CHECK(signal.name == "TERM");
    co_await w.agent->output(FrameKind::output, "");
    co_await w.agent->output(FrameKind::error, "");
    w.agent->say(wire::Exited{});
    w.agent->say(wire::Unchanged{});
    w.agent->say(wire::Released{});
  };
  auto later = [](World& w) -> os::awaitable<void> {
    while (w.agent->heartbeats < 2) {
      co_await os::pause(w.loop.executor(), std::chrono::milliseconds(20));
    }
    w.client->signal("TERM");
  };
  world.loop.start(script(world));
  world.loop.start(later(world));
  world.loop.run(world.client->run(world.origin, world.cycle()));
  CHECK(world.agent->heartbeats >= 2);
}
