// Stock clients of an agent: their lock, what they may not end, and what is recorded of them.
#include <atomic>
#include <future>

#include "agent/authorized_keys.h"
#include "agent/store.h"
#include "tests/support/agent_world.h"
#include "tests/support/catch.h"
#include "tests/support/raw_ssh.h"

using namespace test;
using namespace protocol::wire;

namespace {

const char* const kLock = "__rwx_sandbox_lock_requested__";

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Another thread's answer, while the agent of `world` works.
template <class T>
T wait(AgentWorld& world, std::future<T>& answer) {
  world.until(
      [&] { return answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready; });
  return answer.get();
}

// One command of a client with a connection and a thread of its own.
RawSsh::End run(AgentWorld& world, const protocol::ssh::PrivateKey& key, const std::string& user,
                const std::string& command) {
  auto ran = std::async(std::launch::async, [port = world.port(), key, user, command] {
    RawSsh client(port, user);
    client.login(key);
    return client.run(command);
  });
  return wait(world, ran);
}

SessionClient holding(AgentWorld& world, const std::string& command) {
  auto client = world.session();
  client.create('a');
  LockRequested lock;
  lock.verb = "exec";
  lock.command = command;
  client.send(1, lock);
  client.expect<Granted>(1);
  return client;
}

void until_waiting(SessionClient& asker, std::size_t count) {
  for (;;) {
    asker.send(0, BoxRequest{});
    if (asker.expect<Box>(0).waiting.size() == count) {
      return;
    }
  }
}

}  // namespace

TEST_CASE("a stock waiter is told by a close without a status that it does not get the lock") {
  AgentWorld world;
  world.start();
  auto client = world.session();
  Create create;
  create.sandbox = sandbox_id('a');
  create.scope = "ci:drone:org/repo#9@host";
  client.send(0, create);
  client.expect<Bound>(0);
  LockRequested lock;
  lock.command = "make test";
  client.send(1, lock);
  client.expect<Granted>(1);
  auto waiter = std::async(std::launch::async, [port = world.port(), key = world.key()] {
    RawSsh stock(port);
    stock.login(key);
    return stock.run(kLock);
  });
  until_waiting(client, 1);
  world.agent().stop();
  auto end = wait(world, waiter);
  CHECK(!end.status);
  CHECK(end.signal.empty());
  CHECK(end.order == "eof close");
  CHECK(end.out.empty());
  CHECK(has(end.err, "held by ann for drone org/repo build 9 (make test)"));
  CHECK(has(end.err, "refused: the agent is stopping; ask again"));
  CHECK(world.wait_for_end());
}

TEST_CASE("a stock waiter that closes its channel leaves the line, though its connection stays") {
  AgentWorld world;
  world.start();
  auto holder = holding(world, "make");
  std::atomic<bool> leave = false, end = false;
  auto waiter = std::async(std::launch::async, [&, port = world.port(), key = world.key()] {
    RawSsh stock(port);
    stock.login(key);
    auto& channel = stock.exec(kLock);
    stock.until([&] { return leave.load(); });
    ssh_channel_close(channel.handle);
    stock.until([&] { return end.load(); });
    return channel.end;
  });
  struct Let {
    std::atomic<bool>&first, &second;
    ~Let() { first = second = true; }
  } let_go{leave, end};
  until_waiting(holder, 1);
  auto third = world.session();
  third.create('a');
  third.send(1, LockRequested{});
  CHECK(third.expect<Queued>(1).position == 2);
  leave = true;
  CHECK(third.expect<Queued>(1).position == 1);
  end = true;
  auto closed = wait(world, waiter);
  CHECK(!closed.status);
}

