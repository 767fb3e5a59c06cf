// Detached jobs, as people at two shells see them: the real programs, a box with one slot.
#include <signal.h>

#include <boost/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/shared_box.h"
#include "tests/support/system.h"

namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using test::Ended;
using test::eventually;
using test::file_text;
using test::How;
using test::Machine;
using test::SharedBox;
using test::Words;
using test::write_text;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A box, alice who is known to it, and bob who is, too.
struct Team {
  explicit Team(std::map<std::string, std::string> environment = {})
      : box("B", {"--slots", "1"}, std::move(environment)) {
    for (auto* machine : {&alice, &bob}) {
      machine->environment["SANDBOX_BOX"] = "B";
      machine->make_repository();
    }
    box.introduce(alice, "alice");
    box.introduce(bob, "bob");
  }
  std::string gate() const { return (box.state() / "gate").string(); }
  // A command that prints `begun`, waits until open() and then goes on with `then`.
  std::string waiting(const std::string& then = "true") const {
    return "echo begun; until test -e " + gate() + "; do sleep 0.05; done; " + then;
  }
  void open() const { write_text(gate(), ""); }
  std::string detach(Machine& who, const std::string& script) {
    Ended ended = who.run({"exec", "--detach", "--", "sh", "-c", script});
    INFO(ended.err);
    REQUIRE(ended.status == 0);
    REQUIRE(ended.out.size() == 33);
    return ended.out.substr(0, 32);
  }
  bool refused(Machine& who) { return who.run({"exec", "--", "true"}).status == 75; }

  Machine alice, bob;
  SharedBox box;
};

}  // namespace

TEST_CASE("a detached command returns at once with its job's id and how to go on", "[L39]") {
  Team team;
  auto detached = team.alice.run({"exec", "--detach", "--", "sh", "-c", team.waiting()});
  CHECK(detached.status == 0);
  REQUIRE(detached.out.size() == 33);
  std::string id = detached.out.substr(0, 32);
  CHECK(has(detached.err, "sandbox attach " + id));
  CHECK(has(detached.err, "sandbox kill " + id));
  CHECK(team.alice.run({"kill", id}).status == 0);

  auto answered = team.alice.run({"exec", "--detach", "--json", "--", "true"});
  CHECK(json::parse(answered.out).at("JobID").as_string().size() == 32);
  CHECK(team.alice.run({"exec", "--detach", "-t", "--", "true"}).status == 2);
}

TEST_CASE("a detached job holds the lock until it ends, well or not", "[L40][L41]") {
  Team team;
  for (const char* then : {"true", "exit 3"}) {
    INFO(then);
    fs::remove(team.gate());
    std::string id = team.detach(team.alice, team.waiting(then));
    auto busy = team.bob.run({"exec", "--", "true"});
    CHECK(busy.status == 75);
    CHECK(has(busy.err, "busy"));
    CHECK(has(busy.err, "alice"));
    CHECK(busy.out.empty());
    team.open();
    CHECK(eventually([&] { return !team.refused(team.bob); }));
  }
}

TEST_CASE("attach shows all output from the first byte and ends as the job did", "[L45][L33]") {
  Team team;
  std::string id =
      team.detach(team.alice, "for i in 1 2 3; do echo out $i; echo err $i >&2; done; " +
                                  team.waiting("echo made >new; exit 5"));
  auto attached = team.alice.start({"attach", id.substr(0, 8)});
  CHECK(eventually([&] { return attached.out_has("begun"); }));
  CHECK(team.refused(team.bob));
  CHECK(has(team.alice.run({"list"}).out, " active, detached "));
  CHECK(json::parse(team.alice.run({"list", "--json"}).out).at("Sandboxes").at(0).at("Detached") ==
        true);
  auto listed = team.alice.run({"jobs"});
  CHECK(has(listed.out, id));
  CHECK(has(listed.out, "running"));
  team.open();
  auto ended = attached.wait();
  CHECK(ended.status == 5);
  CHECK(ended.out == "out 1\nout 2\nout 3\nbegun\n");
  CHECK(has(ended.err, "err 1\nerr 2\nerr 3\n"));
  CHECK(file_text(team.alice.project() / "new") == "made\n");

  auto again = team.alice.run({"exec", "--reattach", id});
  CHECK(again.status == 5);
  CHECK(again.out == ended.out);
  auto jobs = json::parse(team.alice.run({"jobs", "--json"}).out).at("Jobs").as_array();
  REQUIRE(jobs.size() == 1);
  CHECK(jobs[0].at("JobID") == json::value(id));
  CHECK(jobs[0].at("State") == "exited");
  CHECK(jobs[0].at("ExitCode") == 5);
  CHECK(jobs[0].at("Box") == "B");
}

