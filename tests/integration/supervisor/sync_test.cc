// The file and git steps of a supervisor: their order, their packs and what follows a failed one.
#include "tests/support/catch.h"
#include "tests/support/supervised.h"

using namespace std::chrono_literals;
using test::Client;
using test::Supervised;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

wire::Result some_result(std::string id) {
  wire::Result result;
  result.result = std::move(id);
  result.base = "base";
  return result;
}

}  // namespace

TEST_CASE("sync, command and result of one request are done in order, all sent ahead") {
  Supervised s;
  s.script->next = some_result("r1");
  s.script->result_pack = std::string(300000, 'r');
  auto client = s.connect();
  std::string pack(500000, 'p');
  client->sync(1, "s1", pack, "base");
  client->exec(1, "echo ran");
  client->send(1, wire::LockReleased{});
  CHECK(client->expect<wire::Applied>().snapshot == "s1");
  CHECK(client->expect<wire::Exited>().status == 0);
  auto result = client->expect<wire::Result>();
  CHECK(result.result == "r1");
  client->send(0, wire::Merged{"r1"});
  client->send(0, wire::Hangup{});
  client->expect<wire::Ended>();
  CHECK(client->output(1) == "ran\n");
  CHECK(s.script->pack == pack);
  CHECK(s.script->taken_calls() ==
        std::vector<std::string>{"pack 500000", "apply s1", "take origin", "merged r1"});
  CHECK_FALSE(s.script->overlapped);
}

TEST_CASE("the result's pack follows it to its end") {
  Supervised s;
  s.script->next = some_result("r1");
  s.script->result_pack = std::string(5 << 20, 'r');
  auto client = s.connect();
  client->exec(1, "true");
  client->send(1, wire::LockReleased{});
  client->expect<wire::Result>();
  client->exec(2, "true");
  client->expect<wire::Exited>();  // the next step waits for the pack to be sent
  CHECK(client->result_pack(1) == s.script->result_pack);
}

TEST_CASE("a pack of nothing is not read, and the snapshot is applied all the same") {
  Supervised s;
  auto client = s.connect();
  client->sync(1, "s1", "");
  client->send(1, wire::LockReleased{});
  client->expect<wire::Applied>();
  client->expect<wire::Unchanged>();
  CHECK(s.script->taken_calls() == std::vector<std::string>{"apply s1", "take origin"});
  client->send(0, wire::StatusRequest{});
  CHECK(client->expect<wire::Status>().snapshot == "s1");
}

TEST_CASE("a base that is not here is missing: nothing is applied and later steps are skipped") {
  Supervised s;
  auto client = s.connect();
  client->sync(1, "s1", std::string(200000, 'p'), "unknown");
  client->exec(1, "touch never");
  client->send(1, wire::LockReleased{});
  CHECK(client->expect<wire::Missing>().have == std::vector<std::string>{"base"});
  CHECK(client->expect<wire::Skipped>().step == "exec");
  CHECK(client->expect<wire::Skipped>().step == "__rwx_sandbox_lock_released__");
  // Again, under a new number.
  client->sync(2, "s1", "whole");
  CHECK(client->expect<wire::Applied>().snapshot == "s1");
  CHECK(s.script->taken_calls() == std::vector<std::string>{"pack 5", "apply s1"});
  CHECK_FALSE(std::filesystem::exists(s.workspace() / "never"));
}

TEST_CASE("a later result of the origin comes first: stale, then the result and its pack") {
  Supervised s;
  s.script->results["origin"] = some_result("r5");
  auto client = s.connect();
  client->sync(1, "s1", "pack", {}, "r4");
  client->exec(1, "touch never");
  CHECK(client->expect<wire::Stale>().result == "r5");
  CHECK(client->expect<wire::Result>().result == "r5");
  CHECK(client->expect<wire::Skipped>().step == "exec");
  CHECK(client->result_pack(1) == s.script->result_pack);
  client->sync(2, "s2", "pack", {}, "r5");
  CHECK(client->expect<wire::Applied>().snapshot == "s2");
  CHECK_FALSE(std::filesystem::exists(s.workspace() / "never"));
}

TEST_CASE("a sync that fails says why and skips the rest of its request") {
  Supervised s;
  auto client = s.connect();
  std::string code;
  SECTION("while its pack is read") {
    s.script->fail_pack = wire::Failure(wire::Errc::bad_input, "not a pack");
    code = "bad_input";
  }
  SECTION("while it is applied") {
    s.script->fail_apply = wire::Failure(wire::Errc::no_space, "the disk is full");
    code = "no_space";
  }
  client->sync(1, "s1", "pack");
  client->exec(1, "touch never");
  auto failed = client->expect<wire::Failed>();
  CHECK(failed.step == "__rwx_sandbox_sync_start__");
  CHECK(failed.code == code);
  CHECK(client->expect<wire::Skipped>().step == "exec");
  s.script->fail_pack = s.script->fail_apply = std::nullopt;
  client->exec(2, "exit 2");
  CHECK(client->expect<wire::Exited>().status == 2);
}

