// A box that several people share: user locks, force, the whole box, and who sees what.
#include "agent/store.h"
#include "tests/support/agent_world.h"
#include "tests/support/catch.h"

using namespace test;
using namespace protocol::wire;

namespace {

// One command at a time on the box.
struct Rig : AgentWorld {
  Rig() : AgentWorld([](auto& settings) { settings.serve.slots = 1; }) { start(); }

  SessionClient bound(char digit, const std::string& user) {
    auto client = session();
    client.create(digit, user);
    return client;
  }
  // With a session of that user, bound to a sandbox that is set up.
  SessionClient ready(char digit, const std::string& user) {
    auto client = bound(digit, user);
    client.send(0, Ready{});
    client.expect<Bound>(0);
    return client;
  }
  SessionClient holding(char digit, const std::string& user, const std::string& command) {
    auto client = ready(digit, user);
    LockRequested lock;
    lock.verb = "exec";
    lock.command = command;
    client.send(1, lock);
    client.expect<Granted>(1);
    return client;
  }
  UserLocked lock(const std::string& user, const std::string& scope = "") {
    auto client = session();
    client.send(0, UserLockRequest{"demo", user, scope});
    auto locked = client.expect<UserLocked>(0);
    client.finish();
    return locked;
  }
  Box box(const std::string& user) {
    auto client = session();
    client.send(7, BoxRequest{user, {}});
    auto seen = client.expect<Box>(7);
    client.finish();
    return seen;
  }
  // What was recorded, newest first. Stops the agent.
  std::vector<agent::AuditRecord> audit() {
    CHECK(stop());
    auto store = agent::Store::open(state() / "agent.db");
    REQUIRE(store);
    auto trail = loop.run((*store)->audit_trail(100));
    REQUIRE(trail);
    return *trail;
  }
};

LockRequested at_once(const std::string& command, bool force = false) {
  LockRequested lock;
  lock.verb = "exec";
  lock.command = command;
  lock.wait_seconds = 0;
  lock.force = force;
  return lock;
}

}  // namespace

// ---- user locks

TEST_CASE("a user lock keeps others out and its owner in, and names itself to both") {
  Rig rig;
  auto locked = rig.lock("alice");
  CHECK(locked.taken);
  CHECK(locked.lock.user == "alice");
  CHECK(locked.lock.reason == "demo");
  CHECK(locked.lock.since.size() == std::string("2026-01-31T23:59:59Z").size());
  CHECK(locked.lock.since.back() == 'Z');

  auto bob = rig.bound('b', "bob");
  bob.send(1, at_once("touch /tmp/m"));
  auto refused = bob.expect<Refused>(1);
  CHECK(refused.why == "locked");
  CHECK(refused.box == "local");
  CHECK(refused.since == locked.lock.since);
  CHECK(refused.reason == "demo");
  REQUIRE(refused.holders.size() == 1);
  CHECK(refused.holders[0].user == "alice");
  bob.send(0, UserLockRequest{"mine", "bob", {}});
  CHECK(bob.expect<Refused>(0).holders.at(0).user == "alice");
  bob.send(0, UserUnlockRequest{false, "bob", {}});
  CHECK(bob.expect<Refused>(0).since == locked.lock.since);

  auto alice = rig.holding('a', "alice", "make");
  alice.send(1, LockReleased{});
  alice.expect<Released>(1);
  CHECK(rig.box("bob").user_lock->user == "alice");
  auto again = rig.lock("alice");
  CHECK_FALSE(again.taken);
  CHECK(again.lock.since == locked.lock.since);

  alice.send(0, UserUnlockRequest{false, "alice", {}});
  CHECK(alice.expect<UserUnlocked>(0).was->user == "alice");
  alice.send(0, UserUnlockRequest{false, "alice", {}});
  CHECK_FALSE(alice.expect<UserUnlocked>(0).was);
  bob.send(2, at_once("true"));
  bob.expect<Granted>(2);
}

