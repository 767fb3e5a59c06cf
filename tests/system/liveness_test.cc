// Who holds a box is alive: those that vanish or fall silent lose it, and their commands end first.
#include <signal.h>

#include <boost/json.hpp>
#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/team.h"

namespace {

namespace fs = std::filesystem;
using test::has;
using test::lines_of;
using test::Machine;
using test::Running;
using test::Team;
using test::Words;

// A command that tells its process id, and runs on.
struct Held {
  explicit Held(Machine& machine, const std::string& trap = "")
      : pid_file(machine.root() / "pid"),
        running(machine.start(
            {"exec", "--trace", "--", "sh", "-c",
             trap + "echo $$ > " + pid_file.string() + "; while :; do sleep 0.05; done"})) {
    if (!test::eventually([this] { return has(test::file_text(pid_file), "\n"); })) {
      throw std::runtime_error("it does not run: " + running.err());
    }
    pid = static_cast<pid_t>(std::stol(test::file_text(pid_file)));
  }
  bool runs() const { return ::kill(pid, 0) == 0; }

  fs::path pid_file;
  Running running;
  pid_t pid = 0;
};

}  // namespace

TEST_CASE("silence is borne for 30 minutes unless the agent was told otherwise", "[L10]") {
  Team team;
  CHECK(has(team.alice.run({"exec", "--trace", "--", "true"}).err, "\"ttl_seconds\":1800"));
}

TEST_CASE("a client that falls silent loses the box, once its command has ended", "[L10]") {
  Team team({"--slots", "1"}, {{"SANDBOX_LOCK_TTL", "2"}});
  Held held(team.alice);
  held.running.signal(SIGSTOP);
  auto refused = team.bob.exec("true");
  CHECK(refused.status == 75);
  CHECK(has(refused.err, "in progress by alice"));
  CHECK(held.runs());
  auto next = team.bob.run({"exec", "--wait=60", "--", "sh", "-c",
                            "kill -0 " + std::to_string(held.pid) + " && exit 9; exit 0"});
  CHECK(next.status == 0);
  CHECK_FALSE(held.runs());
  held.running.signal(SIGCONT);
}

TEST_CASE("a command that runs for longer than silence may last keeps the box", "[L11]") {
  Team team({"--slots", "1"}, {{"SANDBOX_LOCK_TTL", "1"}});
  fs::path order = team.alice.root() / "order";
  Running alice = team.alice.start(
      {"exec", "--", "sh", "-c", "echo held; sleep 4; echo alice >> " + order.string()});
  REQUIRE(alice.out_has("held"));
  auto bob = team.bob.run({"exec", "--wait=60", "--", "sh", "-c", "echo bob >> " + order.string()});
  CHECK(alice.wait().status == 0);
  CHECK(bob.status == 0);
  CHECK(test::file_text(order) == "alice\nbob\n");
}

TEST_CASE("a client that is killed with -9 frees the box by itself", "[L12]") {
  Team team;
  Held held(team.alice);
  held.running.signal(SIGKILL);
  held.running.wait();
  CHECK(team.bob.run({"exec", "--wait=60", "--", "true"}).status == 0);
  CHECK_FALSE(held.runs());
}

TEST_CASE("a client that wakes up late is told, and cannot free the box of the next", "[L13]") {
  Team team({"--slots", "1"}, {{"SANDBOX_LOCK_TTL", "2"}});
  Machine carol;
  team.join(carol, "carol");
  Held held(team.alice);
  held.running.signal(SIGSTOP);
  Running bob =
      team.bob.start({"exec", "--wait=60", "--", "sh", "-c", "echo held; exec sleep 600"});
  REQUIRE(bob.out_has("held"));
  held.running.signal(SIGCONT);
  auto late = held.running.wait();
  CHECK(late.status == 255);
  // What the agent said last may be cut off by the end of the connection.
  CHECK((has(late.err, "nothing was heard from this client for 2 s") ||
         has(late.err, "lost the connection")));
  for (int i = 0; i < 3; ++i) {
    auto refused = carol.exec("true");
    CHECK(refused.status == 75);
    CHECK(has(refused.err, "in progress by bob"));
  }
  Team::end(bob);
}

TEST_CASE("the command of a client that was killed gets INT, and the next waits until it has ended",
          "[X13]") {
  Team team;
  fs::path order = team.alice.root() / "order";
  Held held(team.alice, "trap 'sleep 1; echo alice >> " + order.string() + "; exit 0' INT; ");
  held.running.signal(SIGKILL);
  held.running.wait();
  CHECK(team.bob.run({"exec", "--wait=60", "--", "sh", "-c", "echo bob >> " + order.string()})
            .status == 0);
  CHECK(test::file_text(order) == "alice\nbob\n");
}

TEST_CASE("of many at once exactly one runs at a time", "[L51]") {
  Team team;
  fs::path log = team.alice.root() / "log";
  constexpr int kEach = 8;
  std::vector<std::unique_ptr<Running>> all;
  for (int i = 0; i < kEach; ++i) {
    for (Machine* machine : {&team.alice, &team.bob}) {
      all.push_back(std::make_unique<Running>(machine->start(
          {"exec", "--no-wait", "--", "sh", "-c",
           "echo start >> " + log.string() + "; sleep 0.1; echo end >> " + log.string()})));
    }
  }
  int won = 0;
  int refused = 0;
  for (auto& one : all) {
    int status = one->wait(std::chrono::seconds(120)).status;
    won += status == 0 ? 1 : 0;
    refused += status == 75 ? 1 : 0;
  }
  CHECK(won > 0);
  CHECK(won + refused == 2 * kEach);
  auto lines = lines_of(test::file_text(log));
  REQUIRE(lines.size() == static_cast<std::size_t>(2 * won));
  for (std::size_t i = 0; i < lines.size(); ++i) {
    CHECK(lines[i] == (i % 2 == 0 ? "start" : "end"));
  }
}

TEST_CASE("a command forced in beside one's own runs on what is there, and says so") {
  Team team;
  test::write_text(team.alice.project() / "f", "before\n");
  Running holder = team.hold(team.alice);
  test::write_text(team.alice.project() / "f", "after\n");
  auto forced =
      team.alice.run({"exec", "--force-command", "--", "sh", "-c", "cat f; echo x > made"});
  CHECK(forced.status == 0);
  CHECK(forced.out == "before\n");
  CHECK(has(forced.err, "your work tree was not sent"));
  CHECK(test::file_text(team.alice.project() / "made") == "x\n");
  auto answer = boost::json::parse(
      lines_of(team.alice.run({"exec", "--force-command", "--json", "--", "true"}).out).back());
  CHECK(answer.at("NotSynced") == true);
  auto pushed = team.alice.run({"push", "--force-command"});
  CHECK(pushed.status == 75);
  CHECK(has(pushed.err, "nothing is sent under its feet"));
  Team::end(holder);
  CHECK(team.alice.exec("cat f").out == "after\n");
}
