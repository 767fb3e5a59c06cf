// Session locks on the box, and removal of what nobody uses.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "protocol/os/flock.h"
#include "tests/support/agent_world.h"
#include "tests/support/catch.h"

using namespace test;
using namespace protocol::wire;
using protocol::os::FileLock;
namespace fs = std::filesystem;

namespace {

bool held(const AgentWorld& world, char digit) {
  auto answer = FileLock::is_held(world.sandbox(digit) / ".lock");
  return answer && *answer;
}

End if_idle(char digit, bool keep = false, bool dry_run = false) {
  End end;
  end.sandbox = sandbox_id(digit);
  end.if_idle = true;
  end.keep_unpulled = keep;
  end.dry_run = dry_run;
  return end;
}

// Asks again and again, until so many sessions are attached.
void until_sessions(SessionClient& client, std::size_t count) {
  for (int i = 0; i < 1000; ++i) {
    client.send(0, SessionsRequest{});
    if (client.expect<Sessions>(0).sessions.size() == count) {
      return;
    }
  }
  FAIL("there are never " << count << " sessions");
}

}  // namespace

TEST_CASE("a bound session holds a shared lock on its sandbox until its end") {
  AgentWorld world;
  world.start();
  auto first = world.session();
  first.send(0, InfoRequest{});
  first.expect<Info>(0);
  first.create('a');
  CHECK(held(world, 'a'));
  CHECK(FileLock::try_lock(world.sandbox('a') / ".lock", FileLock::Kind::shared));
  auto second = world.session();
  second.create('a');
  second.finish();
  until_sessions(first, 1);
  CHECK(held(world, 'a'));
  first.vanish();
  world.until([&] { return !held(world, 'a'); });
  CHECK(fs::exists(world.sandbox('a') / ".lock"));
}

TEST_CASE("a session waits out whoever only asks, and is refused by name when it cannot lock") {
  AgentWorld world;
  world.start();
  {
    auto client = world.session();
    client.create('a');
    client.finish();
  }
  world.until([&] { return !held(world, 'a'); });
  auto asking = FileLock::try_lock(world.sandbox('a') / ".lock", FileLock::Kind::exclusive);
  REQUIRE(asking);
  auto client = world.session();
  Bind bind;
  bind.sandbox = sandbox_id('a');
  client.send(0, bind);
  client.send(0, Heartbeat{});
  world.loop.settle();
  asking->release();
  client.expect<Bound>(0);
  client.finish();
  world.until([&] { return !held(world, 'a'); });

  fs::remove(world.sandbox('a') / ".lock");
  fs::create_symlink(world.state() / "elsewhere", world.sandbox('a') / ".lock");
  auto refused = world.session();
  refused.send(0, bind);
  auto failed = refused.expect<Failed>(0);
  CHECK(failed.message.find("session lock") != std::string::npos);
  CHECK_FALSE(fs::exists(world.state() / "elsewhere"));
  refused.send(1, Exec{});
  CHECK(refused.expect<Failed>(1).code == "bad_input");  // it is not bound
}

