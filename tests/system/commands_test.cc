// The other commands, with the real programs.
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>

#include <boost/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/shared_box.h"
#include "tests/support/system.h"

namespace fs = std::filesystem;
using test::Ended;
using test::file_text;
using test::How;
using test::Machine;
using test::write_text;

namespace {

boost::json::value json(const Ended& ended) {
  INFO(ended.out << ended.err);
  return boost::json::parse(ended.out);
}

std::string text(const boost::json::value& value) { return std::string(value.as_string()); }

}  // namespace

TEST_CASE("commands with nothing to show say so") {
  Machine machine;
  machine.make_repository();
  CHECK(machine.run({"list"}).out == "No sandboxes found.\n");
  CHECK(machine.run({"list", "--json"}).out == "{\"Sandboxes\":[]}\n");
  CHECK(machine.run({"status"}).out.find("No sandbox for ") == 0);
  CHECK(text(json(machine.run({"status", "--json"})).at("Status")) == "none");
  CHECK(machine.run({"stop"}).out == "No sandbox to stop.\n");
  CHECK(machine.run({"stop", "--json"}).out == "{\"Stopped\":[]}\n");
  CHECK(machine.run({"stop", "--all"}).status == 0);
  auto push = machine.run({"push"});
  CHECK(push.status == 255);
  CHECK(push.err.find("sandbox start") != std::string::npos);
  CHECK(machine.agent_pid() == 0);  // nobody had to be started for that
}

TEST_CASE("help goes to stdout, misuse to stderr with 2") {
  Machine machine;
  auto help = machine.run({"--help"});
  CHECK(help.status == 0);
  CHECK(help.out.find("exec") != std::string::npos);
  CHECK(help.err.empty());
  CHECK(machine.run({"exec", "-h"}).out.find("--wait") != std::string::npos);
  auto none = machine.run({});
  CHECK(none.status == 2);
  CHECK(none.out.empty());
  CHECK(machine.run({"frobnicate"}).status == 2);
  CHECK(machine.run({"exec", "make"}).status == 2);
  CHECK(machine.run({"--version"}).out.find("sandbox ") == 0);
  CHECK(json(machine.run({"version", "--json"})).at("Protocol") == 1);
}

TEST_CASE("what came into a sandbox by itself keeps it, and comes here as the refusal says") {
  if (std::system("command -v ssh > /dev/null") != 0) return;
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  write_text(machine.root() / "ssh_config", machine.run({"ssh-config", "--host", "here"}).out);
  CHECK(machine
            .run_program({"ssh", "-F", (machine.root() / "ssh_config").string(), "-o",
                          "BatchMode=yes", "here", "echo precious > made-there"})
            .status == 0);
  auto kept = machine.run({"stop"});
  CHECK(kept.status == 255);
  CHECK(kept.err.find("made-there") != std::string::npos);
  CHECK(kept.err.find("`sandbox push` in its project") != std::string::npos);
  CHECK(machine.run({"push"}).status == 0);
  CHECK(test::file_text(machine.project() / "made-there") == "precious\n");
  CHECK(machine.run({"stop"}).status == 0);
}

TEST_CASE("a home directory that is no repository is not taken for a project") {
  Machine machine;
  machine.make_repository();
  auto refused = machine.run({"exec", "--dir", machine.home().string(), "--", "true"});
  CHECK(refused.status == 2);
  CHECK(refused.err.find("is your home directory, and no git repository") != std::string::npos);
  CHECK(machine.run({"start", "--dir", "/"}).status == 2);
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 0);
  machine.git({"init", "-q", machine.home().string()});
  CHECK(machine.run({"exec", "--dir", machine.home().string(), "--", "true"}).status == 0);
}

TEST_CASE(
    "the format json is what --json asks for, wherever it stands, and errors are told in it") {
  Machine machine;
  machine.make_repository();
  CHECK(machine.run({"--format", "json", "list"}).out == "{\"Sandboxes\":[]}\n");
  CHECK(machine.run({"list", "--format=json"}).out == "{\"Sandboxes\":[]}\n");
  CHECK(machine.run({"list", "--format", "text"}).out.find('{') == std::string::npos);
  CHECK(json(machine.run({"list", "--format=json", "--sort", "no-such"}))
            .as_object()
            .contains("Error"));
  for (test::Words wrong : {test::Words{"list", "--format", "xml"},
                            test::Words{"list", "--json", "--format", "text"}}) {
    auto refused = machine.run(wrong);
    CHECK(refused.status == 2);
    CHECK((refused.out + refused.err).find("--format") != std::string::npos);
  }
}

