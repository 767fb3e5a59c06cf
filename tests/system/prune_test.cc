// sandbox list, prune, exec --rm: what they show, remove and leave alone, with the real programs.
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <set>

#include "protocol/os/clock.h"
#include "protocol/os/flock.h"
#include "tests/support/catch.h"
#include "tests/support/other_user.h"
#include "tests/support/places.h"
#include "tests/support/sandbox_list.h"
#include "tests/support/system.h"

namespace fs = std::filesystem;
using test::Ended;
using test::eventually;
using test::file_text;
using test::How;
using test::Machine;
using test::Running;
using test::status_of;
using test::write_text;

namespace {

boost::json::value json(const Ended& ended) {
  INFO(ended.out << ended.err);
  return boost::json::parse(ended.out);
}

std::string text(const boost::json::value& value) { return std::string(value.as_string()); }

// Makes a project of this name beside the machine's, with a sandbox; its id.
std::string make_project(Machine& machine, const std::string& name) {
  How there;
  there.directory = machine.root() / name;
  write_text(there.directory / "f", "file\n");
  return text(json(machine.run({"start", "--json"}, there)).at("RunID"));
}

How in(Machine& machine, const std::string& name) {
  How there;
  there.directory = machine.root() / name;
  return there;
}

How anywhere(Machine& machine) { return in(machine, "home"); }

fs::path directory(const Machine& machine, const std::string& id) {
  return machine.state() / "agent/sandboxes" / id;
}

bool there(const Machine& machine, const std::string& id) {
  return fs::exists(directory(machine, id));
}

Running hold(Machine& machine, const How& how) {
  auto running = machine.start({"exec", "--", "sh", "-c", "echo ready; exec sleep 600"}, how);
  REQUIRE(running.out_has("ready"));
  return running;
}

void end(Running& running) {
  running.signal(SIGINT);
  running.wait();
}

void orphan(Machine& machine, const std::string& name) { fs::remove_all(machine.root() / name); }

// Dates of use are whole seconds: until the next one begins.
void next_second() {
  auto now = [] { return protocol::os::format_utc(protocol::os::SystemClock().date()); };
  std::string before = now();
  REQUIRE(eventually([&] { return now() != before; }));
}

// A sandbox with a result that nobody has merged: its client was killed while the command ran.
void leave_unpulled(Machine& machine, const std::string& name, const std::string& id) {
  auto victim = machine.start({"exec", "--", "sh", "-c", "echo x > work; echo ready; sleep 600"},
                              in(machine, name));
  REQUIRE(victim.out_has("ready"));
  victim.signal(SIGKILL);
  victim.wait();
  REQUIRE(eventually([&] { return status_of(machine, id).find("active") == std::string::npos; }));
}

}  // namespace

TEST_CASE("prune never removes an active sandbox, says nothing of it, and removes the others",
          "[D1][D2][D3]") {
  Machine machine;
  auto active = make_project(machine, "one");
  auto idle = make_project(machine, "two");
  auto running = hold(machine, in(machine, "one"));
  for (test::Words choice : {test::Words{"--all"}, test::Words{"--keep", "0"},
                             test::Words{"--older-than", "0"}, test::Words{"--orphaned"}}) {
    test::Words words = {"prune", "--force"};
    words.insert(words.end(), choice.begin(), choice.end());
    auto pruned = machine.run(words, anywhere(machine));
    INFO(choice[0] << ": " << pruned.out << pruned.err);
    CHECK(pruned.status == 0);
    CHECK((pruned.out + pruned.err).find(active) == std::string::npos);
    CHECK(pruned.err.empty());
    CHECK(there(machine, active));
  }
  CHECK_FALSE(there(machine, idle));
  orphan(machine, "one");
  CHECK(machine.run({"prune", "--force"}, anywhere(machine)).out == "No sandbox to remove.\n");
  CHECK(there(machine, active));
  CHECK(::kill(running.pid(), 0) == 0);
  CHECK(fs::exists(directory(machine, active) / "workspace/f"));
  end(running);
}