TEST_CASE("what a detached job changed comes back with pull, too") {
  Team team;
  team.detach(team.alice, "echo made >new");
  CHECK(eventually([&] {
    team.alice.run({"pull"});
    return file_text(team.alice.project() / "new") == "made\n";
  }));
}

TEST_CASE("kill ends a job and all its processes, waits for no lock and frees it",
          "[L31][L42][X14]") {
  Team team;
  std::string id =
      team.detach(team.alice,
                  "sleep 300 & echo $! >pids; (sleep 301 & echo $! >>pids; wait) & sleep 302 & "
                  "echo $! >>pids; echo begun; wait");
  CHECK(eventually([&] { return has(team.alice.run({"jobs"}).out, "running"); }));
  auto other = team.bob.run({"kill", "--box", "B", id});
  CHECK(other.status == 255);
  CHECK(has(other.err, "sandbox kill --force --box B " + id));
  CHECK(team.refused(team.bob));
  CHECK(has(team.alice.run({"jobs"}).out, "running"));

  auto killed = team.alice.run({"exec", "--kill", id});
  CHECK(killed.status == 0);
  CHECK(has(killed.out, id));
  CHECK_FALSE(team.refused(team.bob));
  team.alice.run({"pull"});
  std::string pids = file_text(team.alice.project() / "pids");
  CHECK(std::count(pids.begin(), pids.end(), '\n') == 3);
  for (std::size_t at = 0; at < pids.size(); at = pids.find('\n', at) + 1) {
    CHECK(::kill(static_cast<pid_t>(std::stol(pids.substr(at))), 0) == -1);
  }
  CHECK(team.alice.run({"kill", id}).status == 0);  // it had ended
  auto unknown = team.alice.run({"kill", std::string(32, 'e')});
  CHECK(unknown.status == 255);
  CHECK(has(unknown.err, "no job"));
  CHECK(team.alice.run({"kill", "nonsense"}).status == 2);
  CHECK(team.alice.run({"kill"}).status == 2);
}

TEST_CASE("kill --all ends the caller's jobs, and with force everybody's", "[L32]") {
  Team team;
  team.detach(team.alice, team.waiting());
  CHECK(has(team.bob.run({"kill", "--all"}).out, "No detached job of yours runs on the box B."));
  CHECK(team.refused(team.bob));
  auto forced = team.bob.run({"kill", "--all", "--force"});
  CHECK(forced.status == 0);
  CHECK(has(forced.out, "Killed job"));
  CHECK_FALSE(team.refused(team.bob));
  team.detach(team.alice, team.waiting());
  CHECK(team.alice.run({"exec", "--kill-all"}).status == 0);
  CHECK_FALSE(team.refused(team.bob));
}

TEST_CASE("a job is seen and ended by its user though somebody else has reserved the box",
          "[L31]") {
  Team team;
  Machine carol;
  team.box.introduce(carol, "carol");
  std::string id = team.detach(team.alice, team.waiting("exit 3"));
  REQUIRE(carol.run({"boxes", "lock", "--box", "B"}).status == 0);
  CHECK(has(team.alice.run({"exec", "--", "true"}).err, "locked by carol"));
  auto watching = team.alice.start({"attach", id});
  CHECK(watching.out_has("begun"));
  auto listed = team.alice.run({"jobs"});
  CHECK(listed.status == 0);
  CHECK(has(listed.out, id));
  team.open();
  CHECK(watching.wait().status == 3);
  fs::remove(team.gate());
  REQUIRE(carol.run({"boxes", "unlock", "--box", "B"}).status == 0);
  id = team.detach(team.alice, team.waiting());
  REQUIRE(carol.run({"boxes", "lock", "--box", "B"}).status == 0);
  CHECK(team.alice.run({"kill", id}).status == 0);
}

TEST_CASE("a job that is unknown, or somebody else's, is not attached to") {
  Team team;
  std::string id = team.detach(team.alice, team.waiting());
  auto unknown = team.alice.run({"attach", std::string(32, 'e')});
  CHECK(unknown.status == 255);
  CHECK(has(unknown.err, "there is no job"));
  CHECK(has(unknown.err, "sandbox jobs --box B"));
  auto others = team.bob.run({"attach", id});
  CHECK(others.status == 255);
  CHECK(others.out.empty());
  CHECK(has(others.err, "job " + id + " is alice's"));
  CHECK(has(others.err, "sandbox jobs --box B"));
  CHECK(team.bob.run({"attach", "nonsense"}).status == 2);
}

