// Session locks: who uses a sandbox, seen from outside, with the real programs.
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <fstream>

#include "protocol/os/flock.h"
#include "tests/support/catch.h"
#include "tests/support/places.h"
#include "tests/support/sandbox_list.h"
#include "tests/support/system.h"

namespace fs = std::filesystem;
using protocol::os::FileLock;
using test::Ended;
using test::eventually;
using test::file_text;
using test::How;
using test::Machine;
using test::Running;
using test::status_of;
using test::write_text;

namespace {

std::string start(Machine& machine, test::Words more = {}) {
  test::Words words = {"start", "--json"};
  words.insert(words.end(), more.begin(), more.end());
  auto ended = machine.run(words);
  INFO(ended.out << ended.err);
  return std::string(boost::json::parse(ended.out).at("RunID").as_string());
}

fs::path directory(const Machine& machine, const std::string& id) {
  return machine.state() / "agent/sandboxes" / id;
}

fs::path lock_of(const Machine& machine, const std::string& id) {
  return directory(machine, id) / ".lock";
}

bool held(const fs::path& lock) {
  auto answer = FileLock::is_held(lock);
  return answer && *answer;
}

// A command that says `ready` and stays until its end is asked for.
Running hold(Machine& machine, const How& how = {}) {
  auto running = machine.start({"exec", "--", "sh", "-c", "echo ready; exec sleep 600"}, how);
  REQUIRE(running.out_has("ready"));
  return running;
}

std::size_t session_count(Machine& machine) {
  return boost::json::parse(machine.run({"sessions", "--json"}).out)
      .at("Sessions")
      .as_array()
      .size();
}

}  // namespace

TEST_CASE("the lock of a session is in its sandbox's directory, and shared", "[D4][D5][D6]") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  auto lock = lock_of(machine, id).string();
  auto first = hold(machine);
  auto second = machine.start({"exec", "--", "true"});
  REQUIRE(eventually([&] { return session_count(machine) == 2; }));
  CHECK(fs::exists(lock));
  CHECK(machine.run_program({"flock", "-n", "-s", lock, "true"}).status == 0);
  CHECK(machine.run_program({"flock", "-n", "-x", lock, "true"}).status == 1);
  first.signal(SIGINT);
  first.wait();
  CHECK(second.wait().status == 0);
  REQUIRE(eventually([&] { return !held(lock); }));
  CHECK(machine.run_program({"flock", "-n", "-x", lock, "true"}).status == 0);
}

TEST_CASE("a sandbox is active until the last of its sessions ends", "[D7]") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  auto first = hold(machine);
  auto second = machine.start({"exec", "--", "sh", "-c", "echo ready; exec sleep 600"});
  REQUIRE(eventually([&] { return session_count(machine) == 2; }));
  first.signal(SIGINT);
  first.wait();
  REQUIRE(second.out_has("ready"));
  CHECK(status_of(machine, id) == "active");
  machine.run({"prune", "--all", "--force"});
  CHECK(fs::exists(directory(machine, id) / "workspace/f"));
  second.signal(SIGINT);
  second.wait();
  REQUIRE(eventually([&] { return status_of(machine, id).empty(); }));
  CHECK(machine.run({"prune", "--all", "--force"}).status == 0);
  CHECK_FALSE(fs::exists(directory(machine, id)));
}

TEST_CASE("a session's lock is free when the session exits, crashes or is signalled",
          "[D8][D9][D10]") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  auto lock = lock_of(machine, id);
  auto own = machine.state() / "sessions" / (id + ".lock");
  CHECK(machine.exec("true").status == 0);
  CHECK(eventually([&] { return status_of(machine, id).empty(); }));
  for (int number : {SIGKILL, SIGTERM, SIGINT, SIGHUP}) {
    INFO(number);
    auto running = hold(machine);
    CHECK(status_of(machine, id) == "active");
    CHECK(held(own));
    running.signal(number);
    running.wait();
    CHECK_FALSE(held(own));
    CHECK(eventually([&] { return status_of(machine, id).empty() && !held(lock); }));
  }
}