TEST_CASE("for how long a user lock has been held is known after a restart, too") {
  AgentWorld world;
  {
    auto store = agent::Store::open(world.state() / "agent.db");
    REQUIRE(store);
    auto kept = world.loop.run((*store)->set_user_lock(
        agent::UserLockRecord{"alice", "2020-01-31T23:59:59Z", "demo", {}}));
    REQUIRE(kept);
  }
  world.start();
  auto bob = world.session();
  bob.create('b', "bob");
  bob.send(1, LockRequested{});
  CHECK(bob.expect<Queued>(1).holders.at(0).held_seconds > 365 * 24 * 3600);
  bob.send(0, UserLockRequest{"mine", "bob", {}});
  CHECK(bob.expect<Refused>(0).holders.at(0).held_seconds > 365 * 24 * 3600);
}

TEST_CASE("a user lock outlives the agent, and waits for nobody's command") {
  Rig rig;
  auto bob = rig.holding('b', "bob", "long");
  auto locked = rig.lock("alice");
  CHECK(rig.box("").holders.size() == 1);
  bob.finish();
  CHECK(rig.stop());
  rig.start();
  auto box = rig.box("bob");
  REQUIRE(box.user_lock);
  CHECK(box.user_lock->user == "alice");
  CHECK(box.user_lock->since == locked.lock.since);
  auto other = rig.bound('b', "bob");
  other.send(1, at_once("true"));
  CHECK(other.expect<Refused>(1).why == "locked");
}

TEST_CASE("a lock that was removed by force is recorded, and its owner is told, once, later") {
  Rig rig;
  auto locked = rig.lock("alice");
  auto bob = rig.session();
  bob.send(3, UserUnlockRequest{true, "bob", {}});
  CHECK(bob.expect<UserUnlocked>(3).was->since == locked.lock.since);
  bob.send(0, BoxRequest{"bob", {}});
  bob.expect<Box>(0);  // and no notice: it is not for him
  bob.finish();
  CHECK(rig.stop());
  rig.start();
  {
    auto alice = rig.session();
    alice.send(0, BoxRequest{"alice", {}});
    auto notice = alice.expect<Notice>(0);
    CHECK(notice.text.find("bob") != std::string::npos);
    CHECK(notice.text.find(locked.lock.since) != std::string::npos);
    alice.expect<Box>(0);
    alice.finish();
  }
  CHECK(rig.stop());
  rig.start();
  auto alice = rig.bound('a', "alice");
  alice.send(0, InfoRequest{});
  alice.expect<Info>(0);  // and no notice again
  alice.finish();
  auto trail = rig.audit();
  REQUIRE(trail.size() == 1);
  CHECK(trail[0].user == "bob");
  CHECK(trail[0].action == "unlock --force");
  CHECK(trail[0].detail.find("alice") != std::string::npos);
}

TEST_CASE("a notice reaches its user when a session binds, too") {
  Rig rig;
  rig.lock("alice");
  auto bob = rig.session();
  bob.send(0, UserUnlockRequest{true, "bob", {}});
  bob.expect<UserUnlocked>(0);
  auto alice = rig.bound('a', "alice");
  CHECK(alice.expect<Notice>(0).text.find("bob") != std::string::npos);
}

TEST_CASE("two who lock at once: one has it, the other is told who") {
  Rig rig;
  auto alice = rig.session();
  auto bob = rig.session();
  alice.send(0, UserLockRequest{"", "alice", {}});
  bob.send(0, UserLockRequest{"", "bob", {}});
  auto hers = alice.next();
  auto his = bob.next();
  CHECK((std::holds_alternative<UserLocked>(hers) != std::holds_alternative<UserLocked>(his)));
  auto box = rig.box("carol");
  REQUIRE(box.user_lock);
  CHECK(box.user_lock->user == (std::holds_alternative<UserLocked>(hers) ? "alice" : "bob"));
}