TEST_CASE("start makes one, says when there is one, and asks nothing") {
  Machine machine;
  machine.make_repository();
  auto first = json(machine.run({"start", "--json"}));
  CHECK(first.at("Created") == true);
  auto second = json(machine.run({"start", "--json"}));
  CHECK(second.at("Created") == false);
  CHECK(first.at("RunID") == second.at("RunID"));
  CHECK(second.at("RunURL") == first.at("RunURL"));
  CHECK(machine.run({"start"}).out.find("already running: " + text(first.at("RunID"))) !=
        std::string::npos);
}

TEST_CASE("setup runs once, with env and --init, and its output is shown") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / ".sandbox.yml",
             "setup:\n  - echo setting up $WHO $A\n  - echo once >> setup-ran\nenv:\n  WHO: us\n");
  auto started = machine.run({"start", "--init", "A=1", "--json"});
  CHECK(started.status == 0);
  CHECK(started.err.find("setting up us 1\n") != std::string::npos);
  machine.exec("true");
  CHECK(machine.exec("cat setup-ran").out == "once\n");
  CHECK(file_text(machine.project() / "setup-ran") == "once\n");
  auto again = machine.run({"reset", "--json", "--init", "A=2"});
  CHECK(again.err.find("setting up us 2\n") != std::string::npos);
  auto reset = json(again);
  CHECK(text(reset.at("OldRunID")) == text(boost::json::parse(started.out).at("RunID")));
  CHECK(reset.at("NewRunID") != reset.at("OldRunID"));
  CHECK(machine.exec("cat setup-ran").out == "once\nonce\n");
  auto fresh = machine.run({"exec", "--reset", "--init", "A=3", "--", "cat", "setup-ran"});
  CHECK(fresh.err.find("setting up us 3\n") != std::string::npos);
  CHECK(fresh.out == "once\nonce\nonce\n");
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
}

TEST_CASE("what setup changes here is told, also when it fails") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / "old", "old\n");
  write_text(machine.project() / ".sandbox.yml", "setup: [echo new > new; rm old, exit 4]\n");
  auto failed = machine.run({"start"});
  CHECK(failed.status == 255);
  CHECK(failed.err.find("brought back 1 file: new") != std::string::npos);
  CHECK(failed.err.find("deleted here, too, 1 file: old") != std::string::npos);
  CHECK(failed.err.find("exit 4") != std::string::npos);
}

TEST_CASE("what setup could not bring back here is in the answer, and makes 0 a 254") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / ".sandbox.yml", "setup: ['true', echo 1 > Name; echo 2 > name]\n");
  for (const test::Words& words : {test::Words{"start", "--json"}, test::Words{"reset", "--json"},
                                   test::Words{"exec", "--json", "--reset", "--", "true"}}) {
    auto ended = machine.run(words);
    INFO(words[0] << ": " << ended.out << ended.err);
    CHECK(ended.status == 254);
    auto setup = boost::json::parse(ended.out).at("Setup");
    CHECK(setup.at("Complete") == false);
    CHECK(setup.at("Refused").as_array().size() == 2);
  }
  auto later = json(machine.run({"exec", "--json", "--", "true"}));
  CHECK_FALSE(later.as_object().contains("Setup"));
}

TEST_CASE("a setup that fails ends the start, names the command and leaves nothing") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / ".sandbox.yml",
             "setup:\n  - echo fine\n  - sh -c 'echo broken >&2; exit 4'\n  - touch never\n");
  auto failed = machine.exec("touch ran");
  CHECK(failed.status == 255);
  CHECK(failed.err.find("broken\n") != std::string::npos);
  CHECK(failed.err.find("exit 4'` failed with status 4") != std::string::npos);
  CHECK_FALSE(fs::exists(machine.project() / "ran"));
  CHECK_FALSE(fs::exists(machine.project() / "never"));
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 0);
  write_text(machine.project() / ".sandbox.yml", "setup: echo mended\n");
  CHECK(machine.exec("true").status == 0);
}

