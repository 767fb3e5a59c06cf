// What goes wrong around the CLI: damaged and unwritable files, boxes that are not there, odd
// environments.
#include <signal.h>
#include <unistd.h>

#include <boost/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/places.h"
#include "tests/support/system.h"
#include "tests/support/unprivileged.h"

namespace fs = std::filesystem;
using test::file_text;
using test::How;
using test::Machine;
using test::write_text;

TEST_CASE(
    "a damaged storage file is kept beside a fresh one, and the sandbox it knew of is used again") {
  Machine machine;
  machine.make_repository();
  machine.exec("echo kept > only-there; echo only-there >> .gitignore");
  std::string before = machine.run({"list", "--json", "--no-size"}).out;
  write_text(machine.state() / "sandboxes.json", "{ damaged");
  auto ended = machine.exec("cat only-there");
  CHECK(ended.status == 0);
  CHECK(ended.out == "kept\n");
  CHECK(ended.err.find("sandboxes.json.damaged-1") != std::string::npos);
  CHECK(ended.err.find("still has the sandbox of this project") != std::string::npos);
  CHECK(file_text(machine.state() / "sandboxes.json.damaged-1") == "{ damaged");
  auto list = boost::json::parse(machine.run({"list", "--json"}).out).at("Sandboxes").as_array();
  REQUIRE(list.size() == 1);
  CHECK(list[0].at("OnRecord").as_bool());
  CHECK(before.find(std::string(list[0].at("RunID").as_string())) != std::string::npos);
  auto again = machine.exec("true");
  CHECK(again.err.find("still has") == std::string::npos);
}

TEST_CASE("with --json the answer says where a damaged storage file is kept") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  write_text(machine.state() / "sandboxes.json", "{ damaged");
  auto ended = machine.run({"exec", "--json", "--", "true"});
  CHECK(ended.status == 0);
  auto answer = boost::json::parse(ended.out).as_object();
  REQUIRE(answer.contains("Warnings"));
  CHECK(boost::json::serialize(answer["Warnings"]).find("sandboxes.json.damaged-1") !=
        std::string::npos);
}

TEST_CASE("what a damaged storage knew of other projects can be found and stopped") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  write_text(machine.state() / "sandboxes.json", "{ damaged");
  // Another branch is another sandbox: it does not take this one's.
  machine.git({"checkout", "-q", "-b", "other"});
  auto ended = machine.exec("true");
  CHECK(ended.err.find("still has") == std::string::npos);
  auto list = boost::json::parse(machine.run({"list", "--json"}).out).at("Sandboxes").as_array();
  REQUIRE(list.size() == 2);
  auto& lost = list[0].at("OnRecord").as_bool() ? list[1] : list[0];
  CHECK(machine.run({"stop", "--id", std::string(lost.at("RunID").as_string())}).status == 0);
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
}

TEST_CASE("a storage file of a newer version is an error and stays") {
  Machine machine;
  machine.make_repository();
  write_text(machine.state() / "sandboxes.json", "{\"version\":99}");
  ::chmod(machine.state().c_str(), 0700);
  auto ended = machine.exec("true");
  CHECK(ended.status == 255);
  CHECK(ended.err.find("newer") != std::string::npos);
  CHECK(file_text(machine.state() / "sandboxes.json") == "{\"version\":99}");
}

TEST_CASE("commands wait for the storage's lock, and say so") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto holder =
      machine.start_program({"flock", "-x", (machine.state() / "sandboxes.json.lock").string(),
                             "sh", "-c", "echo held; sleep 2"});
  REQUIRE(holder.out_has("held"));
  for (const char* command : {"list", "start", "status"}) {
    INFO(command);
    auto ended = machine.start({command}).wait();
    CHECK(ended.status == 0);
    if (std::string(command) == "list") {
      CHECK(ended.err.find("waiting for another sandbox command") == 0);
    }
  }
  holder.wait();
}