TEST_CASE("two terminals: start, list, prune, exit, list, prune", "[D14][D15]") {
  Machine machine;
  auto id = make_project(machine, "one");
  auto first = hold(machine, in(machine, "one"));  // 1. terminal one works
  CHECK(status_of(machine, id) == "active");       // 2. terminal two sees it
  auto pruned = machine.run({"prune", "--all", "--force"}, anywhere(machine));
  CHECK(pruned.out == "No sandbox to remove.\n");  // 3. and cannot remove it
  CHECK(there(machine, id));
  first.signal(SIGKILL);  // 4. terminal one is gone
  first.wait();
  REQUIRE(eventually([&] { return status_of(machine, id).empty(); }));  // 5. so it is idle
  CHECK(fs::exists(directory(machine, id) / ".lock"));                  //    whatever file was left
  pruned = machine.run({"prune", "--all", "--force"}, anywhere(machine));
  CHECK(pruned.out.find("Removed sandbox: " + id) == 0);  // 6. and goes
  CHECK_FALSE(there(machine, id));
  CHECK(status_of(machine, id) == "not listed");
}

TEST_CASE("prune removes the orphaned by default, and what its options choose", "[X1]") {
  Machine machine;
  auto a = make_project(machine, "a");
  next_second();
  auto b = make_project(machine, "b");
  next_second();
  auto c = make_project(machine, "c");
  orphan(machine, "a");
  auto dry = [&](test::Words words) {
    test::Words all = {"prune", "--dry-run", "--json"};
    all.insert(all.end(), words.begin(), words.end());
    std::set<std::string> ids;
    auto removed = json(machine.run(all, anywhere(machine))).at("Removed").as_array();
    for (const auto& one : removed) {
      ids.insert(text(one.at("RunID")));
    }
    return ids;
  };
  using Ids = std::set<std::string>;
  CHECK(dry({}) == Ids{a});
  CHECK(dry({"--all"}) == Ids{a, b, c});
  CHECK(dry({"--all", "--orphaned"}) == Ids{a});
  CHECK(dry({"--keep", "1"}) == Ids{a, b});
  CHECK(dry({"--keep", "2"}) == Ids{a});
  CHECK(dry({"--keep", "2", "--orphaned"}) == Ids{a});
  CHECK(dry({"--older-than", "1h"}).empty());
  CHECK(dry({"--older-than", "2w"}).empty());
  CHECK(dry({"--older-than", "0", "--keep", "1"}) == Ids{a, b});
  for (const char* bad : {"soon", "-1d", "1y"}) {
    CHECK(machine.run({"prune", "--older-than", bad}, anywhere(machine)).status == 2);
  }
  CHECK(machine.run({"prune", "--keep", "few"}, anywhere(machine)).status == 2);
  for (const auto& id : {a, b, c}) {
    CHECK(there(machine, id));
  }
  CHECK(machine.run({"prune", "--force"}, anywhere(machine)).status == 0);
  CHECK_FALSE(there(machine, a));
  CHECK(there(machine, b));
}

TEST_CASE("prune asks, takes everything but yes for no, and needs a terminal for it", "[X2]") {
  Machine machine;
  auto id = make_project(machine, "one");
  auto dry = machine.run({"prune", "--all", "--dry-run"}, anywhere(machine));
  CHECK(dry.status == 0);
  CHECK(dry.out.find("Would remove: " + id) == 0);
  How terminal = anywhere(machine);
  terminal.terminal = true;
  for (const char* answer : {"\n", "n\n", "no\n", "yesno\n", "\x04"}) {
    INFO(answer);
    auto asked = machine.start({"prune", "--all"}, terminal);
    REQUIRE(asked.out_has("[y/N] "));
    asked.type(answer);
    auto ended = asked.wait();
    CHECK(ended.status == 0);
    CHECK(ended.out.find("Nothing was removed.") != std::string::npos);
    CHECK(there(machine, id));
  }
  How no_terminal = anywhere(machine);
  no_terminal.input = "y\n";
  for (const How& how : {no_terminal, anywhere(machine)}) {
    auto refused = machine.run({"prune", "--all"}, how);
    CHECK(refused.status == 2);
    CHECK(refused.err.find("--force") != std::string::npos);
    CHECK(there(machine, id));
  }
  CHECK(machine.run({"prune", "--all", "--json"}, terminal).status == 2);
  std::string sandbox = SANDBOX_BIN_DIR "/sandbox";
  // The question goes to stderr: nobody would see it.
  auto unseen = machine.run_program(
      {"sh", "-c", sandbox + " prune --all 2>" + (machine.root() / "asked").string()}, terminal);
  CHECK(unseen.status == 2);
  CHECK(file_text(machine.root() / "asked").find("--force") != std::string::npos);
  CHECK(there(machine, id));
  auto asked = machine.start({"prune", "--all"}, terminal);
  REQUIRE(asked.out_has("[y/N] "));
  asked.type("y\n");
  CHECK(asked.wait().status == 0);
  CHECK_FALSE(there(machine, id));
}

