// What works inside a sandbox that is shut off from its box as it does outside, and how it is asked
// for. What does not get out is in escapes_test.cc.
#include <signal.h>
#include <sys/socket.h>

#include <boost/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/other_user.h"
#include "tests/support/system.h"

using test::Ended;
using test::eventually;
using test::file_text;
using test::How;
using test::Machine;
using test::Words;
namespace fs = std::filesystem;

namespace {

// A machine whose sandboxes are isolated; says so and is false where they cannot be.
struct Isolated : Machine {
  Isolated() { environment["SANDBOX_ISOLATION"] = "bwrap"; }
  bool works() {
    auto made = run({"start"});
    if (made.status == 0) return true;
    WARN("skipped: no isolation here: " << made.err);
    return false;
  }
  fs::path sandboxes() const { return state() / "agent/sandboxes"; }
  fs::path sandbox() const { return fs::directory_iterator(sandboxes())->path(); }
  pid_t supervisor() const {
    boost::system::error_code error;
    auto record = boost::json::parse(file_text(sandbox() / "supervisor.json"), error);
    return error ? 0 : static_cast<pid_t>(record.at("pid").to_number<std::int64_t>());
  }
};

std::string config(Machine& machine, const std::string& text) {
  test::write_text(machine.project() / ".sandbox.yml", text);
  return text;
}

}  // namespace

TEST_CASE(
    "a command finds its workspace and its home at the same place in every sandbox, and keeps "
    "what it leaves in either") {
  Isolated machine;
  if (!machine.works()) return;
  auto first =
      machine.exec("pwd; echo kept > ~/mine; echo built > ignored; ls -d ~/.[a-z]*; cd; pwd");
  INFO(first.err);
  REQUIRE(first.status == 0);
  CHECK(first.out.find("/workspace\n") == 0);
  // The account's own home is another one.
  CHECK(!fs::exists(machine.home() / "mine"));
  REQUIRE(machine.exec("grep -q kept ~/mine").status == 0);
  // After the supervisor was started anew, too.
  REQUIRE(::kill(machine.supervisor(), SIGKILL) == 0);
  REQUIRE(
      eventually([&] { return machine.exec("grep -q kept ~/mine && pwd").out == "/workspace\n"; }));

  auto other = machine.root() / "other";
  fs::create_directories(other);
  auto second = machine.exec("pwd; ls ~/mine", {.directory = other});
  CHECK(second.out == "/workspace\n");
  CHECK(second.status != 0);
}

TEST_CASE("the agent knows a supervisor by its pid outside") {
  Isolated machine;
  if (!machine.works()) return;
  REQUIRE(machine.exec("true").status == 0);
  pid_t pid = machine.supervisor();
  REQUIRE(pid > 1);
  CHECK(file_text("/proc/" + std::to_string(pid) + "/comm") == "sandbox-agent\n");
  // It is the first process in there, and its end is the end of all others.
  CHECK(machine.exec("cat /proc/1/comm").out == "sandbox-agent\n");
  auto running = machine.start({"exec", "--", "sh", "-c", "echo up; exec sleep 1000"});
  REQUIRE(running.out_has("up"));
  REQUIRE(::kill(pid, SIGKILL) == 0);
  CHECK(running.wait().status != 0);
  CHECK(machine.exec("echo again").out == "again\n");
}

TEST_CASE("a sandbox outlives its agent, which finds it again") {
  Isolated machine;
  if (!machine.works()) return;
  REQUIRE(machine.exec("true").status == 0);
  pid_t supervisor = machine.supervisor(), agent = machine.agent_pid();
  REQUIRE(::kill(agent, SIGKILL) == 0);
  REQUIRE(eventually([&] { return machine.agent_pid() == 0; }));
  REQUIRE(machine.exec("true").status == 0);
  CHECK(machine.agent_pid() != agent);
  CHECK(machine.supervisor() == supervisor);
}