TEST_CASE("neither lock is held while a command runs") {
  Machine machine;
  machine.make_repository();
  auto running = machine.start({"exec", "--", "sh", "-c", "echo ready; sleep 600"});
  REQUIRE(running.out_has("ready"));
  CHECK(
      machine
          .run_program({"flock", "-n", (machine.state() / "sandboxes.json.lock").string(), "true"})
          .status == 0);
  for (const auto& lock : fs::directory_iterator(machine.state() / "starters")) {
    CHECK(machine.run_program({"flock", "-n", lock.path().string(), "true"}).status == 0);
  }
  running.signal(SIGINT);
  running.wait();
}

TEST_CASE("a box that cannot be reached deletes nothing") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  // As if the sandbox were on a box that is switched off.
  std::string text = file_text(machine.state() / "sandboxes.json");
  auto value = boost::json::parse(text);
  auto& entry = value.at("sandboxes").at(0).as_object();
  std::string id(entry.at("id").as_string());
  entry["box"] = "127.0.0.1:1";
  entry.erase("machine");
  write_text(machine.state() / "sandboxes.json", boost::json::serialize(value));
  for (const test::Words& words :
       {test::Words{"exec", "--box", "127.0.0.1:1", "--", "true"},
        test::Words{"stop", "--box", "127.0.0.1:1"}, test::Words{"push", "--box", "127.0.0.1:1"},
        test::Words{"reset", "--box", "127.0.0.1:1"}, test::Words{"stop", "--id", id},
        test::Words{"list", "--box", "127.0.0.1:1"}}) {
    INFO(words[0]);
    auto ended = machine.run(words);
    CHECK(ended.status == 255);
    CHECK(ended.err.find("127.0.0.1:1") != std::string::npos);
    CHECK(file_text(machine.state() / "sandboxes.json").find(id) != std::string::npos);
  }
  auto list = boost::json::parse(machine.run({"list", "--all", "--json"}).out);
  bool listed = false;
  for (const auto& one : list.at("Sandboxes").as_array()) {
    if (one.at("Box") == "127.0.0.1:1") {
      listed = true;
      CHECK(one.at("Status") == "unreachable");
    }
  }
  CHECK(listed);
  auto asked = machine.run({"list", "--box", "127.0.0.1:1", "--json"});
  CHECK(asked.status == 255);
  CHECK(boost::json::parse(asked.out).at("Error").at("Origin") == "box");
  auto forced = machine.run({"stop", "--id", id, "--force"});
  CHECK(forced.status == 0);
  CHECK(forced.err.find("forgotten") != std::string::npos);
  CHECK(file_text(machine.state() / "sandboxes.json").find(id) == std::string::npos);
}

TEST_CASE("another agent in the box's place deletes nothing") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  std::string before = file_text(machine.state() / "sandboxes.json");
  auto value = boost::json::parse(before);
  std::string id(value.at("sandboxes").at(0).at("id").as_string());
  machine.run_program({"kill", std::to_string(machine.agent_pid())});
  REQUIRE(test::eventually([&] { return machine.agent_pid() == 0; }));
  // The supervisor of the old agent's sandbox goes with its directory.
  for (const auto& sandbox : fs::directory_iterator(machine.state() / "agent/sandboxes")) {
    auto supervisor = boost::json::parse(file_text(sandbox.path() / "supervisor.json"));
    ::kill(static_cast<pid_t>(supervisor.at("pid").as_int64()), SIGKILL);
  }
  REQUIRE(test::eventually([&] {
    std::error_code error;
    fs::remove_all(machine.state() / "agent",
                   error);  // the old agent may still be closing its files
    return !fs::exists(machine.state() / "agent");
  }));
  auto ended = machine.exec("true");
  CHECK(ended.status == 255);
  CHECK(ended.err.find("another agent") != std::string::npos);
  CHECK(file_text(machine.state() / "sandboxes.json").find(id) != std::string::npos);
  CHECK(machine.run({"stop", "--force", "--id", id}).status == 0);
  CHECK(machine.exec("true").status == 0);
}