TEST_CASE("somebody else's sandbox is not ended by a stock client, who is told whose it is") {
  AgentWorld world;
  world.start();
  auto bob = protocol::ssh::PrivateKey::generate_ed25519();
  REQUIRE(bob);
  REQUIRE(agent::authorize_key(world.state() / "authorized_keys", bob->public_key().text(), "bob"));
  auto ann = holding(world, "make test");
  for (const std::string& name : {sandbox_id('a'), std::string("aaaa")}) {
    INFO(name);
    auto end = run(world, *bob, name, "__rwx_sandbox_end__");
    CHECK(end.status == 75);
    CHECK(has(end.err, "is ann's"));
    CHECK(has(end.err, "held by ann (make test)"));
    CHECK(std::filesystem::exists(world.sandbox('a') / "workspace"));
  }
  CHECK(run(world, *bob, "aaa", "__rwx_sandbox_end__").status == 255);
  CHECK(run(world, *bob, "bbbb", "__rwx_sandbox_end__").status == 255);
  // By a name of two there is no saying whose.
  auto other = world.session();
  Create create;
  create.sandbox = "aaaa" + std::string(28, 'b');
  other.send(0, create);
  other.expect<Bound>(0);
  CHECK(run(world, *bob, "aaaa", "__rwx_sandbox_end__").status == 255);
  CHECK(run(world, *bob, sandbox_id('a'), "__rwx_sandbox_end__").status == 75);
}

TEST_CASE("a refused stock client is told what to do next") {
  AgentWorld world([](auto& settings) { settings.serve.slots = 1; });
  world.start();
  {
    auto client = world.session();
    client.create('b');
    client.finish();
  }
  auto holder = holding(world, "make test");
  auto busy = run(world, world.key(), sandbox_id('b'), "true");
  CHECK(busy.status == 75);
  CHECK(has(busy.err, "busy, held by ann (make test)"));
  CHECK(has(busy.err, "; try again when that has ended"));
  holder.send(0, UserLockRequest{"demo", "carol", "ci:drone:org/repo#9@host"});
  holder.expect<UserLocked>(0);
  auto locked = run(world, world.key(), sandbox_id('b'), "true");
  CHECK(locked.status == 75);
  CHECK(has(locked.err, "locked by carol for drone org/repo build 9 since"));
  CHECK(has(locked.err, "try again when it is unlocked"));
}

TEST_CASE("what a stock client runs between its sync marks is kept out of the audit trail") {
  AgentWorld world;
  world.start();
  {
    auto client = world.session();
    client.create('a');
    client.finish();
  }
  auto ran = std::async(std::launch::async, [port = world.port(), key = world.key()] {
    RawSsh stock(port);
    stock.login(key);
    std::string out;
    for (const char* command :
         {"__rwx_sandbox_sync_start__", "echo sync", "__rwx_sandbox_sync_end__", "echo build"}) {
      out += stock.run(command).out;
    }
    return out;
  });
  CHECK(wait(world, ran) == "sync\nbuild\n");
  CHECK(world.stop());
  auto store = agent::Store::open(world.state() / "agent.db");
  REQUIRE(store);
  auto trail = world.loop.run((*store)->audit_trail(10));
  REQUIRE(trail);
  REQUIRE(trail->size() == 1);
  CHECK(trail->at(0).action == "exec");
  CHECK(trail->at(0).detail == "echo build");
}

TEST_CASE("the name rwx-cli means the sandbox that was used last, whatever the ids") {
  AgentWorld world;
  world.start();
  for (char digit : {'a', 'b'}) {
    auto client = world.session();
    client.create(digit);
    client.finish();
  }
  CHECK(world.stop());
  {
    auto store = agent::Store::open(world.state() / "agent.db");
    REQUIRE(store);
    auto records = world.loop.run((*store)->sandboxes());
    REQUIRE(records);
    for (auto& record : *records) {
      record.used_at = record.id == sandbox_id('a') ? 2000 : 1000;
      auto put = world.loop.run((*store)->put_sandbox(record));
      REQUIRE(put);
    }
  }
  world.start();
  auto where = run(world, world.key(), "rwx-cli", "pwd");
  CHECK(where.out == (world.sandbox('a') / "workspace").string() + "\n");
}