TEST_CASE("a starter killed with -9 leaves nobody waiting and one sandbox", "[none]") {
  Machine machine;
  machine.make_repository();
  write_text(
      machine.project() / ".sandbox.yml",
      "setup: test -e " + (machine.root() / "go").string() + " || { echo blocked; sleep 600; }\n");
  auto starter = machine.start({"start"});
  REQUIRE(starter.err_has("blocked"));
  auto waiter = machine.start({"exec", "--json", "--", "true"});
  REQUIRE(test::eventually([&] {
    return machine.run({"list", "--json"}).out.find("starting") != std::string::npos;
  }));
  write_text(machine.root() / "go", "");
  starter.signal(SIGKILL);
  starter.wait();
  auto ended = waiter.wait(std::chrono::seconds(60));
  INFO(ended.out << ended.err);
  CHECK(ended.status == 0);
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
}

TEST_CASE("push sends, pull brings, neither makes a sandbox") {
  Machine machine;
  machine.make_repository();
  auto started = json(machine.run({"start", "--json"}));
  write_text(machine.project() / "pushed", "text\n");
  auto push = machine.run({"push"});
  CHECK(push.status == 0);
  CHECK(push.out == "Pushed local changes to sandbox.\n");
  CHECK(machine.run({"push", "--json"}).out.find(text(started.at("RunID"))) != std::string::npos);
  CHECK(machine.run({"pull"}).out == "No changes to pull from sandbox.\n");
  auto victim =
      machine.start({"exec", "--", "sh", "-c", "echo x > left; echo ready; exec sleep 600"});
  REQUIRE(victim.out_has("ready"));
  victim.signal(SIGKILL);
  victim.wait();
  REQUIRE(test::eventually([&] {
    auto pulled = machine.run({"pull", "--json"});
    return pulled.out.find("\"left\"") != std::string::npos;
  }));
  CHECK(file_text(machine.project() / "left") == "x\n");
}

TEST_CASE("status and list name the sandbox, who uses it and its command") {
  Machine machine;
  machine.make_repository();
  auto running = machine.start({"exec", "--", "sh", "-c", "echo ready; sleep 600"});
  REQUIRE(running.out_has("ready"));
  auto status = json(machine.run({"status", "--json"}));
  CHECK(status.at("Active") == true);
  CHECK(status.at("Holders").at(0).at("User") == "tester");
  CHECK(status.at("Holders").at(0).at("Verb") == "exec");
  CHECK(machine.run({"status"}).out.find("tester: exec `sh -c") != std::string::npos);
  auto list = json(machine.run({"list", "--json"})).at("Sandboxes").at(0);
  CHECK(list.at("RunID") == status.at("RunID"));
  CHECK(list.at("Active") == true);
  CHECK(list.at("Branch") == "main");
  CHECK(text(list.at("Project")) == fs::canonical(machine.project()).string());
  CHECK(list.at("Box") == "local");
  CHECK(machine.run({"list"}).out.find(text(status.at("RunID"))) != std::string::npos);
  running.signal(SIGINT);
  running.wait();
}

TEST_CASE("stop ends an idle sandbox, not one in use unless forced") {
  Machine machine;
  machine.make_repository();
  auto running = machine.start({"exec", "--", "sh", "-c", "echo ready; sleep 600"});
  REQUIRE(running.out_has("ready"));
  auto busy = machine.run({"stop"});
  CHECK(busy.status == 75);
  CHECK(busy.err.find("is in use: 'exec' in progress by tester") != std::string::npos);
  CHECK(busy.err.find("With --force it is ended") != std::string::npos);
  CHECK(busy.err.find("--wait") == std::string::npos);  // stop does not wait here
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
  auto forced = json(machine.run({"stop", "--force", "--json"}));
  CHECK(forced.at("Stopped").at(0).at("WasRunning") == true);
  CHECK(running.wait(std::chrono::seconds(30)).status == 255);
  CHECK(machine.run({"list", "--json"}).out == "{\"Sandboxes\":[]}\n");
  CHECK(machine.exec("true").status == 0);
}

TEST_CASE("stop --all in JSON names what was stopped beside what was not") {
  Machine machine;
  machine.make_repository();
  auto id = text(json(machine.run({"start", "--json"})).at("RunID"));
  {
    test::SharedBox away("rig");
    away.introduce(machine, "alice");
    REQUIRE(machine.run({"start", "--box", "rig"}).status == 0);
  }
  auto stopped = machine.run({"stop", "--all", "--json"});
  CHECK(stopped.status == 255);
  auto answer = json(stopped);
  REQUIRE(answer.at("Stopped").as_array().size() == 1);
  CHECK(text(answer.at("Stopped").at(0).at("RunID")) == id);
  CHECK(text(answer.at("Error").at("Message")).find("rig") != std::string::npos);
}