TEST_CASE("a session that starts while prune asks keeps its sandbox", "[X3]") {
  Machine machine;
  auto first = make_project(machine, "one");
  auto second = make_project(machine, "two");
  How terminal = anywhere(machine);
  terminal.terminal = true;
  auto asked = machine.start({"prune", "--all"}, terminal);
  REQUIRE(asked.out_has("[y/N] "));
  auto running = hold(machine, in(machine, "one"));
  asked.type("y\n");
  auto ended = asked.wait();
  CHECK(ended.status == 0);
  CHECK(ended.out.find("in use by now") != std::string::npos);
  CHECK(there(machine, first));
  CHECK(fs::exists(directory(machine, first) / "workspace/f"));
  CHECK_FALSE(there(machine, second));
  CHECK(::kill(running.pid(), 0) == 0);
  end(running);
}

TEST_CASE("a hundred starts against prune: no session ever runs on a half-removed tree", "[X4]") {
  Machine machine;
  for (int i = 0; i < 40; ++i) {
    write_text(machine.project() / ("file" + std::to_string(i)), std::to_string(i));
  }
  std::string sandbox = SANDBOX_BIN_DIR "/sandbox";
  auto pruner = machine.start_program(
      {"sh", "-c",
       "until test -e ../stop; do " + sandbox + " prune --all --force || exit 1; done"});
  for (int i = 0; i < 100; ++i) {
    INFO("start " << i);
    auto ended = machine.exec(
        "ls | wc -l; cat file* | wc -c; cd \"$HOME\" && touch here && sleep 0.02 && rm here");
    INFO(ended.err);
    CHECK(ended.status == 0);
    CHECK(ended.out == "40\n70\n");
  }
  write_text(machine.root() / "stop", "");
  auto ended = pruner.wait(std::chrono::seconds(120));
  INFO(ended.err);
  CHECK(ended.status == 0);
  CHECK(ended.out.find("Removed sandbox") != std::string::npos);
}

TEST_CASE("removals that were cut off are finished by prune, living ones left alone", "[X5]") {
  Machine machine;
  auto id = make_project(machine, "one");
  pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  auto staged = machine.state() / "agent/.removing";
  auto cut_off = staged / ("x-" + std::to_string(dead));
  auto living = staged / ("x-" + std::to_string(::getpid()));
  write_text(cut_off / "workspace/file", "x");
  write_text(living / "workspace/file", "x");
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
  auto dry = json(machine.run({"prune", "--dry-run", "--json"}, anywhere(machine)));
  CHECK(dry.at("Reclaimed") == 1);
  CHECK(fs::exists(cut_off));
  auto pruned = machine.run({"prune", "--force"}, anywhere(machine));
  CHECK(pruned.out.find("finished 1 removal that was cut off") != std::string::npos);
  CHECK(eventually([&] { return !fs::exists(cut_off); }));
  CHECK(fs::exists(living));
  CHECK(there(machine, id));
}

namespace {

// The local agent ends, as it does when nobody has used it for long.
void end_agent(Machine& machine) {
  pid_t agent = machine.agent_pid();
  REQUIRE(agent > 0);
  REQUIRE(::kill(agent, SIGTERM) == 0);
  REQUIRE(eventually([&] { return ::kill(agent, 0) != 0; }));
}

}  // namespace

TEST_CASE("removals that were cut off are finished although no agent runs and nothing is on record",
          "[X5]") {
  Machine machine;
  make_project(machine, "one");
  REQUIRE(machine.run({"prune", "--all", "--force"}, anywhere(machine)).status == 0);
  REQUIRE(eventually([&] { return fs::is_empty(machine.state() / "agent/.removing"); }));
  end_agent(machine);
  CHECK(machine.run({"prune", "--force"}, anywhere(machine)).out == "No sandbox to remove.\n");
  CHECK(machine.agent_pid() == 0);  // nothing was there to start it for
  pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  auto cut_off = machine.state() / "agent/.removing" / ("x-" + std::to_string(dead));
  write_text(cut_off / "workspace/file", "x");
  CHECK(machine.run({"prune", "--force"}, anywhere(machine)).status == 0);
  CHECK(eventually([&] { return !fs::exists(cut_off); }));
}