// In isolation a command cannot see the lock.
TEST_CASE("the lock is held from before the workload to its end", "[D11][D21][none]") {
  Machine machine;
  machine.make_repository();
  machine.run({"start"});  // the agent runs from now on
  machine.run({"stop"});
  // A fresh project: the first thing that the workload does is to look at its lock from inside.
  auto running = machine.start(
      {"exec", "--", "sh", "-c",
       "flock -n -x ../.lock true && echo free || echo held; echo ready; exec sleep 600"});
  REQUIRE(running.out_has("ready"));
  CHECK(running.out().find("held") != std::string::npos);
  std::string id;
  for (const auto& entry : fs::directory_iterator(machine.state() / "agent/sandboxes")) {
    id = entry.path().filename();
  }
  auto lock = lock_of(machine, id).string();
  CHECK(status_of(machine, id) == "active");
  int free = 0;
  for (int i = 0; i < 20; ++i) {
    free += machine.run_program({"flock", "-n", "-x", lock, "true"}).status == 0 ? 1 : 0;
    ::poll(nullptr, 0, 20);
  }
  CHECK(free == 0);
  running.signal(SIGINT);
  running.wait();
  CHECK(eventually([&] { return !held(lock); }));
}

TEST_CASE(
    "the status of a running sandbox is active, of an idle one empty, of one without a lock "
    "file empty, too",
    "[D12][D16]") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  CHECK(status_of(machine, id).empty());
  auto running = hold(machine);
  CHECK(status_of(machine, id) == "active");
  running.signal(SIGINT);
  running.wait();
  REQUIRE(eventually([&] { return status_of(machine, id).empty(); }));
  fs::remove(lock_of(machine, id));
  CHECK(status_of(machine, id).empty());
  CHECK_FALSE(fs::exists(lock_of(machine, id)));
}

TEST_CASE("orphaned stands before active", "[D13]") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  auto running = hold(machine);
  How elsewhere;
  elsewhere.directory = machine.root();
  fs::rename(machine.project(), machine.root() / "moved");
  CHECK(status_of(machine, id) == "orphaned, active");
  auto list = boost::json::parse(machine.run({"list", "--json"}, elsewhere).out);
  CHECK(list.at("Sandboxes").at(0).at("Orphaned") == true);
  fs::rename(machine.root() / "moved", machine.project());
  CHECK(status_of(machine, id) == "active");
  running.signal(SIGINT);
  running.wait();
}

TEST_CASE("whether a sandbox is active is asked each time and stands in no file", "[D17]") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  auto active = [&] {
    auto list = boost::json::parse(machine.run({"list", "--json"}).out);
    return list.at("Sandboxes").at(0).at("Active").as_bool();
  };
  auto running = hold(machine);
  CHECK(active());
  for (const auto& file :
       {directory(machine, id) / "metadata.json", machine.state() / "sandboxes.json"}) {
    INFO(file);
    CHECK_FALSE(file_text(file).empty());
    CHECK(file_text(file).find("ctive") == std::string::npos);
  }
  running.signal(SIGINT);
  running.wait();
  CHECK(eventually([&] { return !active(); }));
}

TEST_CASE("asking disturbs nobody who starts", "[D18]") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  std::string sandbox = SANDBOX_BIN_DIR "/sandbox";
  auto lister = machine.start_program(
      {"sh", "-c",
       "i=0; while [ $i -lt 200 ]; do i=$((i+1)); " + sandbox +
           " list --no-size >/dev/null || exit 1; flock -n -x " + lock_of(machine, id).string() +
           " true; flock -n -x " + (machine.state() / "sessions" / (id + ".lock")).string() +
           " true; done; echo done"});
  int started = 0;
  for (int i = 0; i < 20; ++i) {
    auto ended = machine.exec("echo here");
    INFO(ended.err);
    CHECK(ended.err.empty());
    started += ended.status == 0 && ended.out == "here\n" ? 1 : 0;
  }
  CHECK(started == 20);
  auto ended = lister.wait(std::chrono::seconds(200));
  CHECK(ended.out == "done\n");
}

TEST_CASE("without its session lock nothing runs, and the error says so", "[D19]") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  for (const auto& lock : {lock_of(machine, id), machine.state() / "sessions" / (id + ".lock")}) {
    INFO(lock);
    REQUIRE(eventually([&] { return !held(lock); }));
    fs::remove(lock);
    fs::create_directory(lock);
    auto ended = machine.exec("touch ran");
    CHECK(ended.status == 255);
    CHECK(ended.err.find("session lock") != std::string::npos);
    fs::remove(lock);
    CHECK_FALSE(fs::exists(machine.project() / "ran"));
    CHECK_FALSE(fs::exists(directory(machine, id) / "workspace/ran"));
  }
  CHECK(machine.exec("true").status == 0);
}

