// Reservations of a whole box, and what the table of boxes shows of them.
#include <signal.h>

#include <boost/json.hpp>
#include <regex>

#include "tests/support/catch.h"
#include "tests/support/team.h"

namespace {

namespace json = boost::json;
using test::has;
using test::line_with;
using test::lines_of;
using test::Machine;
using test::Running;
using test::SharedBox;
using test::Team;
using test::Words;

const Words kLock = {"boxes", "lock", "--box", "rig"};
const Words kUnlock = {"boxes", "unlock", "--box", "rig"};

Words with(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// The time of 'rig' locked by USER at TIME, or nothing.
std::string locked_at(const std::string& text, const std::string& user) {
  std::smatch found;
  std::regex shape("'rig' locked by " + user + R"( at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ))");
  return std::regex_search(text, found, shape) ? found[1].str() : std::string();
}

}  // namespace

TEST_CASE("locking a box says whose it is and since when", "[L14]") {
  Team team;
  auto locked = team.alice.run(kLock);
  CHECK(locked.status == 0);
  CHECK_FALSE(locked_at(locked.out, "alice").empty());
  CHECK(locked.out.find('\x1b') == std::string::npos);
}

TEST_CASE("locking and unlocking need to be told the box", "[L15]") {
  Team team;
  team.alice.environment.erase("SANDBOX_BOX");
  for (const char* verb : {"lock", "unlock"}) {
    auto ended = team.alice.run({"boxes", verb});
    CHECK(ended.status == 2);
    CHECK(has(ended.err, "--box"));
  }
}

TEST_CASE("a box that somebody else has locked stays theirs", "[L16]") {
  Team team;
  std::string since =
      locked_at(team.alice.run(with(kLock, {"--reason", "measuring"})).out, "alice");
  auto refused = team.bob.run(kLock);
  CHECK(refused.status == 75);
  CHECK(refused.out.empty());
  CHECK(has(refused.err, "already locked by alice (since " + since + "): measuring"));
  CHECK(has(refused.err, "boxes unlock --box rig --force"));
  CHECK(team.alice.exec("true").status == 0);
  CHECK(team.bob.exec("true").status == 75);
}

TEST_CASE("a user lock keeps everybody else's commands out", "[L17]") {
  Team team;
  std::string since =
      locked_at(team.alice.run(with(kLock, {"--reason", "measuring"})).out, "alice");
  test::write_text(team.bob.project() / "new", "x");
  for (const Words& words : {Words{"exec", "--", "touch", "made"}, Words{"start"}, Words{"push"},
                             Words{"reset"}, Words{"stop"}}) {
    INFO(words[0]);
    auto refused = team.bob.run(words);
    CHECK(refused.status == 75);
    CHECK(refused.out.empty());
    CHECK(has(refused.err, "box 'rig' is locked by alice (since " + since + "): measuring"));
    CHECK(has(refused.err, "--force-command"));
    CHECK_FALSE(has(refused.err, "busy"));
  }
  CHECK_FALSE(std::filesystem::exists(team.bob.project() / "made"));
  CHECK(team.alice.run(kUnlock).status == 0);
  CHECK(team.bob.exec("test ! -e made && test -e new").status == 0);
}

TEST_CASE("the owner of a user lock works on, and keeps it", "[L18]") {
  Team team;
  REQUIRE(team.alice.run(kLock).status == 0);
  for (int i = 0; i < 2; ++i) {
    CHECK(team.alice.exec("true").status == 0);
  }
  CHECK(team.alice.run({"reset"}).status == 0);
  CHECK(team.bob.exec("true").status == 75);
}

TEST_CASE("beside the owner's own command others are locked out, and the owner's next is busy",
          "[L19]") {
  Team team;
  REQUIRE(team.alice.run(kLock).status == 0);
  Running holder = team.hold(team.alice);
  CHECK(has(team.bob.exec("true").err, "locked by alice"));
  auto second = team.alice.exec("true");
  CHECK(second.status == 75);
  CHECK(has(second.err, "is busy, 'exec' in progress by alice"));
  Team::end(holder);
}

TEST_CASE("a user lock outlives the silence that would end a command", "[L20]") {
  Team team({"--slots", "1"}, {{"SANDBOX_LOCK_TTL", "1"}});
  REQUIRE(team.alice.run(kLock).status == 0);
  // Longer than any silence may last: a whole command of its owner's.
  CHECK(team.alice.exec("sleep 3").status == 0);
  CHECK(team.bob.exec("true").status == 75);
}

TEST_CASE("a user lock outlives the agent, with its time", "[L21]") {
  Team team;
  std::string since = locked_at(team.alice.run(kLock).out, "alice");
  for (int signal : {SIGTERM, SIGKILL}) {
    team.box.end(signal);
    team.box.start();
    auto refused = team.bob.exec("true");
    CHECK(refused.status == 75);
    CHECK(has(refused.err, "locked by alice (since " + since + ")"));
  }
  CHECK(team.alice.run(kUnlock).status == 0);
}

TEST_CASE("the owner unlocks, and the others may use the box", "[L22]") {
  Team team;
  REQUIRE(team.alice.run(kLock).status == 0);
  auto unlocked = team.alice.run(kUnlock);
  CHECK(unlocked.status == 0);
  CHECK(has(unlocked.out, "'rig' unlocked"));
  CHECK(team.bob.exec("true").status == 0);
}

TEST_CASE("somebody else's unlock is refused, and says how to force it", "[L23]") {
  Team team;
  std::string since = locked_at(team.alice.run(kLock).out, "alice");
  auto refused = team.bob.run(kUnlock);
  CHECK(refused.status == 75);
  CHECK(refused.out.empty());
  CHECK(has(refused.err, "locked by alice (since " + since + ")"));
  CHECK(has(refused.err, "boxes unlock --box rig --force"));
  CHECK(team.bob.exec("true").status == 75);
}

TEST_CASE("a forced unlock frees the box, and its former holder is told", "[L24]") {
  Team team;
  REQUIRE(team.alice.run(kLock).status == 0);
  auto forced = team.bob.run(with(kUnlock, {"--force"}));
  CHECK(forced.status == 0);
  CHECK(has(forced.err, "locked by alice"));
  CHECK(team.bob.exec("true").status == 0);
  CHECK(has(team.alice.exec("true").err, "bob"));
  CHECK_FALSE(has(team.alice.exec("true").err, "bob"));  // once
}

TEST_CASE("who asks for JSON is told of a forced unlock, too, and on which box it was", "[L24]") {
  Team team;
  SharedBox other("rig2");
  other.introduce(team.alice, "alice");
  REQUIRE(team.alice.run(kLock).status == 0);
  REQUIRE(team.bob.run(with(kUnlock, {"--force"})).status == 0);
  auto told = json::parse(team.alice.run({"boxes", "--json"}).out);
  REQUIRE(told.at("Boxes").as_array().size() == 2);
  REQUIRE(told.as_object().contains("Warnings"));
  std::string warning(told.at("Warnings").at(0).as_string());
  CHECK(has(warning, "the box rig: "));
  CHECK(has(warning, "removed by bob"));
  CHECK_FALSE(json::parse(team.alice.run({"boxes", "--json"}).out)
                  .as_object()
                  .contains("Warnings"));  // once
}

TEST_CASE("a forced command runs on a locked box, and leaves it locked", "[L26]") {
  Team team;
  REQUIRE(team.alice.run(kLock).status == 0);
  auto forced = team.bob.run({"exec", "--force-command", "--", "echo", "in"});
  CHECK(forced.status == 0);
  CHECK(forced.out == "in\n");
  CHECK(has(team.bob.exec("true").err, "locked by alice"));
}

TEST_CASE("unlocking a free box and locking one's own again are no errors", "[X12]") {
  Team team;
  auto free = team.bob.run(kUnlock);
  CHECK(free.status == 0);
  CHECK(has(free.out, "'rig' was not locked"));
  std::string since = locked_at(team.alice.run(kLock).out, "alice");
  // The clock has to move on for the time to tell the two apart.
  CHECK(team.alice.exec("sleep 1.1").status == 0);
  auto again = team.alice.run(kLock);
  CHECK(again.status == 0);
  CHECK(locked_at(again.out, "alice") == since);
}

TEST_CASE("locks in JSON say whose, since when and why") {
  Team team;
  auto locked = json::parse(team.alice.run(with(kLock, {"--reason", "x", "--json"})).out);
  CHECK(locked.at("LockedBy") == "alice");
  CHECK(locked.at("Reason") == "x");
  CHECK(locked.at("Taken") == true);
  auto refused = json::parse(team.bob.run(with(kLock, {"--json"})).out);
  CHECK(refused.at("Error").at("Status") == 75);
  auto unlocked = json::parse(team.alice.run(with(kUnlock, {"--json"})).out);
  CHECK(unlocked.at("WasLocked") == true);
  CHECK(unlocked.at("LockedSince") == locked.at("LockedSince"));
}

TEST_CASE("the table has a column for locks or commands only while there are some",
          "[L35][L36][L37]") {
  Team team;
  SharedBox other("rig2");
  other.introduce(team.alice, "alice");
  auto header = [&] { return lines_of(team.bob.run({"boxes", "list"}).out).at(0); };
  other.introduce(team.bob, "bob");
  CHECK_FALSE(has(header(), "locked by"));
  CHECK_FALSE(has(header(), "busy"));

  REQUIRE(team.alice.run(kLock).status == 0);
  CHECK(has(header(), "locked by"));
  CHECK_FALSE(has(header(), "busy"));
  auto locked = team.bob.run({"boxes"}).out;
  CHECK(has(line_with(locked, "rig "), "alice"));
  CHECK_FALSE(has(line_with(locked, "rig2 "), "alice"));
  REQUIRE(team.alice.run(kUnlock).status == 0);

  Running holder = team.hold(team.alice, {"--box", "rig"});
  CHECK_FALSE(has(header(), "locked by"));
  CHECK(has(header(), "busy"));
  auto busy = team.bob.run({"boxes"}).out;
  CHECK(has(line_with(busy, "rig "), "alice (exec)"));
  CHECK_FALSE(has(line_with(busy, "rig2 "), "alice"));
  auto answer = json::parse(team.bob.run({"boxes", "--json"}).out);
  CHECK(answer.at("Boxes").at(0).at("Busy").at(0).at("User") == "alice");
  CHECK(answer.at("Boxes").at(0).at("Busy").at(0).at("Verb") == "exec");
  CHECK(answer.at("Boxes").at(0).at("Sandboxes") == 2);
  Team::end(holder);
  CHECK_FALSE(has(header(), "busy"));
}

TEST_CASE("a box is shown as busy while any command has it", "[L1]") {
  Team team;
  auto busy = [&] { return line_with(team.bob.run({"boxes"}).out, "rig "); };
  // They hold the lock for as long as the supervisor of the sandbox does not answer.
  auto supervisor_of_alice = [&] {
    auto id = json::parse(team.alice.run({"status", "--json"}).out).at("RunID");
    auto file = team.box.state() / "sandboxes" / std::string(id.as_string()) / "supervisor.json";
    return static_cast<pid_t>(json::parse(test::file_text(file)).at("pid").as_int64());
  };
  for (const Words& words : {Words{"push"}, Words{"stop"}}) {
    INFO(words[0]);
    pid_t supervisor = supervisor_of_alice();
    REQUIRE(::kill(supervisor, SIGSTOP) == 0);
    Running running = team.alice.start(words);
    CHECK(test::eventually([&] { return has(busy(), "alice (" + words[0] + ")"); }));
    REQUIRE(::kill(supervisor, SIGCONT) == 0);
    CHECK(running.wait().status == 0);
    CHECK_FALSE(has(busy(), "alice"));
  }
  test::write_text(team.alice.project() / ".sandbox.yml", "setup: ['echo held; sleep 600']\n");
  for (const Words& words : {Words{"start"}, Words{"exec", "--", "true"}, Words{"reset"}}) {
    INFO(words[0]);
    Running running = team.alice.start(words);
    REQUIRE(test::eventually([&] { return has(busy(), "alice (" + words[0] + ")"); }));
    Team::end(running);
    REQUIRE(test::eventually([&] { return !has(busy(), "alice"); }));
  }
  std::filesystem::remove(team.alice.project() / ".sandbox.yml");
  Running holder = team.hold(team.alice);
  CHECK(has(busy(), "alice (exec)"));
  Team::end(holder);
  CHECK_FALSE(has(busy(), "alice"));
}

TEST_CASE(
    "on a terminal the holder of a lock is magenta and a command yellow, in a pipe nothing is",
    "[L38]") {
  Team team;
  REQUIRE(team.alice.run(kLock).status == 0);
  Running holder = team.hold(team.alice);
  test::How terminal;
  terminal.terminal = true;
  auto shown = team.bob.run({"boxes"}, terminal).out;
  CHECK(has(shown, "\x1b[35malice\x1b[0m"));
  CHECK(has(shown, "\x1b[33malice (exec)\x1b[0m"));
  CHECK(has(shown, "\x1b[32mcurrent\x1b[0m"));
  CHECK(team.bob.run({"boxes"}).out.find('\x1b') == std::string::npos);
  terminal.environment["NO_COLOR"] = "1";
  CHECK(team.bob.run({"boxes"}, terminal).out.find('\x1b') == std::string::npos);
  Team::end(holder);
}

TEST_CASE("a CI job's own later process goes on under its lock, another job does not", "[X11]") {
  Team team;
  auto job = [](const std::string& name) {
    test::How how;
    how.environment = {
        {"CI", "true"},           {"GITHUB_ACTIONS", "true"},  {"GITHUB_REPOSITORY", "org/repo"},
        {"GITHUB_RUN_ID", "100"}, {"GITHUB_RUN_ATTEMPT", "1"}, {"GITHUB_JOB", name},
        {"RUNNER_NAME", "r7"},    {"SANDBOX_LOCK_WAIT", "0"}};
    return how;
  };
  CHECK(team.alice.run(kLock, job("build")).status == 0);
  CHECK(team.alice.exec("true", job("build")).status == 0);
  auto other = team.alice.exec("true", job("test"));
  CHECK(other.status == 75);
  CHECK(has(other.err, "locked by alice for github org/repo run 100 job build on r7"));
  CHECK(has(team.bob.run({"boxes"}).out, "github org/repo run 100 job build on r7"));
  const std::string scope = "ci:github:org/repo#100-1/build@r7";
  auto boxes = json::parse(team.bob.run({"boxes", "--json"}).out).at("Boxes");
  CHECK(boxes.at(0).at("LockedBy") == "alice");
  CHECK(boxes.at(0).at("LockScope") == json::string(scope));
  Running held =
      team.alice.start({"exec", "--", "sh", "-c", "echo held; exec sleep 600"}, job("build"));
  REQUIRE(held.out_has("held"));
  boxes = json::parse(team.bob.run({"boxes", "--json"}).out).at("Boxes");
  CHECK(boxes.at(0).at("Busy").at(0).at("User") == "alice");
  CHECK(boxes.at(0).at("Busy").at(0).at("Scope") == json::string(scope));
  CHECK(has(team.bob.run({"sessions"}).out, "alice for github org/repo run 100 job build on r7"));
  auto sessions = json::parse(team.bob.run({"sessions", "--json"}).out).at("Sessions");
  CHECK(sessions.at(0).at("User") == "alice");
  CHECK(sessions.at(0).at("Scope") == json::string(scope));
  auto status = json::parse(team.alice.run({"status", "--json"}).out);
  CHECK(status.at("Holders").at(0).at("Scope") == json::string(scope));
  Team::end(held);
  CHECK(team.alice.run(kUnlock, job("test")).status == 75);
  CHECK(team.alice.run(kUnlock, job("build")).status == 0);
  CHECK(team.alice.exec("true", job("test")).status == 0);
}

TEST_CASE("two people take turns on a box", "[L47]") {
  Team team;
  Running first = team.hold(team.alice);
  CHECK(team.bob.exec("true").status == 75);
  Team::end(first);
  auto second = team.bob.exec("echo mine");
  CHECK(second.status == 0);
  CHECK(second.out == "mine\n");
}