TEST_CASE("a sandbox that its agent no longer has is made anew") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  std::string before = file_text(machine.state() / "sandboxes.json");
  machine.run({"stop"});
  write_text(machine.state() / "sandboxes.json", before);
  auto ended = machine.exec("echo again");
  CHECK(ended.status == 0);
  CHECK(ended.out == "again\n");
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
}

TEST_CASE("an agent that was killed with -9 is started again, and its sandbox is still there") {
  Machine machine;
  machine.make_repository();
  machine.exec("echo x > ignored-by-nobody");
  auto id = machine.run({"start", "--json"}).out;
  ::kill(machine.agent_pid(), SIGKILL);
  REQUIRE(test::eventually([&] { return machine.agent_pid() == 0; }));
  auto ended = machine.exec("cat ignored-by-nobody");
  INFO(ended.err);
  CHECK(ended.status == 0);
  CHECK(ended.out == "x\n");
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
}

TEST_CASE("another host key than the pinned one is refused") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto address = std::string(boost::json::parse(file_text(machine.state() / "agent/agent.json"))
                                 .at("Address")
                                 .as_string());
  auto first = machine.run({"exec", "--box", address, "--", "echo", "remote"});
  INFO(first.err);
  CHECK(first.status == 0);
  CHECK(first.err.find("host key is kept") != std::string::npos);
  std::string boxes = file_text(machine.config() / "boxes.json");
  CHECK(boxes.find(address) != std::string::npos);
  auto second = machine.run({"exec", "--box", address, "--", "true"});
  CHECK(second.err.empty());
  auto key = boxes.find("AAAAC3NzaC1lZDI1NTE5AAAAI");
  REQUIRE(key != std::string::npos);
  boxes[key + 30] = boxes[key + 30] == 'A' ? 'B' : 'A';
  write_text(machine.config() / "boxes.json", boxes);
  auto changed = machine.run({"exec", "--box", address, "--", "true"});
  CHECK(changed.status == 255);
  CHECK(changed.err.find("another host key") != std::string::npos);
  write_text(machine.config() / "boxes.json", "[]");
  CHECK(machine.run({"exec", "--box", address, "--", "true"}).err.find("boxes.json") !=
        std::string::npos);
  write_text(machine.config() / "boxes.json",
             "{\"version\":1,\"boxes\":{\"rig\":{\"address\":\"" + address + "\"}}}");
  CHECK(machine.run({"exec", "--box", "rig", "--", "echo", "named"}).out == "named\n");
  CHECK(machine.run({"exec", "--box", "unknown", "--", "true"}).status == 2);
}

TEST_CASE("without HOME the password database is asked") {
  Machine machine;
  machine.make_repository();
  How how;
  how.environment = {{"HOME", ""}};
  CHECK(machine.exec("echo x", how).out == "x\n");
}

TEST_CASE("a state directory that cannot be written is named") {
  Machine machine;
  test::Unprivileged unprivileged;
  machine.make_repository();
  fs::create_directories(machine.root() / "locked");
  fs::permissions(machine.root() / "locked", fs::perms::owner_read | fs::perms::owner_exec);
  How how;
  how.environment = {{"SANDBOX_STATE_DIR", (machine.root() / "locked/state").string()}};
  auto ended = machine.exec("true", how);
  CHECK(ended.status == 255);
  CHECK(ended.err.find("locked") != std::string::npos);
}

TEST_CASE("what cannot be written here is named by every pull until it is here") {
  Machine machine;
  test::Unprivileged unprivileged;
  machine.make_repository();
  fs::path closed = machine.project() / "closed";
  write_text(closed / "old", "old\n");
  fs::permissions(closed, fs::perms::owner_read | fs::perms::owner_exec);
  auto ended = machine.exec("echo new > closed/new");
  CHECK(ended.status == 254);
  CHECK(ended.err.find("not brought back: closed/new") != std::string::npos);
  for (int round = 0; round < 2; ++round) {
    auto pulled = machine.run({"pull"});
    CHECK(pulled.status == 254);
    CHECK(pulled.err.find("not brought back: closed/new") != std::string::npos);
    CHECK(pulled.out.find("No changes") == std::string::npos);
  }
  auto answer = boost::json::parse(machine.run({"pull", "--json"}).out);
  CHECK(answer.at("Complete") == false);
  CHECK(answer.at("Refused").at(0).at("Path") == "closed/new");
  fs::permissions(closed, fs::perms::owner_all);
  auto home = machine.run({"pull"});
  CHECK(home.status == 0);
  CHECK(home.out.find("closed/new") != std::string::npos);
  CHECK(file_text(closed / "new") == "new\n");
  CHECK(machine.run({"pull"}).out == "No changes to pull from sandbox.\n");
}