TEST_CASE("a result that cannot be taken or packed fails its step; it is not announced") {
  Supervised s;
  auto client = s.connect();
  s.script->next = some_result("r1");
  SECTION("taken") { s.script->fail_take = wire::Failure(wire::Errc::no_space, "full"); }
  SECTION("packed") { s.script->fail_write = wire::Failure(wire::Errc::no_space, "full"); }
  client->exec(1, "true");
  client->send(1, wire::LockReleased{});
  auto failed = client->expect<wire::Failed>();
  CHECK(failed.step == "__rwx_sandbox_lock_released__");
  CHECK(failed.code == "no_space");
  CHECK_FALSE(std::count(client->order.begin(), client->order.end(), "result"));
}

TEST_CASE("a result whose pack cannot be read to its end is said to fail, and its stream ends") {
  Supervised s;
  auto client = s.connect();
  s.script->next = some_result("r1");
  s.script->spoil_pack = true;
  client->exec(1, "true");
  client->send(1, wire::LockReleased{});
  client->expect<wire::Result>();
  CHECK(client->expect<wire::Failed>().step == "result_pack");
  client->exec(2, "true");
  client->expect<wire::Exited>();
  CHECK(std::count(client->order.begin(), client->order.end(), "result_pack end") == 1);
  // It is still there.
  s.script->spoil_pack = false;
  client->send(3, wire::Pull{});
  CHECK(client->expect<wire::Result>().result == "r1");
}

TEST_CASE("pull brings the latest result that the client has not merged") {
  Supervised s;
  auto client = s.connect();
  client->send(1, wire::Pull{""});
  client->expect<wire::Unchanged>();
  s.script->results["origin"] = some_result("r2");
  client->send(2, wire::Pull{"r1"});
  CHECK(client->expect<wire::Result>().result == "r2");
  client->send(3, wire::Pull{"r2"});
  client->expect<wire::Unchanged>();
  CHECK(client->result_pack(2) == s.script->result_pack);
}

TEST_CASE("a pull of a whole pack says where its history ends") {
  Supervised s;
  auto client = s.connect();
  s.script->results["origin"] = some_result("r2");
  client->send(1, wire::Pull{"r1", true});
  CHECK(client->expect<wire::Result>().shallow == std::vector<std::string>{"end of r2"});
  client->send(2, wire::Pull{"r1"});
  CHECK(client->expect<wire::Result>().shallow.empty());
}

TEST_CASE("while one connection syncs, another's job and signals go on, and no two syncs overlap") {
  Supervised s;
  s.script->hold_apply = true;
  auto one = s.connect("a"), two = s.connect("b");
  two->exec(1, "while read line; do echo \"<$line>\"; done; exit 4");
  two->expect<wire::Started>();
  one->sync(1, "s1", "pack");
  s.loop.run([](Supervised& world) -> os::awaitable<void> {
    while (!world.script->applying) co_await os::pause(world.loop.executor(), 1ms);
  }(s));
  two->input(1, "meanwhile\n");
  two->wait_output(1, "<meanwhile>");
  two->end_input(1);
  CHECK(two->expect<wire::Exited>().status == 4);
  two->sync(2, "s2", "pack");
  two->send(0, wire::StatusRequest{});
  s.script->results["b"] = some_result("x");
  s.loop.settle();
  s.script->release();
  CHECK(one->expect<wire::Applied>().snapshot == "s1");
  CHECK_FALSE(s.script->overlapped);
}

TEST_CASE("a client that stops in the middle of its pack holds up nobody's workspace") {
  Supervised s;
  auto slow = s.connect("a"), other = s.connect("b");
  wire::SyncStart start;
  start.snapshot = "s1";
  slow->send(1, start);
  slow->frames->forward({wire::FrameKind::pack, 1, "half of"});
  other->sync(1, "s2", "pack");
  CHECK(other->expect<wire::Applied>().snapshot == "s2");
  SECTION("and hangs up") {
    slow->send(0, wire::Hangup{});
    slow->expect<wire::Ended>();
  }
  SECTION("and dies") { slow.reset(); }
  s.loop.settle();
  CHECK(s.script->snapshot == "s2");
  CHECK(s.script->taken_calls() == std::vector<std::string>{"pack 4", "apply s2"});
}

TEST_CASE("a slow taker of a result's pack holds up nobody's workspace") {
  Supervised s;
  s.script->next = some_result("r1");
  s.script->result_pack = std::string(5 << 20, 'r');
  auto slow = s.connect("a"), other = s.connect("b");
  slow->consuming = false;
  slow->exec(1, "true");
  slow->send(1, wire::LockReleased{});
  slow->frames->consumed(wire::FrameKind::output, 1, 1);
  slow->expect<wire::Result>();
  other->sync(1, "s2", "pack");
  CHECK(other->expect<wire::Applied>().snapshot == "s2");
  CHECK(slow->received == wire::kInitialStreamCredit);
  slow->send(0, wire::Hangup{});
  slow->expect<wire::Ended>();
}

TEST_CASE("without an origin there is no result to take") {
  Supervised s;
  auto client = s.connect("");
  client->exec(1, "true");
  client->send(1, wire::LockReleased{});
  client->expect<wire::Unchanged>();
  CHECK(s.script->taken_calls().empty());
}