TEST_CASE("list and prune see what only the agent's directory has") {
  Machine machine;
  auto id = make_project(machine, "one");
  end_agent(machine);
  fs::remove(machine.state() / "sandboxes.json");
  CHECK(status_of(machine, id).empty());
  end_agent(machine);
  CHECK(machine.run({"prune", "--all", "--force"}, anywhere(machine)).out.find(id) !=
        std::string::npos);
  CHECK_FALSE(there(machine, id));
}

TEST_CASE("read-only trees go, too", "[X6]") {
  // Root may remove anything: then somebody else tries.
  Machine machine;
  test::OtherUser other(machine);
  if (!other.works()) {
    WARN("skipped: another user than root cannot run the programs here");
    return;
  }
  const std::string fill =
      "mkdir -p ~/cache/a/b && touch ~/cache/a/b/file && chmod -R a-w ~/cache && "
      "chmod 000 ~/cache/a/b";
  auto made = other.run({"exec", "--json", "--", "sh", "-c", fill});
  INFO(made.out << made.err);
  REQUIRE(made.status == 0);
  auto id = text(boost::json::parse(made.out).at("RunID"));
  auto pruned = other.run({"prune", "--all", "--force"});
  INFO(pruned.out << pruned.err);
  CHECK(pruned.status == 0);
  CHECK_FALSE(there(machine, id));
  CHECK(eventually([&] { return fs::is_empty(machine.state() / "agent/.removing"); }));
  other.run({"stop", "--all"});
}

TEST_CASE("exec --rm removes the sandbox, unless another session uses it", "[X7]") {
  Machine machine;
  machine.make_repository();
  auto alone = machine.run({"exec", "--rm", "--json", "--", "sh", "-c", "echo made > result"});
  INFO(alone.err);
  CHECK(alone.status == 0);
  auto id = text(boost::json::parse(alone.out).at("RunID"));
  CHECK(file_text(machine.project() / "result") == "made\n");
  CHECK_FALSE(there(machine, id));
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 0);
  CHECK(machine.run({"exec", "--rm", "--", "false"}).status == 1);
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 0);
  CHECK(machine.run({"exec", "--rm", "--", "no-such-command"}).status == 127);
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 0);

  auto kept = text(json(machine.run({"start", "--json"})).at("RunID"));
  auto holder = machine.start({"exec", "--", "sh", "-c", "echo ready; read line"},
                              How{.input_stays_open = true});
  REQUIRE(holder.out_has("ready"));
  auto waiter = machine.start({"exec", "--rm", "--", "true"});
  REQUIRE(eventually([&] {
    return json(machine.run({"sessions", "--json"})).at("Sessions").as_array().size() == 2;
  }));
  auto third = machine.start({"exec", "--", "sh", "-c", "exec sleep 600"});
  REQUIRE(eventually([&] {
    return json(machine.run({"sessions", "--json"})).at("Sessions").as_array().size() == 3;
  }));
  holder.end_input();
  auto ended = waiter.wait();
  CHECK(ended.status == 0);
  CHECK(ended.err.find("kept") != std::string::npos);
  CHECK(there(machine, kept));
  third.signal(SIGINT);
  third.wait();
}

TEST_CASE("work that was never pulled keeps a sandbox, is named, and goes only with --discard") {
  Machine machine;
  auto id = make_project(machine, "one");
  leave_unpulled(machine, "one", id);
  auto dry = json(machine.run({"prune", "--all", "--dry-run", "--json"}, anywhere(machine)));
  CHECK(dry.at("Removed").as_array().empty());
  CHECK(text(dry.at("Kept").at(0).at("RunID")) == id);
  auto kept = machine.run({"prune", "--all", "--force"}, anywhere(machine));
  INFO(kept.out << kept.err);
  CHECK(kept.status == 0);
  CHECK(kept.err.find(id) != std::string::npos);
  CHECK(kept.err.find("work") != std::string::npos);
  CHECK(kept.err.find("--discard") != std::string::npos);
  CHECK(fs::exists(directory(machine, id) / "workspace/work"));
  CHECK(machine.run({"pull"}, in(machine, "one")).status == 0);
  CHECK(file_text(machine.root() / "one/work") == "x\n");
  CHECK(machine.run({"prune", "--all", "--force"}, anywhere(machine)).out.find(id) !=
        std::string::npos);
  CHECK_FALSE(there(machine, id));
  id = make_project(machine, "one");
  leave_unpulled(machine, "one", id);
  machine.run({"prune", "--all", "--force", "--discard"}, anywhere(machine));
  CHECK_FALSE(there(machine, id));
}