TEST_CASE("a later process of the same CI job has its lock, another job of the same key has not") {
  AgentWorld world([](auto& settings) {
    settings.serve.slots = 1;
    settings.serve.trust_claimed_users = false;
  });
  world.start();
  const std::string job = "ci:github:acme/app#7-1/test@runner1";
  auto first = world.session();
  first.send(0, UserLockRequest{"release", "", job});
  auto locked = first.expect<UserLocked>(0);
  CHECK(locked.lock.user == "ann");
  CHECK(locked.lock.scope == job);
  first.finish();

  auto command = [&](char digit, const std::string& scope) {
    auto client = world.session();
    Create create;
    create.sandbox = sandbox_id(digit);
    create.scope = scope;
    client.send(0, create);
    client.expect<Bound>(0);
    client.send(1, at_once("make"));
    auto answer = client.next();
    client.finish();
    return answer;
  };
  CHECK(std::holds_alternative<Granted>(command('a', job)));
  auto other = command('b', "ci:github:acme/app#7-1/lint@runner1");
  REQUIRE(std::holds_alternative<Refused>(other));
  CHECK(std::get<Refused>(other).holders.at(0).scope == job);
  CHECK(std::holds_alternative<Refused>(command('c', "")));
  auto later = world.session();
  later.send(0, UserUnlockRequest{false, "", "ci:github:acme/app#8-1/test@runner1"});
  later.expect<Refused>(0);
  later.send(0, UserUnlockRequest{false, "", job});
  later.expect<UserUnlocked>(0);
}

TEST_CASE("a name that is only claimed locks nothing in another's name") {
  AgentWorld world([](auto& settings) { settings.serve.trust_claimed_users = false; });
  world.start();
  auto client = world.session();
  client.send(0, UserLockRequest{"", "bob", {}});
  CHECK(client.expect<UserLocked>(0).lock.user == "ann");
  client.send(0, BoxRequest{"bob", {}});
  CHECK(client.expect<Box>(0).user == "ann");
  client.send(0, UserLockRequest{"", "", "a\nb"});
  CHECK(client.expect<Failed>(0).code == "bad_input");
}

// ---- what everybody sees

TEST_CASE("the box says who has it and who waits, and keeps other people's sandboxes to them") {
  Rig rig;
  auto alice = rig.holding('a', "alice", "make test");
  auto bob = rig.bound('b', "bob");
  LockRequested wait;
  wait.verb = "push";
  bob.send(1, wait);
  bob.expect<Queued>(1);
  auto box = rig.box("bob");
  CHECK(box.name == "local");
  CHECK(box.user == "bob");
  CHECK(box.slots == 1);
  CHECK(box.ttl_seconds == 1800);
  CHECK(box.sandboxes == 2);
  CHECK(box.sessions == 2);
  CHECK(box.jobs == 0);
  CHECK_FALSE(box.user_lock);
  REQUIRE(box.holders.size() == 1);
  CHECK(box.holders[0].user == "alice");
  CHECK(box.holders[0].verb == "exec");
  CHECK(box.holders[0].command == "make test");
  CHECK(box.holders[0].sandbox.empty());
  REQUIRE(box.waiting.size() == 1);
  CHECK(box.waiting[0].sandbox == sandbox_id('b'));
  CHECK(rig.box("alice").holders.at(0).sandbox == sandbox_id('a'));
  CHECK(bob.bulk(FrameKind::output, 1).empty());
}

TEST_CASE("sessions are listed with what they do, other people's without their sandbox") {
  Rig rig;
  auto alice = rig.holding('a', "alice", "make test");
  auto bob = rig.bound('b', "bob");
  bob.send(1, LockRequested{});
  bob.expect<Queued>(1);
  auto idle = rig.bound('b', "bob");
  auto asking = rig.session();
  asking.send(9, SessionsRequest{"bob"});
  auto all = asking.expect<Sessions>(9).sessions;
  REQUIRE(all.size() == 3);
  CHECK(all[0].user == "alice");
  CHECK(all[0].state == "running");
  CHECK(all[0].command == "make test");
  CHECK(all[0].sandbox.empty());
  CHECK(all[1].state == "waiting");
  CHECK(all[1].sandbox == sandbox_id('b'));
  CHECK(all[2].state == "attached");
  CHECK(all[2].since.back() == 'Z');
}