TEST_CASE("the option --id reaches a sandbox from anywhere, and exec --reset --id replaces it") {
  Machine machine;
  machine.make_repository();
  auto id = text(json(machine.run({"start", "--json"})).at("RunID"));
  How elsewhere;
  elsewhere.directory = machine.root() / "elsewhere";
  fs::create_directories(elsewhere.directory);
  CHECK(text(json(machine.run({"status", "--id", id, "--json"}, elsewhere)).at("RunID")) == id);
  CHECK(text(json(machine.run({"status", "--id", id.substr(0, 8), "--json"}, elsewhere))
                 .at("RunID")) == id);
  auto reset = machine.run({"exec", "--reset", "--id", id, "--json", "--", "true"});
  INFO(reset.out << reset.err);
  CHECK(reset.status == 0);
  CHECK(reset.out.find(id) == std::string::npos);
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
  auto gone = machine.run({"exec", "--id", id, "--", "true"});
  CHECK(gone.status == 255);
  CHECK(gone.err.find(id) != std::string::npos);
  CHECK(machine.run({"exec", "--id", "../../x", "--", "true"}).status == 2);
}

TEST_CASE("branches and clones have sandboxes of their own") {
  Machine machine;
  machine.make_repository();
  auto first = text(json(machine.run({"start", "--json"})).at("RunID"));
  machine.git({"checkout", "-q", "-b", "other"});
  auto second = text(json(machine.run({"start", "--json"})).at("RunID"));
  CHECK(first != second);
  machine.git({"checkout", "-q", "main"});
  CHECK(text(json(machine.run({"start", "--json"})).at("RunID")) == first);
  machine.git({"clone", "-q", ".", (machine.root() / "clone").string()});
  How clone;
  clone.directory = machine.root() / "clone";
  auto third = text(json(machine.run({"start", "--json"}, clone)).at("RunID"));
  CHECK(third != first);
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 3);
  CHECK(json(machine.run({"stop", "--all", "--json"})).at("Stopped").as_array().size() == 3);
}

TEST_CASE("a detached HEAD keeps its sandbox when it moves on") {
  Machine machine;
  machine.make_repository();
  machine.git({"checkout", "-q", "--detach"});
  auto first = text(json(machine.run({"start", "--json"})).at("RunID"));
  machine.git({"commit", "-q", "--allow-empty", "-m", "two"});
  CHECK(text(json(machine.run({"start", "--json"})).at("RunID")) == first);
}

TEST_CASE("eight resets and execs at once leave one sandbox") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  std::vector<test::Running> all;
  for (int i = 0; i < 4; ++i) {
    all.push_back(machine.start({"exec", "--", "true"}));
    if (i % 2 == 0) all.push_back(machine.start({"reset", "--wait"}));
  }
  for (auto& one : all) {
    auto ended = one.wait(std::chrono::seconds(120));
    INFO(ended.out << ended.err);
    CHECK(ended.status == 0);
  }
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
}