TEST_CASE("list says who is active without making or keeping a lock") {
  AgentWorld world;
  world.start();
  auto client = world.session();
  client.create('a');
  auto other = world.session();
  other.create('b');
  other.finish();
  world.until([&] { return !held(world, 'b'); });
  fs::remove(world.sandbox('b') / ".lock");
  ListRequest request;
  request.sizes = true;
  std::ofstream(world.sandbox('b') / "workspace/file") << std::string(50'000, 'x') << std::flush;
  for (int i = 0; i < 20; ++i) {
    client.send(0, request);
    auto list = client.expect<Sandboxes>(0).sandboxes;
    REQUIRE(list.size() == 2);
    CHECK(list[0].active);
    CHECK_FALSE(list[1].active);
    CHECK(list[0].size_bytes > 0);
    CHECK(list[1].size_bytes > list[0].size_bytes);
    CHECK_FALSE(fs::exists(world.sandbox('b') / ".lock"));
  }
  client.send(0, ListRequest{});
  CHECK(client.expect<Sandboxes>(0).sandboxes[0].size_bytes == -1);
  std::string metadata;
  std::getline(std::ifstream(world.sandbox('a') / "metadata.json"), metadata);
  CHECK(metadata.find("ctive") == std::string::npos);
}

TEST_CASE("a sandbox is removed if idle only when nobody else is attached to it") {
  AgentWorld world;
  world.start();
  auto user = world.session();
  user.create('a');
  auto remover = world.session();
  remover.send(0, if_idle('a'));
  auto busy = remover.expect<Failed>(0);
  CHECK(busy.code == "busy");
  CHECK(busy.message.find("ann") != std::string::npos);
  CHECK(fs::exists(world.sandbox('a') / "workspace"));
  user.send(0, InfoRequest{});
  user.expect<Info>(0);  // nobody told it anything
  user.finish();
  world.until([&] { return !held(world, 'a'); });
  remover.send(0, if_idle('a', false, true));
  remover.expect<Ended>(0);
  CHECK(fs::exists(world.sandbox('a') / "workspace"));  // that was a dry run
  remover.send(0, if_idle('a'));
  remover.expect<Ended>(0);
  CHECK_FALSE(fs::exists(world.sandbox('a')));
  world.until([&] { return fs::is_empty(world.state() / ".removing"); });
  remover.send(0, if_idle('a'));
  CHECK(remover.expect<Failed>(0).code == "not_found");
}

TEST_CASE("somebody else's sandbox cannot be removed, however idle") {
  AgentWorld world;
  world.start();
  auto bob = world.session();
  bob.create('a', "bob");
  bob.finish();
  world.until([&] { return !held(world, 'a'); });
  auto ann = world.session();
  ann.send(0, if_idle('a'));
  CHECK(ann.expect<Failed>(0).code == "not_found");
  CHECK(fs::exists(world.sandbox('a')));
}

TEST_CASE("the last session removes its own sandbox, and goes on when it may not") {
  AgentWorld world;
  world.start();
  auto first = world.session();
  first.create('a');
  auto second = world.session();
  second.create('a');
  End end = if_idle('a');
  end.sandbox.clear();
  second.send(0, end);
  CHECK(second.expect<Failed>(0).code == "busy");
  CHECK(held(world, 'a'));
  second.send(1, LockRequested{});
  second.expect<Granted>(1);  // still bound
  second.send(1, LockReleased{});
  second.expect<Released>(1);
  first.finish();
  until_sessions(second, 1);
  second.send(0, end);
  second.expect<Ended>(0);
  CHECK_FALSE(fs::exists(world.sandbox('a')));
}

TEST_CASE("a session that removes its own idle sandbox gives its lock back with it") {
  AgentWorld world([](auto& settings) { settings.serve.slots = 1; });
  world.start();
  auto client = world.session();
  client.create('a');
  client.send(1, LockRequested{});
  client.expect<Granted>(1);
  auto next = world.session();
  next.create('b');
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  client.send(0, if_idle('a'));
  client.expect<Ended>(0);
  next.expect<Granted>(1);
}

TEST_CASE("a session with a lock of its own does not remove a sandbox that another holds, too") {
  AgentWorld world;
  world.start();
  auto client = world.session();
  client.create('a');
  auto stock = world.connect("sandbox");
  auto locked = world.loop.run(stock->exec("__rwx_sandbox_lock_requested__"));
  REQUIRE(locked);
  std::byte buffer[16];
  auto end = world.loop.run((*locked)->read_some(buffer));
  REQUIRE((!end || *end == 0));
  LockRequested lock;
  lock.force = true;
  client.send(1, lock);
  CHECK(client.expect<Granted>(1).bypassed.size() == 1);
  client.send(0, if_idle('a'));
  auto busy = client.expect<Failed>(0);
  CHECK(busy.code == "busy");
  CHECK(busy.message.find("ann runs ssh from") != std::string::npos);
  CHECK(fs::exists(world.sandbox('a') / "workspace"));
}

TEST_CASE("a session whose command is not over is told so, and its command is left alone") {
  AgentWorld world;
  world.start();
  auto client = world.session();
  client.create('a');
  FakeSupervisor supervisor(world, world.sandbox('a'));
  client.send_command(1, "make");
  client.expect<Granted>(1);
  supervisor.expect(0, 1, "exec");
  supervisor.send(0, 1, Started{"job", 1});
  client.expect<Started>(1);
  for (bool dry_run : {true, false}) {
    client.send(0, if_idle('a', false, dry_run));
    CHECK(client.expect<Failed>(0).code == "busy");
  }
  supervisor.send(0, 1, Exited{});
  supervisor.send(0, 1, Unchanged{});
  client.expect<Exited>(1);
  client.expect<Unchanged>(1);
  client.expect<Released>(1);
  CHECK_FALSE(supervisor.has(0, "0 hangup"));
}

TEST_CASE("a stock connection whose sandbox was ended does not go over to another one") {
  AgentWorld world;
  world.start();
  auto owner = world.session();
  owner.create('a');
  auto stock = world.connect("sandbox");
  auto told = [&](const std::string& command) {
    std::string errors;
    std::function<void(std::string_view)> note = [&errors](std::string_view text) {
      errors += text;
    };
    auto stream = world.loop.run(stock->exec(command, note));
    REQUIRE(stream);
    std::byte buffer[64];
    auto count = world.loop.run((*stream)->read_some(buffer));
    while (count && *count > 0) {
      count = world.loop.run((*stream)->read_some(buffer));
    }
    return errors;
  };
  CHECK(told("__rwx_sandbox_lock_requested__").empty());
  auto other = world.session();
  other.create('b');
  FakeSupervisor supervisor(world, world.sandbox('b'));
  owner.send(0, End{true});
  owner.expect<Ended>(0);
  for (const char* command : {"touch ran", "__rwx_sandbox_lock_requested__"}) {
    CHECK(told(command).find("was ended") != std::string::npos);
  }
  CHECK(supervisor.connections() == 0);
  other.send(0, StatusRequest{});
  supervisor.expect(0, 0, "status_request");
  supervisor.send(0, 0, Status{});
  CHECK(other.expect<Status>(0).sandbox.holders.empty());
}

TEST_CASE("what was never pulled keeps a sandbox, and whoever comes meanwhile waits and finds it") {
  AgentWorld world;
  world.start();
  {
    auto client = world.session();
    client.create('a');
    client.finish();
  }
  world.until([&] { return !held(world, 'a'); });
  FakeSupervisor supervisor(world, world.sandbox('a'));
  auto remover = world.session();
  remover.send(0, if_idle('a', true));
  supervisor.expect(0, 1, "unpulled_request");
  CHECK(held(world, 'a'));
  auto client = world.session();
  Bind bind;
  bind.sandbox = sandbox_id('a');
  client.send(0, bind);
  client.send(0, SessionsRequest{});
  world.loop.settle();
  Unpulled lost;
  lost.results = 1;
  lost.files = {"a", "b"};
  lost.commits = {"refs/heads/x"};
  supervisor.send(0, 1, lost);
  auto refused = remover.expect<Failed>(0);
  CHECK(refused.code == "refused");
  CHECK(refused.message.find("a, b") != std::string::npos);
  CHECK(refused.message.find("refs/heads/x") != std::string::npos);
  client.expect<Bound>(0);
  CHECK(fs::exists(world.sandbox('a') / "workspace"));
}

TEST_CASE("whoever comes while a sandbox is removed finds it gone, never half of it") {
  AgentWorld world;
  world.start();
  {
    auto client = world.session();
    client.create('a');
    client.finish();
  }
  world.until([&] { return !held(world, 'a'); });
  FakeSupervisor supervisor(world, world.sandbox('a'));
  auto remover = world.session();
  remover.send(0, if_idle('a', true));
  supervisor.expect(0, 1, "unpulled_request");
  auto client = world.session();
  Bind bind;
  bind.sandbox = sandbox_id('a');
  client.send(0, bind);
  world.loop.settle();
  supervisor.send(0, 1, Unpulled{});
  supervisor.expect(1, 0, "shutdown");
  supervisor.send(1, 0, Ended{});
  remover.expect<Ended>(0);
  CHECK(client.expect<Failed>(0).code == "not_found");
  CHECK_FALSE(fs::exists(world.sandbox('a')));
}

TEST_CASE("an agent whose database was lost leaves the sandboxes alone that may hold work") {
  AgentWorld world;
  for (char digit : {'a', 'b'}) {
    fs::create_directories(world.sandbox(digit) / "workspace");
  }
  fs::create_directories(world.sandbox('a') / "store.git");
  std::ofstream(world.sandbox('a') / "workspace/file") << "x" << std::flush;
  fs::create_directories(world.state() / "sandboxes/lost+found");
  world.start();
  CHECK(fs::exists(world.sandbox('a') / "workspace/file"));
  CHECK(fs::exists(world.state() / "sandboxes/lost+found"));
  CHECK_FALSE(fs::exists(world.sandbox('b')));  // nothing ever ran there
  // Nor does anybody get it by its id.
  auto client = world.session();
  Create create;
  create.sandbox = sandbox_id('a');
  client.send(0, create);
  auto failed = client.expect<Failed>(0);
  CHECK(failed.code == "exists");
  CHECK(failed.message.find(world.sandbox('a').string()) != std::string::npos);
}

TEST_CASE("removals that were cut off are finished, those of a living process left alone") {
  AgentWorld world;
  world.start();
  auto staged = world.state() / ".removing";
  pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  int status = 0;
  REQUIRE(::waitpid(dead, &status, 0) == dead);
  auto dead_one = staged / ("x-" + std::to_string(dead));
  auto live_one = staged / ("x-" + std::to_string(::getppid()));
  auto ours = staged / ("y-" + std::to_string(::getpid()));  // its deletion has failed before
  for (const auto& tree : {dead_one, live_one, ours}) {
    fs::create_directories(tree / "workspace/cache");
    std::ofstream(tree / "workspace/cache/file") << "x" << std::flush;
    ::chmod((tree / "workspace/cache").c_str(), 0555);
  }
  std::ofstream(staged / ("file-" + std::to_string(dead))) << "x" << std::flush;
  fs::create_directory(staged / "no-number");
  auto client = world.session();
  client.send(0, Reclaim{true});
  CHECK(client.expect<Reclaimed>(0).removals == 2);
  CHECK(fs::exists(dead_one));
  client.send(0, Reclaim{false});
  CHECK(client.expect<Reclaimed>(0).removals == 2);
  world.until([&] { return !fs::exists(dead_one) && !fs::exists(ours); });
  CHECK(fs::exists(live_one));
  CHECK(fs::exists(staged / "no-number"));
  client.send(0, ListRequest{});
  CHECK(client.expect<Sandboxes>(0).sandboxes.empty());
  ::chmod((live_one / "workspace/cache").c_str(), 0755);
}