TEST_CASE("a signal goes to the command, and its clean-up finishes") {
  Isolated machine;
  if (!machine.works()) return;
  for (int signal : {SIGINT, SIGTERM}) {
    auto running = machine.start({"exec", "--", "sh", "-c",
                                  "trap 'sleep 0.3; echo clean > cleaned" + std::to_string(signal) +
                                      "; exit 9' INT TERM; echo up; while :; do sleep 0.1; done"});
    REQUIRE(running.out_has("up"));
    running.signal(signal);
    auto ended = running.wait();
    INFO(ended.err);
    CHECK(ended.status == 9);
    CHECK(file_text(machine.project() / ("cleaned" + std::to_string(signal))) == "clean\n");
    REQUIRE(machine.exec("true").status == 0);
  }
  // A whole group is killed, and the sandbox goes on.
  auto killed = machine.exec("sh -c 'kill -KILL 0'");
  CHECK(killed.status == 137);
  CHECK(machine.exec("echo on").out == "on\n");
}

TEST_CASE("a terminal, git and a process that stays work inside") {
  Isolated machine;
  machine.make_repository();
  if (!machine.works()) return;
  auto terminal = machine.start({"exec", "-t", "--", "sh", "-c", "tty; stty size; ls -l /dev/tty"},
                                {.terminal = true});
  auto shown = terminal.wait();
  INFO(shown.out);
  CHECK(shown.out.find("/dev/pts/") != std::string::npos);
  CHECK(shown.out.find("30 100") != std::string::npos);

  auto git = machine.exec(
      "git status --short && git log --oneline | wc -l && git rev-parse --abbrev-ref HEAD");
  INFO(git.err);
  CHECK(git.out == "1\nmain\n");

  REQUIRE(machine.exec("setsid sleep 1000 >/dev/null 2>&1 & sleep 0.2").status == 0);
  auto status = machine.run({"status"});
  CHECK(status.out.find("sleep") != std::string::npos);
  CHECK(machine.exec("ps -e | grep -q sleep").status == 0);
  pid_t supervisor = machine.supervisor();
  REQUIRE(machine.run({"stop"}).status == 0);
  CHECK(eventually([&] { return ::kill(supervisor, 0) != 0; }));
}

TEST_CASE("a command has the variables of its config and none of the agent's") {
  Isolated machine;
  config(machine, "env: {GREETING: hello}\n");
  machine.environment["SANDBOX_TEST_TOKEN"] = "secret";
  if (!machine.works()) return;
  auto ran = machine.exec("env");
  CHECK(ran.out.find("GREETING=hello\n") != std::string::npos);
  CHECK(ran.out.find("TOKEN") == std::string::npos);
  CHECK(ran.out.find("XDG_") == std::string::npos);
}

TEST_CASE("each sandbox has a /tmp of its own") {
  Isolated machine;
  if (!machine.works()) return;
  auto other = machine.root() / "other";
  fs::create_directories(other);
  REQUIRE(machine.exec("touch /tmp/mine; ls -ld /tmp | grep -q '^drwxrwxrwt'").status == 0);
  CHECK(machine.exec("ls /tmp/mine").status == 0);
  CHECK(machine.exec("ls /tmp/mine", {.directory = other}).status != 0);
}

TEST_CASE("isolation is what the command line and the box say") {
  Isolated machine;
  if (!machine.works()) return;
  // This box was told to isolate everything.
  auto other = machine.root() / "other";
  fs::create_directories(other);
  auto refused = machine.run({"exec", "--isolation", "none", "--", "true"}, {.directory = other});
  CHECK(refused.status != 0);
  CHECK(refused.err.find("--isolation bwrap") != std::string::npos);

  Machine open;
  open.environment["SANDBOX_ISOLATION"] = "none";
  CHECK(open.exec("pwd").out != "/workspace\n");
  auto demanded =
      open.run({"exec", "--isolation", "bwrap", "--", "true"}, {.directory = open.root()});
  CHECK(demanded.status != 0);
  CHECK(demanded.err.find("--isolation none") != std::string::npos);
  auto wrong = open.run({"exec", "--", "true"}, {.directory = open.root(),
                                                 .environment = {{"SANDBOX_ISOLATION", "docker"}}});
  CHECK(wrong.status != 0);
  CHECK(wrong.err.find("docker") != std::string::npos);
}