// ---- force

TEST_CASE("a forced command goes past a command and a user lock, frees neither, and is recorded") {
  Rig rig;
  auto alice = rig.holding('a', "alice", "make test");
  rig.lock("alice");
  auto bob = rig.bound('b', "bob");
  bob.send(1, at_once("ls", true));
  auto granted = bob.expect<Granted>(1);
  REQUIRE(granted.bypassed.size() == 2);
  CHECK(granted.bypassed[0].verb == "lock");
  CHECK(granted.bypassed[1].command == "make test");
  CHECK(granted.bypassed[1].sandbox.empty());
  CHECK_FALSE(granted.shared);  // another sandbox: a slot is shared, no workspace
  auto notice = alice.expect<Notice>(0);
  CHECK(notice.text.find("bob") != std::string::npos);
  CHECK(notice.text.find("ls") != std::string::npos);
  bob.send(1, LockReleased{});
  bob.expect<Released>(1);
  // Without it he is refused again, and so is everybody else.
  bob.send(2, at_once("ls"));
  CHECK(bob.expect<Refused>(2).why == "locked");
  auto box = rig.box("carol");
  REQUIRE(box.holders.size() == 1);
  CHECK(box.holders[0].user == "alice");
  CHECK(box.user_lock->user == "alice");
  alice.finish();
  bob.finish();
  auto trail = rig.audit();
  REQUIRE(trail.size() == 1);
  CHECK(trail[0].user == "bob");
  CHECK(trail[0].action == "exec --force-command");
  CHECK(trail[0].detail.find("alice") != std::string::npos);
}

TEST_CASE("force where nothing was in the way is not recorded") {
  Rig rig;
  auto alice = rig.ready('a', "alice");
  alice.send(1, at_once("make", true));
  CHECK(alice.expect<Granted>(1).bypassed.empty());
  alice.finish();
  CHECK(rig.audit().empty());
}

TEST_CASE("nothing is synced under the feet of another's command in the same workspace") {
  Rig rig;
  auto first = rig.bound('a', "alice");
  FakeSupervisor supervisor(rig, rig.sandbox('a'));
  first.send_command(1, "make");
  first.expect<Granted>(1);
  supervisor.expect(0, 1, "exec");
  supervisor.send(0, 1, Started{"job", 1});
  first.expect<Started>(1);
  auto second = rig.bound('a', "alice");
  second.send(1, at_once("ls", true));
  second.send(1, SyncStart{});
  auto sent = rig.loop.run(second.frames().send_bulk(FrameKind::pack, 1, "pack"));
  REQUIRE(sent);
  second.frames().end_bulk(FrameKind::pack, 1);
  second.send(1, SyncEnd{});
  second.send(1, Exec{});
  second.send(1, LockReleased{});
  CHECK(second.expect<Granted>(1).shared);
  CHECK(second.expect<Skipped>(1).step == "__rwx_sandbox_sync_start__");
  supervisor.expect(1, 1, "exec");
  CHECK(!supervisor.has(1, "1 __rwx_sandbox_sync_start__"));
  CHECK(!supervisor.has(1, "1 __rwx_sandbox_sync_end__"));
  CHECK(!supervisor.has(1, "1 bulk 16"));
  supervisor.send(1, 1, Started{"job2", 2});
  supervisor.send(1, 1, Exited{});
  supervisor.send(1, 1, Unchanged{});
  second.expect<Started>(1);
  second.expect<Exited>(1);
  second.expect<Unchanged>(1);
  second.expect<Released>(1);
  // The first one's lock is as it was.
  second.send(2, at_once("ls"));
  CHECK(second.expect<Refused>(2).holders.at(0).command == "make");
}

