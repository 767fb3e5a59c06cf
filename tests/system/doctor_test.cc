// sandbox doctor, with the real programs.
#include <sys/stat.h>

#include <boost/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/system.h"

namespace fs = std::filesystem;
using test::Ended;
using test::How;
using test::Machine;
using test::write_text;

namespace {

struct Check {
  std::string status, detail, fix;
};

Check check(Machine& machine, const std::string& name, int wanted_status,
            const test::Words& more = {}, const How& how = {}) {
  test::Words words = {"doctor", "--json"};
  words.insert(words.end(), more.begin(), more.end());
  auto ended = machine.run(words, how);
  INFO(ended.out << ended.err);
  CHECK(ended.status == wanted_status);
  auto text = [](const boost::json::value& value) { return std::string(value.as_string()); };
  auto rows = boost::json::parse(ended.out).at("Checks").as_array();
  for (const auto& row : rows) {
    if (text(row.at("Check")) == name) {
      const auto* fix = row.as_object().if_contains("Fix");
      return {text(row.at("Status")), text(row.at("Detail")), fix == nullptr ? "" : text(*fix)};
    }
  }
  return {"none", "", ""};
}

}  // namespace

TEST_CASE("doctor finds nothing in the way on a machine that works, and starts nothing", "[X16]") {
  Machine machine;
  for (const char* name : {"git", "state", "configuration", "storage", "disk space", "key"}) {
    INFO(name);
    CHECK(check(machine, name, 0).status == "ok");
  }
  CHECK(machine.agent_pid() == 0);
  CHECK_FALSE(fs::exists(machine.config() / "id_ed25519"));
  CHECK_FALSE(fs::exists(machine.state()));
  machine.make_repository();
  machine.exec("true");
  CHECK(check(machine, "local agent", 0).detail.find("answers at 127.0.0.1:") == 0);
  CHECK(check(machine, "key", 0).detail.find("SHA256:") == 0);
  CHECK(check(machine, "storage", 0).detail == "1 sandbox on record");
  CHECK(check(machine, "agent program", 0).status == "ok");
  auto shown = machine.run({"doctor"});
  CHECK(shown.status == 0);
  CHECK(shown.out.find("CHECK") == 0);
}

TEST_CASE("what is in the way is an error with a way to mend it, and only that exits with 1",
          "[X16]") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");

  fs::create_directories(machine.root() / "bin");
  How no_git;
  no_git.environment["PATH"] = (machine.root() / "bin").string();
  auto git = check(machine, "git", 1, {}, no_git);
  CHECK(git.status == "error");
  CHECK(git.fix.find("2.39") != std::string::npos);
  CHECK(check(machine, "ssh", 1, {}, no_git).status == "warn");
  CHECK(check(machine, "isolation", 1, {}, no_git).fix.find("bubblewrap") != std::string::npos);
  auto shown = machine.run({"doctor"}, no_git);
  CHECK(shown.status == 1);
  CHECK(shown.out.find("How to fix:\n") != std::string::npos);

  ::chmod((machine.config() / "id_ed25519").c_str(), 0644);
  CHECK(check(machine, "key", 1).fix.find("chmod 600") == 0);
  ::chmod((machine.config() / "id_ed25519").c_str(), 0600);

  ::chmod(machine.state().c_str(), 0755);
  CHECK(check(machine, "state", 0).status == "warn");  // the next command closes it
  ::chmod(machine.state().c_str(), 0700);

  write_text(machine.state() / "sandboxes.json", "{ damaged");
  CHECK(check(machine, "storage", 0).status == "warn");
  CHECK(test::file_text(machine.state() / "sandboxes.json") == "{ damaged");  // it only looks
  write_text(machine.state() / "sandboxes.json", "{\"version\":99}");
  CHECK(check(machine, "storage", 1).status == "error");
  fs::remove(machine.state() / "sandboxes.json");

  fs::rename(machine.config(), machine.root() / "aside");
  write_text(machine.config(), "a file\n");
  CHECK(check(machine, "configuration", 1).status == "error");
  fs::remove(machine.config());
  fs::rename(machine.root() / "aside", machine.config());
  CHECK(machine.run({"doctor"}).status == 0);
}

TEST_CASE("a box that does not answer is a warning, unless it is named; another key is an error") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto key = test::file_text(machine.config() / "id_ed25519.pub");
  key = key.substr(0, key.find(' ', key.find(' ') + 1));
  auto boxes = [&](const std::string& address) {
    write_text(machine.config() / "boxes.json", R"({"version":1,"boxes":{"rig":{"address":")" +
                                                    address + R"(","hostKey":")" + key + R"("}}})");
  };
  boxes("127.0.0.1:1");
  auto away = check(machine, "box rig", 0);
  CHECK(away.status == "warn");
  CHECK(away.detail.find("127.0.0.1:1") != std::string::npos);
  CHECK(check(machine, "box rig", 1, {"--box", "rig"}).status == "error");
  // The local agent's address, with a key that is not the agent's.
  auto agent = boost::json::parse(test::file_text(machine.state() / "agent/agent.json"));
  boxes(std::string(agent.at("Address").as_string()));
  auto other = check(machine, "box rig", 1);
  CHECK(other.status == "error");
  CHECK(other.detail.find("host key") != std::string::npos);
}

TEST_CASE("doctor says what commands are isolated with, here and by an agent", "[X16]") {
  Machine machine;
  machine.environment["SANDBOX_ISOLATION"] = "none";
  machine.exec("true");
  auto none = check(machine, "local agent", 0);
  CHECK(none.status == "warn");
  CHECK(none.detail.find("isolation none") != std::string::npos);
  CHECK(none.detail.find("limits for each ") != std::string::npos);
  CHECK(none.fix.find("bubblewrap") != std::string::npos);

  // It is tried as an agent does it: one that fails at that alone is found.
  auto bin = machine.root() / "bin";
  write_text(bin / "bwrap",
             "#!/bin/sh\ncase \"$*\" in *--as-pid-1*) echo not as the first >&2; exit 1;; esac\n");
  fs::permissions(bin / "bwrap", fs::perms::owner_all);
  How broken;
  broken.environment["PATH"] = bin.string() + ":" + machine.environment["PATH"];
  auto tried = check(machine, "isolation", 0, {}, broken);
  CHECK(tried.status == "warn");
  CHECK(tried.detail.find("not as the first") != std::string::npos);

  Machine isolated;
  isolated.environment["SANDBOX_ISOLATION"] = "bwrap";
  if (isolated.exec("true").status != 0) {
    WARN("skipped: no isolation here");
    return;
  }
  CHECK(check(isolated, "isolation", 0).status == "ok");
  auto bwrap = check(isolated, "local agent", 0);
  CHECK(bwrap.status == "ok");
  CHECK(bwrap.detail.find("isolation bwrap") != std::string::npos);
}