TEST_CASE(
    "the jobs of a box that was deleted from the list are not asked for, and none is missed") {
  Team team;
  team.detach(team.alice, team.waiting());
  team.alice.environment.erase("SANDBOX_BOX");
  REQUIRE(has(team.alice.run({"jobs"}).out, "running"));
  REQUIRE(team.alice.run({"boxes", "delete", "--name", "B", "--yes"}).status == 0);
  auto listed = team.alice.run({"jobs"});
  CHECK(listed.status == 0);
  CHECK(listed.err.empty());
  team.box.introduce(team.alice, "alice");
  CHECK(has(team.alice.run({"jobs"}).out, "running"));
  // One that is away is named, and does not hide the others.
  team.box.end(SIGTERM);
  auto away = team.alice.run({"jobs", "--json"});
  CHECK(away.status == 255);
  CHECK(json::parse(away.out).at("Jobs").as_array().empty());
  CHECK(has(away.out, "\"Warnings\":[\"B: "));
}

TEST_CASE("silence does not end a detached job that lives", "[L43]") {
  Team team(std::map<std::string, std::string>{{"SANDBOX_LOCK_TTL", "1"}});
  std::string id = team.detach(team.alice, "sleep 3; " + team.waiting("echo end"));
  // Three times the limit, told by the box's own clock: the job says when.
  auto attached = team.alice.start({"attach", id});
  CHECK(eventually([&] { return attached.out_has("begun"); }));
  CHECK(team.refused(team.bob));
  team.open();
  CHECK(attached.wait().out == "begun\nend\n");
}

TEST_CASE("a job goes on though its agent is killed, and the next agent takes it over") {
  Team team;
  std::string id = team.detach(
      team.alice, "i=0; until test -e " + team.gate() +
                      "; do i=$((i+1)); echo line $i; sleep 0.02; done; echo last $i; exit 4");
  team.box.end(SIGKILL);
  team.box.start();
  CHECK(team.refused(team.bob));
  CHECK(has(team.bob.run({"jobs"}).out, "alice"));
  team.open();
  auto ended = team.alice.run({"attach", id});
  CHECK(ended.status == 4);
  std::string expected;
  std::size_t lines = std::count(ended.out.begin(), ended.out.end(), '\n') - 1;
  for (std::size_t i = 1; i <= lines; ++i) {
    expected += "line " + std::to_string(i) + "\n";
  }
  CHECK(ended.out == expected + "last " + std::to_string(lines) + "\n");
  CHECK(eventually([&] { return !team.refused(team.bob); }));
}

TEST_CASE("a job that ended while no agent ran leaves the lock free and its output there",
          "[L44]") {
  Team team;
  std::string id = team.detach(
      team.alice, "echo $$ >" + team.gate() + ".pid; " + team.waiting("echo last; exit 6"));
  CHECK(eventually([&] { return fs::exists(team.gate() + ".pid"); }));
  team.box.end(SIGKILL);
  auto pid = static_cast<pid_t>(std::stol(file_text(team.gate() + ".pid")));
  team.open();
  CHECK(eventually([&] { return ::kill(pid, 0) == -1; }));
  team.box.start();
  CHECK_FALSE(team.refused(team.bob));
  auto ended = team.alice.run({"attach", id});
  CHECK(ended.status == 6);
  CHECK(ended.out == "begun\nlast\n");
}

TEST_CASE("Ctrl+D leaves a job running, Ctrl+C asks") {
  Team team;
  std::string id = team.detach(team.alice, team.waiting());
  How terminal;
  terminal.terminal = true;
  auto watching = team.alice.start({"attach", id}, terminal);
  CHECK(eventually([&] { return watching.out_has("begun"); }));
  watching.type("\x04");
  auto left = watching.wait();
  CHECK(left.status == 0);
  CHECK(has(left.out, "runs on"));
  CHECK(team.refused(team.bob));

  auto asked = team.alice.start({"attach", id}, terminal);
  CHECK(eventually([&] { return asked.out_has("begun"); }));
  asked.type("\x03");
  CHECK(eventually([&] { return asked.out_has("End the job?"); }));
  CHECK(team.refused(team.bob));
  asked.type("y\n");
  CHECK(asked.wait().status == 128 + SIGINT);
  CHECK(eventually([&] { return !team.refused(team.bob); }));
}

TEST_CASE("without a terminal an interrupt leaves the job running") {
  Team team;
  std::string id = team.detach(team.alice, team.waiting());
  auto watching = team.alice.start({"attach", id});
  CHECK(eventually([&] { return watching.out_has("begun"); }));
  watching.signal(SIGINT);
  CHECK(watching.wait().status == 130);
  CHECK(team.refused(team.bob));
  team.open();
  CHECK(team.alice.run({"attach", id}).status == 0);
}