TEST_CASE("a sandbox that has another isolation than is asked for runs nothing") {
  Isolated machine;
  if (!machine.works()) return;
  auto refused = machine.run({"exec", "--isolation", "none", "--", "touch", "ran"});
  CHECK(refused.status == 255);
  CHECK(refused.err.find("was made with isolation bwrap") != std::string::npos);
  CHECK(refused.err.find("exec --reset --isolation none") != std::string::npos);
  CHECK(!fs::exists(machine.sandbox() / "workspace/ran"));
  CHECK(machine.run({"start", "--isolation", "none"}).status == 255);
  CHECK(machine.run({"exec", "--isolation", "bwrap", "--", "true"}).status == 0);
  CHECK(machine.run({"exec", "--isolation", "auto", "--", "true"}).status == 0);

  Machine open;
  open.environment["SANDBOX_ISOLATION"] = "auto";
  REQUIRE(open.run({"exec", "--isolation", "none", "--", "pwd"}).out != "/workspace\n");
  auto unheard = open.run({"exec", "--isolation", "bwrap", "--", "touch", "ran"});
  CHECK(unheard.status == 255);
  CHECK(unheard.err.find("was made with isolation none") != std::string::npos);
  CHECK(!fs::exists(open.project() / "ran"));
  CHECK(open.run({"start", "--isolation", "bwrap"}).status == 255);
  How strict;
  strict.environment["SANDBOX_ISOLATION"] = "bwrap";
  CHECK(open.run({"exec", "--", "touch", "ran"}, strict).status == 255);
  CHECK(!fs::exists(open.project() / "ran"));
  // As it says.
  auto anew = open.run({"exec", "--reset", "--isolation", "bwrap", "--", "pwd"});
  INFO(anew.err);
  CHECK(anew.out == "/workspace\n");
}

namespace {

// A machine on which bubblewrap does not work.
struct WithoutBubblewrap : Machine {
  explicit WithoutBubblewrap(const char* isolation) {
    auto bin = root() / "bin";
    fs::create_directories(bin);
    test::write_text(bin / "bwrap", "#!/bin/sh\necho 'bwrap: not on this kernel' >&2\nexit 1\n");
    fs::permissions(bin / "bwrap", fs::perms::owner_all);
    environment["PATH"] = bin.native() + ":" + environment["PATH"];
    environment["SANDBOX_ISOLATION"] = isolation;
  }
};

}  // namespace

TEST_CASE("a project's file makes nothing less of the isolation that its user asks for") {
  WithoutBubblewrap machine("auto");
  REQUIRE(machine.exec("true").status == 0);  // the agent does without
  How strict;
  strict.directory = machine.root() / "other";
  strict.environment["SANDBOX_ISOLATION"] = "bwrap";
  for (const char* text : {"isolation: auto\n", "env: {}\n"}) {
    INFO(text);
    test::write_text(strict.directory / ".sandbox.yml", text);
    auto refused = machine.run({"exec", "--", "touch", "ran"}, strict);
    CHECK(refused.status == 255);
    CHECK(refused.err.find("not on this kernel") != std::string::npos);
  }
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
  // The command line is the user's, too.
  CHECK(machine.run({"exec", "--isolation", "auto", "--", "true"}, strict).status == 0);
}

TEST_CASE("without bubblewrap the automatic choice says so once, and a demand for it fails") {
  WithoutBubblewrap machine("auto");
  auto made = machine.exec("true");
  REQUIRE(made.status == 0);
  CHECK(made.err.find("has no isolation") != std::string::npos);
  CHECK(made.err.find("sandbox doctor") != std::string::npos);
  auto again = machine.exec("true");
  REQUIRE(again.status == 0);
  CHECK(again.err.empty());
  std::string log = file_text(machine.state() / "agent/agent.log");
  auto first = log.find("not on this kernel");
  REQUIRE(first != std::string::npos);
  CHECK(log.find("not on this kernel", first + 1) == std::string::npos);

  WithoutBubblewrap strict("bwrap");
  auto failed = strict.exec("true");
  CHECK(failed.status != 0);
  CHECK(failed.err.find("not on this kernel") != std::string::npos);
}

