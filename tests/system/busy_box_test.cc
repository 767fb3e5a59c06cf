// A box with one slot that two people share: whoever comes second is told who is there.
#include <signal.h>

#include <boost/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/team.h"

namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using test::has;
using test::Machine;
using test::Running;
using test::SharedBox;
using test::Team;
using test::Words;

}  // namespace

TEST_CASE("two users cannot run on one box at once", "[L2]") {
  Team team;
  Running holder = team.hold(team.alice);
  auto second = team.bob.exec("true");
  CHECK(second.status == 75);
  Team::end(holder);
  CHECK(team.bob.exec("true").status == 0);
}

TEST_CASE("the same user is kept out by a command of their own", "[L3]") {
  Team team;
  Running holder = team.hold(team.alice);
  auto second = team.alice.exec("true");
  CHECK(second.status == 75);
  CHECK(has(second.err, "in progress by alice"));
  Team::end(holder);
}

TEST_CASE("every command that uses the box is refused alike while it is busy", "[L4]") {
  Team team;
  Machine carol;  // has no sandbox yet
  team.join(carol, "carol");
  Running holder = team.hold(team.alice);
  for (Machine* machine : {&team.bob, &carol}) {
    for (const Words& words : {Words{"start"}, Words{"reset"}, Words{"exec", "--", "true"},
                               Words{"exec", "--reset", "--", "true"}}) {
      INFO(words[0]);
      auto refused = machine->run(words);
      CHECK(refused.status == 75);
      CHECK(refused.out.empty());
      CHECK(has(refused.err, "box 'rig' is busy, 'exec' in progress by alice"));
    }
  }
  for (const Words& words : {Words{"stop"}, Words{"push"}}) {
    INFO(words[0]);
    auto refused = team.bob.run(words);
    CHECK(refused.status == 75);
    CHECK(has(refused.err, "box 'rig' is busy, 'exec' in progress by alice"));
  }
  Team::end(holder);
  // Nothing of the refused is left: bob's sandbox is the old one, carol has none.
  CHECK(test::sandbox_count(team.bob.run({"list", "--json"}).out) == 1);
  CHECK(test::sandbox_count(carol.run({"list", "--json"}).out) == 0);
  CHECK(team.bob.run({"stop"}).status == 0);
}

TEST_CASE("a refused command has no effect", "[L5]") {
  Team team;
  Running holder = team.hold(team.alice);
  fs::path mark = team.bob.root() / "mark";
  test::write_text(team.bob.project() / "new", "new\n");
  CHECK(team.bob.exec("touch " + mark.string()).status == 75);
  CHECK_FALSE(fs::exists(mark));
  Team::end(holder);
  // Nor was the work tree sent.
  for (const auto& sandbox : fs::directory_iterator(team.box.state() / "sandboxes")) {
    CHECK_FALSE(fs::exists(sandbox.path() / "workspace/new"));
  }
}

TEST_CASE("a busy box names its command and holder", "[L6]") {
  Team team;
  Running holder = team.hold(team.alice);
  auto refused = team.bob.exec("true");
  CHECK(refused.status == 75);
  CHECK(refused.out.empty());
  std::string line = refused.err.substr(0, refused.err.find('\n'));
  CHECK(line ==
        "Error: box 'rig' is busy, 'exec' in progress by alice, use --force-command to override");
  CHECK(has(refused.err, "Nothing was sent or run."));
  auto answer = json::parse(team.bob.run({"exec", "--json", "--", "true"}).out);
  CHECK(answer.at("Error").at("Status") == 75);
  CHECK(answer.at("Error").at("Origin") == "lock");
  Team::end(holder);
}

TEST_CASE("a box is free as soon as a command has ended, whatever its status", "[L7][L8]") {
  Team team;
  CHECK(team.alice.exec("true").status == 0);
  CHECK(team.bob.exec("exit 7").status == 7);
  CHECK(team.alice.exec("true").status == 0);
  CHECK(team.bob.exec("kill -TERM $$").status == 143);
  CHECK(team.alice.exec("true").status == 0);
}