TEST_CASE("session locks are the same in every isolation", "[D20]") {
  for (const char* isolation : {"none", "bwrap"}) {
    INFO(isolation);
    Machine machine;
    machine.environment["SANDBOX_ISOLATION"] = isolation;
    machine.make_repository();
    auto made = machine.run({"start", "--json"});
    if (made.status != 0) {
      WARN("skipped: no isolation here: " << made.out << made.err);
      continue;
    }
    std::string id(boost::json::parse(made.out).at("RunID").as_string());
    auto metadata = boost::json::parse(file_text(directory(machine, id) / "metadata.json"));
    REQUIRE(metadata.at("isolation") == isolation);
    auto kept = [&](const char* status) {
      CHECK(status_of(machine, id) == status);
      machine.run({"prune", "--all", "--force"});
      CHECK(fs::exists(directory(machine, id) / "workspace/f"));
      auto lock = lock_of(machine, id).string();
      CHECK(machine.run_program({"flock", "-n", "-x", lock, "true"}).status == 1);
    };
    auto running = hold(machine);
    kept("active");
    running.signal(SIGINT);
    running.wait();
    REQUIRE(eventually([&] { return status_of(machine, id).empty(); }));
    // A job whose client is gone: its supervisor alone holds the lock, and sessions none.
    auto detached = machine.run({"exec", "--detach", "--", "sleep", "600"});
    REQUIRE(detached.status == 0);
    REQUIRE(eventually([&] { return session_count(machine) == 0; }));
    kept("active, detached");
    CHECK(machine.run({"kill", detached.out.substr(0, 32)}).status == 0);
    CHECK(eventually([&] { return status_of(machine, id).empty(); }));
    machine.run({"prune", "--all", "--force"});
    CHECK_FALSE(fs::exists(directory(machine, id)));
  }
}

// In isolation its pid is another one.
TEST_CASE("what a command leaves behind holds no session", "[D22][X17][none]") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  auto left = machine.exec(
      "setsid sh -c 'echo $$ > ~/pid; exec sleep 600' >/dev/null 2>&1 </dev/null & "
      "until test -s ~/pid; do sleep 0.01; done; cat ~/pid");
  CHECK(left.status == 0);
  pid_t pid = static_cast<pid_t>(std::stol(left.out));
  REQUIRE(::kill(pid, 0) == 0);
  for (const auto& entry : fs::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    std::error_code error;
    auto target = fs::read_symlink(entry.path(), error).string();
    INFO(target);
    CHECK(target.find("lock") == std::string::npos);
  }
  CHECK(eventually([&] { return !held(lock_of(machine, id)); }));
  CHECK(status_of(machine, id).empty());
  CHECK(::kill(pid, 0) == 0);
}

TEST_CASE("sessions shows who is attached, and a dead one's record goes", "[X9]") {
  Machine machine;
  machine.make_repository();
  CHECK(machine.run({"sessions"}).out == "No sessions.\n");
  CHECK(machine.run({"sessions", "--json"}).out == "{\"Sessions\":[]}\n");
  CHECK(machine.agent_pid() == 0);
  auto id = start(machine);
  auto running = hold(machine);
  auto all = boost::json::parse(machine.run({"sessions", "--json"}).out).at("Sessions").as_array();
  REQUIRE(all.size() == 1);
  CHECK(std::string(all[0].at("RunID").as_string()) == id);
  CHECK(all[0].at("User") == "tester");
  CHECK(all[0].at("Verb") == "exec");
  CHECK(all[0].at("State") == "running");
  CHECK(std::string(all[0].at("Command").as_string()).find("sleep 600") != std::string::npos);
  auto shown = machine.run({"sessions"}).out;
  CHECK(shown.find(id) != std::string::npos);
  CHECK(shown.find("sleep 600") != std::string::npos);
  running.signal(SIGKILL);
  running.wait();
  CHECK(eventually([&] { return machine.run({"sessions"}).out == "No sessions.\n"; }));
  std::size_t records = 0;
  for (const auto& entry : fs::directory_iterator(machine.state() / "sessions")) {
    records += entry.path().extension() == ".session" ? 1 : 0;
  }
  CHECK(records == 0);
}

TEST_CASE("of a box that is away, sessions shows what runs here") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  auto running = hold(machine);
  ::kill(machine.agent_pid(), SIGSTOP);  // it neither answers nor hangs up
  auto text = file_text(machine.state() / "agent/agent.json");
  fs::rename(machine.state() / "agent/agent.json", machine.state() / "agent/hidden.json");
  auto all = boost::json::parse(machine.run({"sessions", "--json"}).out).at("Sessions").as_array();
  REQUIRE(all.size() == 1);
  CHECK(std::string(all[0].at("RunID").as_string()) == id);
  CHECK(all[0].at("PID") == running.pid());
  fs::rename(machine.state() / "agent/hidden.json", machine.state() / "agent/agent.json");
  ::kill(machine.agent_pid(), SIGCONT);
  running.signal(SIGINT);
  running.wait();
}