TEST_CASE("key prints the same public key each time, made for its owner alone") {
  Machine machine;
  auto first = machine.run({"key"});
  CHECK(first.out.rfind("ssh-ed25519 AAAA", 0) == 0);
  CHECK(machine.run({"key"}).out == first.out);
  struct stat status {};
  REQUIRE(::stat((machine.config() / "id_ed25519").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  CHECK(text(json(machine.run({"key", "--json"})).at("PublicKey")) + "\n" == first.out);
}

TEST_CASE("a private key that others can read is refused with the line that mends it") {
  Machine machine;
  machine.make_repository();
  auto key = machine.run({"key"});
  fs::path file = machine.config() / "id_ed25519";
  for (int mode : {0644, 0640, 0602}) {
    INFO(mode);
    REQUIRE(::chmod(file.c_str(), static_cast<mode_t>(mode)) == 0);
    auto refused = machine.exec("true");
    CHECK(refused.status == 255);
    CHECK(refused.err.find(file.string() + " is open to others") != std::string::npos);
    CHECK(refused.err.find("chmod 600 " + file.string()) != std::string::npos);
  }
  REQUIRE(::chmod(file.c_str(), 0600) == 0);
  CHECK(machine.run({"key"}).out == key.out);
  // Nobody is harmed by others' reading the public one.
  REQUIRE(::chmod((file.string() + ".pub").c_str(), 0644) == 0);
  CHECK(machine.exec("true").status == 0);
}

TEST_CASE("stock ssh reaches the sandbox with what ssh-config prints") {
  if (std::system("command -v ssh > /dev/null") != 0) return;
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto config = machine.run({"ssh-config", "--host", "here"});
  CHECK(config.status == 0);
  write_text(machine.root() / "ssh_config", config.out);
  auto ssh = machine.run_program({"ssh", "-F", (machine.root() / "ssh_config").string(), "-o",
                                  "BatchMode=yes", "here", "cat f; exit 6"});
  INFO(ssh.err);
  CHECK(ssh.status == 6);
  CHECK(ssh.out == "committed\n");
}

TEST_CASE("the local box's agent comes back on the port that ssh-config has printed") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto port = [&] { return json(machine.run({"ssh-config", "--json"})).at("Port"); };
  const auto before = port();
  CHECK(machine.run({"ssh-config"}).err.find("`sandbox start` starts it again") !=
        std::string::npos);
  const pid_t agent = machine.agent_pid();
  ::kill(agent, SIGKILL);
  CHECK(machine.exec("true").status == 0);
  CHECK(machine.agent_pid() != agent);
  CHECK(port() == before);
}

TEST_CASE("init writes a configuration that works, and never over another") {
  Machine machine;
  machine.make_repository();
  How below;
  below.directory = machine.project() / "sub";
  fs::create_directories(below.directory);
  CHECK(machine.run({"init"}, below).status == 0);
  CHECK(fs::exists(machine.project() / ".sandbox.yml"));
  CHECK(machine.exec("true").status == 0);
  write_text(machine.project() / ".sandbox.yml", "mine: 1\n");
  auto again = machine.run({"init"});
  CHECK(again.status == 0);
  CHECK(again.err.find(".sandbox.yml") != std::string::npos);
  CHECK(file_text(machine.project() / ".sandbox.yml") == "mine: 1\n");
  CHECK(json(machine.run({"init", "--json", "other.yml"})).at("Created") == true);
}

TEST_CASE("pull without git says where it keeps what the sandbox had changed by itself") {
  Machine machine;
  write_text(machine.project() / "f", "file\n");
  auto id = std::string(json(machine.run({"start", "--json"})).at("RunID").as_string());
  REQUIRE(machine.run({"push"}).status == 0);
  write_text(machine.state() / "agent/sandboxes" / id / "workspace/f", "drifted\n");
  auto victim = machine.start({"exec", "--", "sh", "-c", "echo ready; sleep 600"});
  REQUIRE(victim.out_has("ready"));  // the drift has been kept, and nobody has been told
  victim.signal(SIGKILL);
  victim.wait();
  auto pulled = machine.run({"pull"});
  INFO(pulled.out << pulled.err);
  CHECK(pulled.status == 0);
  CHECK(pulled.out.find("No changes") == std::string::npos);
  const std::string show = "is kept here: git --git-dir ";
  auto at = pulled.err.find(show);
  REQUIRE(at != std::string::npos);
  std::string line = pulled.err.substr(at + show.size() - 14);
  line = line.substr(0, line.find(":PATH"));
  CHECK(machine.run_program({"sh", "-c", line + ":f"}).out == "drifted\n");
  CHECK(file_text(machine.project() / "f") == "file\n");
}

TEST_CASE("a configuration with a mistake names file and line") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / ".sandbox.yml", "env: {}\nsetpu: x\n");
  auto ended = machine.exec("touch ran");
  CHECK(ended.status == 2);
  CHECK(ended.err.find(".sandbox.yml:2: there is no key `setpu`") != std::string::npos);
  write_text(machine.project() / ".sandbox.yml", "box: rig1\n");
  CHECK(machine.exec("true").err.find(".sandbox.yml:1: `box`") != std::string::npos);
  auto error = boost::json::parse(machine.run({"exec", "--json", "--", "true"}).out).at("Error");
  CHECK(error.at("Origin") == "config");
}