TEST_CASE("Ctrl+C, TERM and HUP end the command on the box and free it", "[L9]") {
  Team team;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) {
    INFO(signal);
    fs::path pid_file = team.alice.root() / "pid";
    fs::remove(pid_file);
    Running holder = team.alice.start(
        {"exec", "--", "sh", "-c", "echo $$ > " + pid_file.string() + "; exec sleep 600"});
    REQUIRE(test::eventually([&] { return has(test::file_text(pid_file), "\n"); }));
    holder.signal(signal);
    CHECK(holder.wait().status == 128 + signal);
    CHECK(team.bob.exec("true").status == 0);
    CHECK(::kill(static_cast<pid_t>(std::stol(test::file_text(pid_file))), 0) != 0);
  }
}

TEST_CASE("a forced command runs beside the one that holds the box", "[L25]") {
  Team team;
  Running holder = team.hold(team.alice);
  auto forced = team.bob.run({"exec", "--force-command", "--", "echo", "beside"});
  CHECK(forced.status == 0);
  CHECK(forced.out == "beside\n");
  CHECK(holder.err_has("bob"));  // who is told
  CHECK(has(forced.err, "the lock was taken although"));
  team.bob.git({"checkout", "-q", "-b", "other"});  // whose sandbox is yet to be made
  CHECK(has(team.bob.run({"exec", "--force-command", "--", "true"}).err,
            "the lock was taken although"));
  Team::end(holder);
}

TEST_CASE("every command that is refused on a busy box can be forced", "[L27]") {
  Team team;
  Running holder = team.hold(team.alice);
  for (const Words& words : {Words{"start"}, Words{"push"}, Words{"reset"},
                             Words{"exec", "--", "true"}, Words{"stop"}}) {
    INFO(words[0]);
    CHECK(has(team.bob.run({words[0], "--help"}).out, "--force-command"));
    Words forced = words;
    forced.insert(forced.begin() + 1, "--force-command");
    CHECK(team.bob.run(words).status == 75);
    auto ended = team.bob.run(forced);
    INFO(ended.err);
    CHECK(ended.status == 0);
  }
  CHECK(has(team.bob.exec("true").err, "alice"));
  CHECK(team.bob.run({"reset", "--force"}).status == 0);
  Team::end(holder);
}

TEST_CASE("the option --force-command after -- belongs to the command", "[L28]") {
  Team team;
  auto printed = team.bob.run({"exec", "--", "echo", "--force-command"});
  CHECK(printed.out == "--force-command\n");
  Running holder = team.hold(team.alice);
  CHECK(team.bob.run({"exec", "--", "echo", "--force-command"}).status == 75);
  Team::end(holder);
}

TEST_CASE("the end of a forced command frees nobody else's lock, and force does not stick",
          "[L29][L30]") {
  Team team;
  Machine carol;
  team.join(carol, "carol");
  Running holder = team.hold(team.alice);
  CHECK(team.bob.run({"exec", "--force-command", "--", "true"}).status == 0);
  for (Machine* machine : {&carol, &team.bob}) {
    auto plain = machine->exec("true");
    CHECK(plain.status == 75);
    CHECK(has(plain.err, "in progress by alice"));
  }
  Team::end(holder);
  CHECK(team.bob.exec("true").status == 0);
}

TEST_CASE("a busy box does not keep anybody from another", "[L48]") {
  Team team;
  SharedBox other("rig2");
  other.introduce(team.bob, "bob");
  Running holder = team.hold(team.alice);
  CHECK(team.bob.exec("true").status == 75);
  CHECK(team.bob.run({"exec", "--box", "rig2", "--", "true"}).status == 0);
  Team::end(holder);
}