TEST_CASE("a state directory that is a file is named") {
  Machine machine;
  machine.make_repository();
  write_text(machine.root() / "file", "");
  How how;
  how.environment = {{"SANDBOX_STATE_DIR", (machine.root() / "file/state").string()}};
  auto ended = machine.exec("true", how);
  CHECK(ended.status == 255);
  CHECK(ended.err.find((machine.root() / "file").string()) != std::string::npos);
  how.environment = {{"SANDBOX_STATE_DIR", "relative"}};
  CHECK(machine.exec("true", how).status == 2);
}

TEST_CASE("a current directory that was deleted is named") {
  Machine machine;
  auto ended = machine.run_program(
      {"sh", "-c",
       "mkdir gone && cd gone && rmdir ../gone && exec " SANDBOX_BIN_DIR "/sandbox exec -- true"});
  CHECK(ended.status == 255);
  CHECK(ended.err.find("current directory") != std::string::npos);
  CHECK(machine
            .run_program({"sh", "-c",
                          "mkdir gone && cd gone && rmdir ../gone && exec " SANDBOX_BIN_DIR
                          "/sandbox version"})
            .status == 0);
}

TEST_CASE("without git on PATH the error names it") {
  Machine machine;
  fs::create_directories(machine.root() / "bin");
  How how;
  how.environment = {{"PATH", (machine.root() / "bin").string()}};
  auto ended = machine.run({"exec", "--", "true"}, how);
  CHECK(ended.status == 255);
  CHECK(ended.err.find("git") != std::string::npos);
}

TEST_CASE("stdout that is full or closed is an error of the commands that answer there") {
  Machine machine;
  auto full = machine.run_program({"sh", "-c", SANDBOX_BIN_DIR "/sandbox key > /dev/full"});
  CHECK(full.status == 255);
  CHECK(full.err.find("stdout") != std::string::npos);
  CHECK(machine.run_program({"sh", "-c", SANDBOX_BIN_DIR "/sandbox key >&-"}).status == 255);
}

TEST_CASE("a huge environment of ours is no matter, a huge command is refused") {
  Machine machine;
  machine.make_repository();
  How how;
  for (int i = 0; i < 10; ++i)
    how.environment["BIG" + std::to_string(i)] = std::string(100000, 'x');
  CHECK(machine.exec("echo fine", how).out == "fine\n");
  test::Words words = {"exec"};
  for (int i = 0; i < 12; ++i) {
    words.push_back("-e");
    words.push_back("V" + std::to_string(i) + "=" + std::string(100000, 'y'));
  }
  words.insert(words.end(), {"--", "true"});
  auto ended = machine.run(words);
  CHECK(ended.status == 2);
  CHECK(ended.err.find("too large") != std::string::npos);
}

TEST_CASE("the same command inside a git hook sees the repository, not the hook's variables") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / ".git/hooks/pre-commit",
             "#!/bin/sh\nexec " SANDBOX_BIN_DIR "/sandbox exec -- cat f\n");
  fs::permissions(machine.project() / ".git/hooks/pre-commit", fs::perms::owner_all);
  write_text(machine.project() / "f", "committed\nstaged\n");
  auto commit = machine.git({"commit", "-q", "-a", "-m", "two"});
  INFO(commit.err);
  CHECK(commit.status == 0);
  CHECK(commit.out.find("staged") + commit.err.find("staged") != 2 * std::string::npos);
}