TEST_CASE(
    "what a changed file would make otherwise is said before the command runs, and by start") {
  Machine machine;
  config(machine, "env: {A: b}\n");
  REQUIRE(machine.run({"start"}).err.empty());
  CHECK(machine.run({"start"}).err.empty());
  config(machine, "env: {A: b}\nnetwork: none\n");
  auto running = machine.start({"exec", "--", "sh", "-c", "echo up; exec sleep 600"});
  REQUIRE(running.out_has("up"));
  CHECK(running.err().find("network and limits are as they were") != std::string::npos);
  running.signal(SIGINT);
  running.wait();
  auto again = machine.run({"start"});
  CHECK(again.status == 0);
  CHECK(again.err.find("`sandbox reset`") != std::string::npos);
}

TEST_CASE("bubblewrap that cannot keep user namespaces out is used without, and the log says so") {
  Isolated machine;
  auto bin = machine.root() / "bin";
  test::write_text(bin / "bwrap",
                   "#!/bin/sh\ncase \"$*\" in *--disable-userns*) exit 1;; esac\n"
                   "PATH=${PATH#*:} exec bwrap \"$@\"\n");
  fs::permissions(bin / "bwrap", fs::perms::owner_all);
  machine.environment["PATH"] = bin.native() + ":" + machine.environment["PATH"];
  if (!machine.works()) return;
  CHECK(machine.exec("pwd").out == "/workspace\n");
  std::string log = file_text(machine.state() / "agent/agent.log");
  CHECK(log.find("user_namespaces_inside=allowed") != std::string::npos);
}

TEST_CASE("a sandbox without a network still has tunnels, into itself") {
  Isolated machine;
  config(machine, "network: none\n");
  if (!machine.works()) return;
  const std::string server =
      "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], 'up'); "
      "c = s.accept()[0]; c.sendall(b'got ' + c.recv(5)); c.close()";
  auto served = machine.start({"exec", "--", "/usr/bin/python3", "-uc", server});
  REQUIRE(served.out_has("up"));
  std::string port = served.out().substr(0, served.out().find(' '));
  test::write_text(machine.root() / "ssh_config",
                   machine.run({"ssh-config", "--host", "here"}).out);
  auto tunnel = machine.run_program({"ssh", "-F", (machine.root() / "ssh_config").string(), "-o",
                                     "BatchMode=yes", "-W", "127.0.0.1:" + port, "here"},
                                    {.input = "hello"});
  INFO(tunnel.err);
  CHECK(tunnel.out == "got hello");
  CHECK(served.wait().status == 0);
  CHECK(machine.exec("grep -v lo: /proc/net/dev | grep -c :").out == "0\n");
  CHECK(
      machine
          .exec("/usr/bin/python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 0)); "
                "socket.create_connection(s.getsockname())'")
          .status == 0);
  // A host that no sandbox without isolation can be made to run.
  auto other = machine.root() / "other";
  test::write_text(other / ".sandbox.yml", "network: none\n");
  Machine open;
  open.environment["SANDBOX_ISOLATION"] = "none";
  auto refused = open.run({"exec", "--", "true"}, {.directory = other});
  CHECK(refused.status != 0);
  CHECK(refused.err.find("network: none needs isolation") != std::string::npos);
}

TEST_CASE("a link that is swapped while files arrive leads none of them out of the workspace") {
  Isolated machine;
  if (!machine.works()) return;
  test::write_text(machine.project() / "d/file", "0");
  // Where the supervisor could write, and no command may.
  REQUIRE(
      machine
          .exec("cat > /tmp/swap <<'END'\n"
                "while :; do rm -rf d; ln -s /run/sandbox/$SANDBOX_ID/logs d; rm d; mkdir d; done\n"
                "END\n"
                "setsid sh /tmp/swap >/dev/null 2>&1 &")
          .status == 0);
  for (int round = 1; round <= 15; ++round) {
    fs::remove_all(machine.project() / "d");  // the last one may have brought the link home
    test::write_text(machine.project() / "d/file", std::to_string(round));
    machine.exec("true");  // may well fail: what it does not may not lead astray
  }
  CHECK(!fs::exists(machine.sandbox() / "logs/file"));
  CHECK(fs::exists(machine.sandbox() / "logs/supervisor.log"));
}