TEST_CASE("what only looks is never kept waiting", "[L49]") {
  Team team;
  int doctor = team.bob.run({"doctor"}).status;  // what this machine lacks is no matter here
  auto look = [&] {
    for (const Words& words :
         {Words{"boxes"}, Words{"boxes", "list", "--json"}, Words{"list"}, Words{"status"},
          Words{"pull"}, Words{"key"}, Words{"ssh-config"}, Words{"exec", "--help"},
          Words{"version"}, Words{"sessions"}, Words{"jobs"}}) {
      INFO(words[0]);
      CHECK(team.bob.run(words).status == 0);
    }
    CHECK(team.bob.run({"doctor"}).status == doctor);
  };
  Running holder = team.hold(team.alice);
  look();
  REQUIRE(team.alice.run({"boxes", "lock", "--box", "rig"}).status == 0);
  look();
  Team::end(holder);
  look();
}

TEST_CASE("a command that makes or replaces its sandbox does not meet its own lock", "[L50]") {
  SharedBox box("rig");
  Machine alice;
  alice.make_repository();
  alice.environment["SANDBOX_BOX"] = "rig";
  box.introduce(alice, "alice");
  test::write_text(alice.project() / ".sandbox.yml", "setup:\n  - 'true'\n  - 'true'\n");
  for (const Words& words :
       {Words{"exec", "--", "true"}, Words{"start"}, Words{"reset"},
        Words{"exec", "--reset", "--", "true"}, Words{"stop"}, Words{"start"}}) {
    INFO(words[0]);
    auto ended = alice.start(words).wait(std::chrono::seconds(30));
    CHECK(ended.status == 0);
  }
}

// A reset once asked for the lock a second time, when the old sandbox was gone: whoever had come
// into line while it ended went first, and the reset was refused with nothing left.
TEST_CASE("a reset goes on behind whoever came into line while the old sandbox ended", "[L50]") {
  Team team;
  for (const Words& words : {Words{"reset"}, Words{"exec", "--reset", "--", "true"}}) {
    INFO(words[0]);
    fs::path resident = team.alice.root() / "resident";
    fs::remove(resident);
    // It takes no notice of TERM, so that the end of its sandbox takes 2 s.
    REQUIRE(team.alice
                .exec("setsid sh -c 'trap \"\" TERM; echo $$ > " + resident.string() +
                      "; while :; do sleep 1; done' >/dev/null 2>&1 </dev/null & until test -s " +
                      resident.string() + "; do sleep 0.01; done")
                .status == 0);
    Running resetting = team.alice.start(words);
    REQUIRE(test::eventually([&] { return has(team.bob.run({"boxes"}).out, "alice (reset)"); }));
    auto bob = team.bob.run({"exec", "--wait", "--", "sleep", "1"});
    CHECK(bob.status == 0);
    auto reset = resetting.wait();
    INFO(reset.err);
    CHECK(reset.status == 0);
    CHECK(test::sandbox_count(team.alice.run({"list", "--json"}).out) == 1);
  }
}

TEST_CASE("a command that makes its sandbox keeps the lock that the setup had", "[L50]") {
  Team team;
  std::string log = (team.alice.root() / "log").string();
  std::string go = (team.alice.root() / "go").string();
  for (bool detached : {false, true}) {
    INFO(detached);
    fs::remove(log);
    fs::remove(go);
    Machine carol;
    team.join(carol, "carol");
    test::write_text(
        carol.project() / ".sandbox.yml",
        "setup: ['echo made > made; echo begun; until test -e " + go + "; do sleep 0.05; done']\n");
    Words words = {"exec", "--json", "--", "sh", "-c", "cat made >> " + log + "; rm made"};
    if (detached) {
      words.insert(words.begin() + 1, "--detach");
    }
    Running making = carol.start(words);
    REQUIRE(making.err_has("begun"));
    Running waiting = team.bob.start({"exec", "--wait", "--", "sh", "-c", "echo bob >> " + log});
    REQUIRE(waiting.err_has("held by carol: exec `sh -c 'cat made"));
    test::write_text(go, "");
    auto made = making.wait();
    INFO(made.err);
    CHECK(made.status == 0);
    CHECK(waiting.wait().status == 0);
    CHECK(test::file_text(log) == "made\nbob\n");
    auto answer = json::parse(made.out);
    CHECK(answer.at("Created") == true);
    CHECK_FALSE(answer.at("Fence").as_string().empty());
    if (detached) {
      CHECK(test::file_text(carol.project() / "made") ==
            "made\n");  // the setup's; the rest is pulled
    } else {
      CHECK_FALSE(answer.at("Snapshot").as_string().empty());
      CHECK_FALSE(fs::exists(carol.project() / "made"));
    }
  }
}