TEST_CASE("stop and reset are refused while somebody's command runs, naming who and what") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  auto running = hold(machine);
  for (test::Words words :
       {test::Words{"stop"}, test::Words{"reset"}, test::Words{"exec", "--reset", "--", "true"}}) {
    INFO(words[0]);
    auto refused = machine.run(words);
    CHECK(refused.status == 75);
    CHECK(refused.err.find("tester") != std::string::npos);
    CHECK(refused.err.find("sleep 600") != std::string::npos);
  }
  CHECK(status_of(machine, id) == "active");
  CHECK(machine.run({"stop", "--force"}).status == 0);
  CHECK(running.wait(std::chrono::seconds(30)).status == 255);
}

TEST_CASE("a reset waits in line with --wait, and names whom it waits for") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  auto running = hold(machine);
  auto told = machine.start({"reset", "--wait"});
  REQUIRE(told.err_has("held by tester: exec `sh -c"));
  auto resetting = machine.start({"reset", "--wait", "--json"});  // behind the first
  CHECK(status_of(machine, id) == "active");
  told.signal(SIGINT);
  CHECK(told.wait().status == 130);
  running.signal(SIGINT);
  CHECK(running.wait().status == 130);
  auto reset = resetting.wait();
  CHECK(reset.status == 0);
  CHECK(boost::json::parse(reset.out).at("OldRunID") == boost::json::string(id));
}

TEST_CASE("stop and reset are refused while a stock client's command runs, which needs no lock") {
  if (std::system("command -v ssh > /dev/null") != 0) return;
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  write_text(machine.root() / "ssh_config", machine.run({"ssh-config", "--host", "here"}).out);
  auto ssh = machine.start_program({"ssh", "-F", (machine.root() / "ssh_config").string(), "-o",
                                    "BatchMode=yes", "here", "echo ready; exec sleep 600"});
  REQUIRE(ssh.out_has("ready"));
  for (const test::Words& words :
       {test::Words{"stop"}, test::Words{"reset"}, test::Words{"exec", "--reset", "--", "true"}}) {
    INFO(words[0]);
    auto refused = machine.run(words);
    CHECK(refused.status == 75);
    CHECK(refused.err.find("in progress by tester") != std::string::npos);
    CHECK(refused.err.find("sleep 600") != std::string::npos);
    CHECK(refused.err.find("With --force") != std::string::npos);
  }
  auto sessions = machine.run({"sessions"}).out;
  CHECK(sessions.find("sleep 600") != std::string::npos);
  CHECK(machine.run({"prune", "--all", "--force"}).out == "No sandbox to remove.\n");
  CHECK(machine.run({"reset", "--force"}).status == 0);
  CHECK(ssh.wait(std::chrono::seconds(20)).status != 0);
}

TEST_CASE("lock files are not followed through links", "[X17]") {
  Machine machine;
  machine.make_repository();
  auto id = start(machine);
  auto own = machine.state() / "sessions" / (id + ".lock");
  REQUIRE(eventually([&] { return !held(own) && !held(lock_of(machine, id)); }));
  for (const auto& lock : {own, lock_of(machine, id)}) {
    INFO(lock);
    fs::remove(lock);
    fs::create_symlink(machine.root() / "planted", lock);
    CHECK(machine.exec("touch ran").status == 255);
    CHECK_FALSE(fs::exists(machine.root() / "planted"));
    CHECK_FALSE(fs::exists(directory(machine, id) / "workspace/ran"));
    fs::remove(lock);
  }
  CHECK(machine.exec("true").status == 0);
}

TEST_CASE("commands killed with -9 at any moment tear no file", "[X17]") {
  Machine machine;
  machine.make_repository();
  start(machine);
  for (int moment : {1, 5, 10, 20, 30, 40, 50, 70}) {
    for (const char* verb : {"start", "list", "status"}) {
      auto victim = machine.start({verb});
      ::poll(nullptr, 0, moment);
      victim.signal(SIGKILL);
      victim.wait();
      boost::system::error_code error;
      boost::json::parse(file_text(machine.state() / "sandboxes.json"), error);
      CHECK_FALSE(error);
    }
  }
  CHECK(machine.exec("true").status == 0);
}