TEST_CASE("a configuration named on the command line has its own sandbox") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / "one.yml", "env: {WHICH: one}\n");
  auto one = machine.run({"exec", "one.yml", "--", "sh", "-c", "echo $WHICH"});
  CHECK(one.out == "one\n");
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
  machine.exec("true");  // the branch's only one will do
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
  write_text(machine.project() / "two.yml", "env: {WHICH: two}\n");
  CHECK(machine.run({"start", "two.yml"}).status == 0);
  auto several = machine.exec("true");
  CHECK(several.status == 2);
  CHECK(several.err.find("--id") != std::string::npos);
  CHECK(machine.run({"exec", "nowhere.yml", "--", "true"}).status == 2);
  CHECK(machine.run({"exec", "", "--", "true"}).status == 2);  // "$UNSET" is not "none"
}

TEST_CASE(
    "a start that another process is making is returned as starting, and with --wait waited for",
    "[none]") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / ".sandbox.yml", "setup: echo blocked; until test -e " +
                                                     (machine.root() / "go").string() +
                                                     "; do sleep 0.05; done\n");
  auto starter = machine.start({"start"});
  REQUIRE(starter.err_has("blocked"));
  auto other = json(machine.run({"start", "--json"}));
  CHECK(other.at("Status") == "starting");
  auto stop = machine.run({"stop"});
  CHECK(stop.status == 75);
  auto refused = machine.run({"exec", "--no-wait", "--", "true"});
  CHECK(refused.status == 75);
  CHECK(refused.err.find("another process is starting") != std::string::npos);
  CHECK(machine.run({"reset", "--no-wait"}).status == 75);
  auto expired = machine.run({"exec", "--wait=1", "--", "true"});
  CHECK(expired.status == 124);
  CHECK(expired.err.find("timed out after 1s waiting for the process") != std::string::npos);
  auto waiting = machine.start({"start", "--wait"});
  REQUIRE(waiting.err_has("waiting for the process that is starting this project's sandbox"));
  write_text(machine.root() / "go", "");
  CHECK(starter.wait().status == 0);
  auto waited = waiting.wait();
  CHECK(waited.status == 0);
  CHECK(waited.out.find("already running: " + text(other.at("RunID"))) != std::string::npos);
}

TEST_CASE("Ctrl+C during setup ends the start and leaves nothing") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / ".sandbox.yml", "setup: echo blocked; exec sleep 600\n");
  auto starter = machine.start({"start"});
  REQUIRE(starter.err_has("blocked\n"));
  starter.signal(SIGINT);
  CHECK(starter.wait(std::chrono::seconds(20)).status == 130);
  CHECK(machine.run({"list", "--json"}).out == "{\"Sandboxes\":[]}\n");
  // One that goes on after the first is ended by the second, one that ends by neither is left.
  for (bool ends : {true, false}) {
    INFO(ends);
    write_text(machine.project() / ".sandbox.yml",
               "setup: trap 'echo once' INT; " + std::string(ends ? "" : "trap '' TERM; ") +
                   "echo blocked; while :; do sleep 600; done\n");
    auto stubborn = machine.start({"exec", "--", "true"});
    REQUIRE(stubborn.err_has("blocked\n"));
    stubborn.signal(SIGINT);
    REQUIRE(stubborn.err_has("\nonce\n"));
    stubborn.signal(SIGINT);
    REQUIRE(stubborn.err_has("ending the setup"));
    if (!ends) {
      stubborn.signal(SIGINT);
    }
    CHECK(stubborn.wait(std::chrono::seconds(20)).status == 130);
    REQUIRE(test::eventually([&] { return machine.run({"stop", "--force"}).status == 0; }));
  }
}

TEST_CASE("a starter killed with -9 at any moment orphans nothing") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / ".sandbox.yml", "setup: sleep 0.05\n");
  machine.run({"start"});  // the agent runs from now on
  for (int moment : {1, 15, 30, 45, 60, 80, 110, 150, 200}) {
    INFO(moment << " ms");
    CHECK(machine.run({"stop"}).status == 0);
    auto victim = machine.start({"exec", "--", "true"});
    ::poll(nullptr, 0, moment);
    victim.signal(SIGKILL);
    victim.wait();
    CHECK(machine.exec("true").status == 0);
    CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
  }
}

TEST_CASE("a reset killed with -9 at any moment orphans nothing") {
  Machine machine;
  machine.make_repository();
  machine.run({"start"});
  for (int moment : {1, 15, 30, 45, 60, 80, 110, 150}) {
    INFO(moment << " ms");
    auto victim = machine.start({"reset"});
    ::poll(nullptr, 0, moment);
    victim.signal(SIGKILL);
    victim.wait();
    CHECK(machine.exec("true").status == 0);
    CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
  }
}