TEST_CASE(
    "stop and reset keep a sandbox with work that was never pulled, unless told to discard it") {
  Machine machine;
  auto id = make_project(machine, "one");
  leave_unpulled(machine, "one", id);
  for (const test::Words& words :
       {test::Words{"stop"}, test::Words{"stop", "--force"}, test::Words{"stop", "--all"},
        test::Words{"reset"}, test::Words{"exec", "--reset", "--", "true"}}) {
    auto kept = machine.run(words, in(machine, "one"));
    INFO(words[0] << ": " << kept.out << kept.err);
    CHECK(kept.status == 255);
    CHECK(kept.err.find(id + " was kept: ") != std::string::npos);
    CHECK(kept.err.find("never pulled: work") != std::string::npos);
    CHECK(kept.err.find("sandbox pull --id " + id) != std::string::npos);
    CHECK(there(machine, id));
    CHECK(fs::exists(directory(machine, id) / "workspace/work"));
  }
  CHECK(machine.run({"pull", "--id", id}, anywhere(machine)).status == 0);  // as was advised
  CHECK(file_text(machine.root() / "one/work") == "x\n");
  auto fresh = json(machine.run({"reset", "--json"}, in(machine, "one")));
  CHECK(text(fresh.at("OldRunID")) == id);
  id = text(fresh.at("NewRunID"));
  leave_unpulled(machine, "one", id);
  CHECK(machine.run({"exec", "--reset", "--discard", "--", "true"}, in(machine, "one")).status ==
        0);
  CHECK_FALSE(there(machine, id));
  id = text(json(machine.run({"status", "--json"}, in(machine, "one"))).at("RunID"));
  leave_unpulled(machine, "one", id);
  CHECK(machine.run({"stop", "--discard"}, in(machine, "one")).status == 0);
  CHECK_FALSE(there(machine, id));
}

TEST_CASE("what a sandbox holds for a project that is gone is said to be out of pull's reach") {
  Machine machine;
  auto id = make_project(machine, "one");
  orphan(machine, "one");
  auto pulled = machine.run({"pull", "--id", id}, anywhere(machine));
  CHECK(pulled.status == 255);
  CHECK(pulled.err.find("/one, which is not there any more") != std::string::npos);
  CHECK(pulled.err.find("sandbox ssh-config --id " + id) != std::string::npos);
  write_text(machine.root() / "one/f", "another\n");
  pulled = machine.run({"pull", "--id", id}, anywhere(machine));
  CHECK(pulled.status == 255);
  CHECK(pulled.err.find("/one, which is not there any more") != std::string::npos);
  CHECK(file_text(machine.root() / "one/f") == "another\n");
}

TEST_CASE("commits that were made in a sandbox and never pulled keep it") {
  Machine machine;
  machine.make_repository();
  auto id = text(json(machine.run({"start", "--json"})).at("RunID"));
  const std::string commit =
      "git -c user.name=n -c user.email=e commit -q --allow-empty -m new; echo ready; sleep 600";
  auto victim = machine.start({"exec", "--", "sh", "-c", commit});
  REQUIRE(victim.out_has("ready"));
  victim.signal(SIGKILL);
  victim.wait();
  REQUIRE(eventually([&] { return status_of(machine, id).empty(); }));
  auto kept = machine.run({"prune", "--all", "--force"}, anywhere(machine));
  INFO(kept.out << kept.err);
  CHECK(kept.err.find("refs/heads/main") != std::string::npos);
  CHECK(there(machine, id));
}

TEST_CASE("what was changed beside the commands keeps a sandbox") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto list = json(machine.run({"list", "--json"})).at("Sandboxes").at(0);
  auto id = text(list.at("RunID"));
  write_text(directory(machine, id) / "workspace/edited", "by a shell\n");
  auto kept = machine.run({"prune", "--all", "--force"}, anywhere(machine));
  CHECK(kept.err.find("edited") != std::string::npos);
  CHECK(there(machine, id));
  CHECK(machine.run({"pull"}).status == 0);
  CHECK(file_text(machine.project() / "edited") == "by a shell\n");
  machine.run({"prune", "--all", "--force"}, anywhere(machine));
  CHECK_FALSE(there(machine, id));
}