// ---- ending a sandbox

TEST_CASE("on a busy or locked box no sandbox is ended, unless by force, which is recorded") {
  Rig rig;
  auto bob = rig.ready('b', "bob");
  auto alice = rig.holding('a', "alice", "make");
  bob.send(0, End{});
  auto busy = bob.expect<Refused>(0);
  CHECK(busy.why == "busy");
  CHECK(busy.holders.at(0).user == "alice");
  alice.send(1, LockReleased{});
  alice.expect<Released>(1);
  rig.lock("alice");
  bob.send(0, End{});
  CHECK(bob.expect<Refused>(0).why == "locked");
  CHECK(std::filesystem::exists(rig.sandbox('b')));
  bob.send(0, End{true});
  bob.expect<Ended>(0);
  CHECK_FALSE(std::filesystem::exists(rig.sandbox('b')));
  alice.finish();
  bob.finish();
  auto trail = rig.audit();
  REQUIRE(trail.size() == 1);
  CHECK(trail[0].action == "end --force");
  CHECK(trail[0].sandbox == sandbox_id('b'));
}

TEST_CASE("a sandbox that was never set up is ended though the box is busy") {
  Rig rig;
  auto alice = rig.holding('a', "alice", "make");
  auto bob = rig.bound('b', "bob");
  bob.send(1, at_once("setup"));
  CHECK(bob.expect<Refused>(1).why == "busy");
  bob.send(0, End{});
  bob.expect<Ended>(0);
}

TEST_CASE("whoever holds the lock of a sandbox may end it") {
  Rig rig;
  auto alice = rig.holding('a', "alice", "reset");
  alice.send(0, End{});
  alice.expect<Ended>(0);
  CHECK(rig.box("").holders.empty());
}

// ---- the whole box

TEST_CASE("an unbound session may have the whole box, and does nothing else with it") {
  Rig rig;
  auto updater = rig.session();
  LockRequested lock = at_once("update");
  lock.verb = "update";
  lock.user = "carol";
  updater.send(1, lock);
  updater.expect<Granted>(1);
  auto bob = rig.bound('b', "bob");
  bob.send(1, at_once("make"));
  auto refused = bob.expect<Refused>(1);
  CHECK(refused.why == "busy");
  CHECK(refused.holders.at(0).user == "carol");
  CHECK(refused.holders.at(0).verb == "update");
  updater.send(1, Exec{});
  CHECK(updater.expect<Failed>(1).code == "bad_input");
  Bind bind;
  bind.sandbox = sandbox_id('b');
  bind.user = "bob";
  updater.send(0, bind);
  CHECK(updater.expect<Failed>(0).code == "exists");
  updater.send(1, LockReleased{});
  updater.expect<Released>(1);
  bob.send(2, at_once("make"));
  bob.expect<Granted>(2);
  updater.send(2, lock);
  CHECK(updater.expect<Refused>(2).holders.at(0).user == "bob");
}

TEST_CASE("a client that vanishes gives the whole box back") {
  Rig rig;
  auto updater = rig.session();
  updater.send(1, at_once("update"));
  updater.expect<Granted>(1);
  auto bob = rig.bound('b', "bob");
  bob.send(1, LockRequested{});
  bob.expect<Queued>(1);
  updater.vanish();
  CHECK(bob.expect<Granted>(1).queued);
}

TEST_CASE("a stopping agent lets go of who has the whole box, and of who waits for it") {
  Rig rig;
  auto updater = rig.session();
  updater.send(1, at_once("update"));
  updater.expect<Granted>(1);
  auto bob = rig.bound('b', "bob");
  bob.send(1, LockRequested{});
  bob.expect<Queued>(1);
  rig.agent().stop();
  CHECK(updater.expect<Failed>(0).code == "gone");
  CHECK(bob.expect<Failed>(0).code == "gone");
  bob.until_end();
  CHECK(rig.wait_for_end());
}