TEST_CASE("nobody's command comes in between two setup commands, and a failed one frees the box") {
  SharedBox box("rig");
  Machine alice;
  Machine bob;
  for (Machine* machine : {&alice, &bob}) {
    machine->make_repository();
    machine->environment["SANDBOX_BOX"] = "rig";
    box.introduce(*machine, machine == &alice ? "alice" : "bob");
  }
  REQUIRE(bob.run({"start"}).status == 0);
  std::string log = (alice.root() / "log").string();
  std::string go = (alice.root() / "go").string();
  std::string begun = (alice.root() / "begun").string();
  for (int status : {0, 3}) {
    INFO(status);
    fs::remove(log);
    fs::remove(go);
    fs::remove(begun);
    test::write_text(alice.project() / ".sandbox.yml",
                     "setup:\n  - touch " + begun + "; until test -e " + go +
                         "; do sleep 0.05; done; echo one >> " + log + "\n  - echo two >> " + log +
                         "; exit " + std::to_string(status) + "\n  - echo three >> " + log + "\n");
    Running starting = alice.start({"start"});
    REQUIRE(test::eventually([&] { return fs::exists(begun); }));
    Running waiting = bob.start({"exec", "--wait", "--", "sh", "-c", "echo bob >> " + log});
    bool in_line = waiting.err_has("waiting for the lock");
    INFO(waiting.err());
    REQUIRE(in_line);
    test::write_text(go, "");
    CHECK((starting.wait().status == 0) == (status == 0));
    CHECK(waiting.wait().status == 0);
    CHECK(test::file_text(log) == (status == 0 ? "one\ntwo\nthree\nbob\n" : "one\ntwo\nbob\n"));
    alice.run({"stop"});
  }
}

TEST_CASE("a sandbox whose command waits in line for another's is active: status and list agree") {
  Team team;
  Running holder = team.hold(team.alice);
  Running waiting = team.bob.start({"exec", "--wait", "--", "true"});
  REQUIRE(waiting.err_has("waiting for the lock"));
  auto status = boost::json::parse(team.bob.run({"status", "--json"}).out);
  CHECK(status.at("Holders").as_array().empty());
  CHECK(status.at("Active") == true);
  auto list = boost::json::parse(team.bob.run({"list", "--json"}).out);
  CHECK(list.at("Sandboxes").at(0).at("Active") == true);
  Team::end(holder);
  CHECK(waiting.wait().status == 0);
  CHECK(boost::json::parse(team.bob.run({"status", "--json"}).out).at("Active") == false);
}

TEST_CASE("a CI job waits in line where a person is refused, and gives up in time", "[X10]") {
  Team team;
  Running holder = team.hold(team.alice);
  test::How ci;
  ci.environment = {{"CI", "true"}};
  Running waiting = team.bob.start({"exec", "--", "echo", "done"}, ci);
  REQUIRE(waiting.err_has("waiting for the lock"));
  Team::end(holder);
  auto done = waiting.wait();
  CHECK(done.status == 0);
  CHECK(done.out == "done\n");

  Running again = team.hold(team.alice);
  ci.environment["SANDBOX_LOCK_WAIT"] = "1";
  auto expired = team.bob.exec("true", ci);
  CHECK(expired.status == 124);
  CHECK(has(expired.err, "timed out after 1s waiting for box 'rig': 'exec' in progress by alice"));
  Team::end(again);
}