TEST_CASE("of a box that cannot be reached nothing is removed, and it is named") {
  Machine machine;
  auto id = make_project(machine, "one");
  std::string storage = file_text(machine.state() / "sandboxes.json");
  auto at = storage.find("\"local\"");
  REQUIRE(at != std::string::npos);
  write_text(machine.state() / "sandboxes.json",
             storage.substr(0, at) + "\"127.0.0.1:1\"" + storage.substr(at + 7));
  orphan(machine, "one");
  auto pruned = machine.run({"prune", "--box", "127.0.0.1:1", "--force"}, anywhere(machine));
  CHECK(pruned.status == 255);
  CHECK(pruned.err.find("127.0.0.1:1") != std::string::npos);
  CHECK(file_text(machine.state() / "sandboxes.json").find(id) != std::string::npos);
  CHECK(there(machine, id));
  auto named = machine.run({"list", "--box", "127.0.0.1:1"}, anywhere(machine));
  CHECK(named.status == 255);
  CHECK(named.err.find("127.0.0.1:1") != std::string::npos);
  CHECK(machine.run({"list", "--all"}, anywhere(machine)).out.find("orphaned, unreachable") !=
        std::string::npos);
  {
    // What this machine knows by itself does not need the box.
    auto own = protocol::os::FileLock::try_lock(machine.state() / "sessions" / (id + ".lock"),
                                                protocol::os::FileLock::Kind::shared);
    REQUIRE(own);
    CHECK(machine.run({"list", "--all"}, anywhere(machine))
              .out.find("orphaned, active, unreachable") != std::string::npos);
  }
  auto all = machine.run({"list", "--all", "--json"}, anywhere(machine));
  CHECK(all.status == 0);
  CHECK(json(all).at("Unreachable").at(0).at("Box") == "127.0.0.1:1");
  CHECK(json(all).at("Sandboxes").as_array().size() == 2);
  machine.run({"stop", "--id", id}, anywhere(machine));
}

TEST_CASE("a start that failed and whose project is gone leaves nothing on record") {
  Machine machine;
  How there = in(machine, "one");
  write_text(there.directory / ".sandbox.yml", "setup: exit 3\n");
  CHECK(machine.run({"start"}, there).status == 255);
  make_project(machine, "two");
  CHECK(file_text(machine.state() / "sandboxes.json").find("/one") != std::string::npos);
  orphan(machine, "one");
  CHECK(machine.run({"prune", "--force"}, anywhere(machine)).status == 0);
  CHECK(file_text(machine.state() / "sandboxes.json").find("/one") == std::string::npos);
  CHECK(file_text(machine.state() / "sandboxes.json").find("/two") != std::string::npos);
}

TEST_CASE("list sorts, shows sizes or not, and refuses an order that there is not", "[X8]") {
  Machine machine;
  CHECK(machine.run({"list", "--json"}).out == "{\"Sandboxes\":[]}\n");
  auto b = make_project(machine, "b");
  next_second();
  auto a = make_project(machine, "a");
  next_second();
  machine.run({"exec", "--", "sh", "-c", "head -c 3000000 /dev/zero > \"$HOME/big\""},
              in(machine, "b"));
  auto order = [&](const char* by) {
    std::vector<std::string> ids;
    auto all = json(machine.run({"list", "--json", "--sort", by})).at("Sandboxes").as_array();
    for (const auto& one : all) {
      ids.push_back(text(one.at("RunID")));
    }
    return ids;
  };
  using Ids = std::vector<std::string>;
  CHECK(order("name") == Ids{a, b});
  CHECK(order("created") == Ids{b, a});
  CHECK(order("used") == Ids{a, b});
  CHECK(order("size") == Ids{a, b});
  auto unknown = machine.run({"list", "--sort", "colour"});
  CHECK(unknown.status == 2);
  CHECK(unknown.err.find("--sort") != std::string::npos);
  auto sized = machine.run({"list"}).out;
  CHECK(sized.find("SIZE") != std::string::npos);
  CHECK(sized.find(" MB") != std::string::npos);
  CHECK(machine.run({"list", "--no-size"}).out.find("SIZE") == std::string::npos);
  auto one = json(machine.run({"list", "--json", "--no-size"})).at("Sandboxes").at(0);
  CHECK(one.at("SizeBytes").is_null());
  CHECK(one.at("CreatedAt").as_string().size() == 20);
  CHECK(one.at("Active") == false);
  CHECK(one.at("Orphaned") == false);
  CHECK(one.at("OnRecord") == true);
}