// ---- limits ------------------------------------------------------------------------------------

TEST_CASE("a command that takes too long is ended, and its status is 124") {
  Machine machine;
  config(machine, "limits: {time: 1}\n");
  auto ended = machine.exec("trap 'echo asked; exit 3' INT; while :; do sleep 0.1; done");
  CHECK(ended.status == 124);
  CHECK(ended.out == "asked\n");
  CHECK(ended.err.find("limits.time") != std::string::npos);
  CHECK(machine.exec("echo quick").out == "quick\n");
}

TEST_CASE("a command gets no more memory than its limit") {
  for (const char* isolation : {"none", "auto"}) {
    Machine machine;
    machine.environment["SANDBOX_ISOLATION"] = isolation;
    config(machine, "limits: {memory: 256M}\n");
    auto small = machine.exec("dd if=/dev/zero of=/dev/null bs=64M count=1");
    INFO(small.err);
    CHECK(small.status == 0);
    CHECK(machine.exec("dd if=/dev/zero of=/dev/null bs=512M count=1").status != 0);
  }
}

TEST_CASE("a sandbox that runs out of memory says so") {
#if defined(__SANITIZE_ADDRESS__)
  return;  // what limits a command is then too large for the limit itself
#endif
  Machine machine;
  config(machine, "limits: {memory: 64M}\n");
  auto ended = machine.run({"exec", "--json", "--", "tail", "/dev/zero"});
  INFO(ended.out << ended.err);
  CHECK(ended.status != 0);
  std::string log = file_text(machine.state() / "agent/agent.log");
  if (auto none = log.find("limits by=process"); none != std::string::npos) {
    WARN("skipped: no cgroup: " << log.substr(none, log.find('\n', none) - none));
    return;
  }
  CHECK(boost::json::parse(ended.out).at("OutOfMemory").as_bool());
  CHECK(ended.err.find("limits.memory") != std::string::npos);
}

TEST_CASE("a command has no more processes than its limit") {
  Machine machine;
  machine.environment["SANDBOX_ISOLATION"] = "bwrap";
  test::OtherUser other(machine);  // the kernel does not count for root
  config(machine, "limits: {pids: 5}\n");
  auto made = other.run({"start"});
  if (made.status != 0) {
    WARN("skipped: no isolation for another user than root here: " << made.err);
    return;
  }
  auto few = other.run({"exec", "--", "sh", "-c", "sleep 0.1 & sleep 0.1 & wait && echo all"});
  CHECK(few.out == "all\n");
  auto many = other.run(
      {"exec", "--", "sh", "-c", "for i in $(seq 60); do sleep 100 & done; echo not reached"});
  INFO(many.out << many.err);
  CHECK(many.err.find("Cannot fork") != std::string::npos);
  CHECK(many.out.empty());
  CHECK(other.run({"exec", "--", "echo", "on"}).out == "on\n");
  other.run({"stop", "--all"});
}

TEST_CASE("a command runs on no more processors than its limit") {
  Machine machine;
  config(machine, "limits: {cpus: 1}\n");
  CHECK(machine.exec("nproc; taskset -c 0-1000 nproc 2>/dev/null; true").out == "1\n");
  CHECK(machine.exec("no-such-program").status == 127);
}

TEST_CASE("a limit that this box cannot enforce is refused by its name, and nothing is made") {
  Machine machine;
  config(machine, "limits: {cpus: 4096}\n");
  auto refused = machine.exec("true");
  CHECK(refused.status != 0);
  CHECK(refused.err.find("limits.cpus") != std::string::npos);
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 0);
}
