// sandbox exec with the real programs: the main job.
#include <poll.h>
#include <signal.h>

#include <boost/json.hpp>

#include "protocol/os/flock.h"
#include "tests/support/catch.h"
#include "tests/support/places.h"
#include "tests/support/system.h"

namespace fs = std::filesystem;
using test::file_text;
using test::How;
using test::Machine;
using test::write_text;

namespace {

boost::json::value last_line(const std::string& out) {
  std::string text = out;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  auto line = text.rfind('\n');
  return boost::json::parse(line == std::string::npos ? text : text.substr(line + 1));
}

}  // namespace

TEST_CASE("on a fresh machine a command runs on the uncommitted work, and its changes come back") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / "f", "committed\nedited\n");
  write_text(machine.project() / "new", "untracked\n");
  auto ended = machine.exec("cat f new; echo problem >&2; echo made > made; exit 3");
  CHECK(ended.status == 3);
  CHECK(ended.out == "committed\nedited\nuntracked\n");
  CHECK(ended.err.find("problem\n") != std::string::npos);
  CHECK(ended.err.find("made") != std::string::npos);  // named as brought back
  CHECK(file_text(machine.project() / "made") == "made\n");
  auto status = machine.git({"status", "--short"});
  CHECK(status.out == " M f\n?? made\n?? new\n");
}

TEST_CASE("a command that changes nothing leaves stderr empty") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto ended = machine.exec("echo out");
  CHECK(ended.status == 0);
  CHECK(ended.out == "out\n");
  CHECK(ended.err.empty());
}

TEST_CASE("without git a directory is a project, too") {
  Machine machine;
  write_text(machine.project() / "a/b", "text\n");
  auto ended = machine.exec("cat a/b; rm a/b; echo x > c");
  CHECK(ended.status == 0);
  CHECK(ended.out == "text\n");
  CHECK_FALSE(fs::exists(machine.project() / "a/b"));
  CHECK(file_text(machine.project() / "c") == "x\n");
}

TEST_CASE("the status is the command's, whichever way it ends") {
  Machine machine;
  machine.make_repository();
  CHECK(machine.exec("exit 0").status == 0);
  CHECK(machine.exec("exit 1").status == 1);
  CHECK(machine.exec("exit 255").status == 255);
  CHECK(machine.exec("kill -KILL $$").status == 137);
  CHECK(machine.exec("kill -TERM $$").status == 143);
  auto missing = machine.run({"exec", "--", "no-such-command"});
  CHECK(missing.status == 127);
  CHECK(missing.out.empty());
  CHECK(missing.err.find("no-such-command") != std::string::npos);
  auto denied = machine.run({"exec", "--", "./f"});
  CHECK(denied.status == 126);
}

TEST_CASE("the command's bytes pass untouched, on the stream that it used") {
  Machine machine;
  machine.make_repository();
  auto ended = machine.exec("printf 'a\\000\\377\\r\\n'; printf 'b\\000\\376' >&2");
  CHECK(ended.out == std::string("a\0\xff\r\n", 5));
  CHECK(ended.err == std::string("b\0\xfe", 3));
}

TEST_CASE("a megabyte goes in and comes out") {
  Machine machine;
  machine.make_repository();
  std::string bytes;
  for (int i = 0; bytes.size() < 3 << 20; ++i) bytes += std::to_string(i) + "\n";
  How how;
  how.input = bytes;
  auto ended = machine.run({"exec", "--", "cat"}, how);
  CHECK(ended.status == 0);
  CHECK((ended.out == bytes));
}

TEST_CASE("stdin that is closed, empty or never ended") {
  Machine machine;
  machine.make_repository();
  How null;
  null.null_input = true;
  CHECK(machine.run({"exec", "--", "cat"}, null).status == 0);
  CHECK(machine.run({"exec", "--", "cat"}).status == 0);
  How open;
  open.input_stays_open = true;
  auto ended = machine.run({"exec", "--", "echo", "done"}, open);
  CHECK(ended.out == "done\n");
  CHECK(machine.run({"exec", "-n", "--", "cat"}, open).status == 0);
  auto closed = machine.run_program(
      {"sh", "-c", "exec " SANDBOX_BIN_DIR "/sandbox exec -- sh -c 'cat; echo read' <&-"});
  CHECK(closed.out == "read\n");
  CHECK(closed.status == 0);
}

TEST_CASE("closed stdout ends a command as a broken pipe would") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto piped = machine.run_program(
      {"bash", "-c", SANDBOX_BIN_DIR "/sandbox exec -- yes | head -1; echo ${PIPESTATUS[0]}"});
  CHECK(piped.out == "y\n141\n");
  CHECK(piped.err.empty());
  // Whoever writes there, and nobody else.
  auto after = machine.run_program(
      {"bash", "-c",
       SANDBOX_BIN_DIR "/sandbox exec -- sh -c 'trap \"\" PIPE; while echo x; do :; done; touch "
                       "after; exit 7' 2> /dev/null | head -1; echo ${PIPESTATUS[0]}"});
  CHECK(after.out == "x\n7\n");
  CHECK(fs::exists(machine.project() / "after"));
  auto closed = machine.run_program(
      {"sh", "-c", SANDBOX_BIN_DIR "/sandbox exec -- sh -c 'echo x; touch ran' >&-"});
  CHECK(closed.status == 0);
  CHECK(fs::exists(machine.project() / "ran"));
  auto no_stderr = machine.run_program(
      {"sh", "-c", SANDBOX_BIN_DIR "/sandbox exec -- sh -c 'echo x >&2; touch run2' 2>&-"});
  CHECK(no_stderr.status == 0);
  CHECK(fs::exists(machine.project() / "run2"));
}

TEST_CASE("what cannot be brought back is kept here, where the user is told") {
  Machine machine;
  machine.make_repository();
  auto ended = machine.exec("echo one > Name; echo two > name");  // one file on many a laptop
  CHECK(ended.status == 254);
  INFO(ended.err);
  auto at = ended.err.find("kept here: git ");
  REQUIRE(at != std::string::npos);
  std::string command = ended.err.substr(at + 11, ended.err.find('\n', at) - at - 11);
  command.replace(command.find("PATH"), 4, "name");
  CHECK(machine.run_program({"sh", "-c", command}).out == "two\n");
  CHECK(machine.exec("true").status == 0);
  CHECK(machine.run_program({"sh", "-c", command}).out == "two\n");
}

TEST_CASE("output that cannot be written here is named, and success becomes 254") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto shell = [&](const std::string& line) {
    return machine.run_program({"sh", "-c", SANDBOX_BIN_DIR "/sandbox exec " + line});
  };
  auto full = shell("-- sh -c 'echo hi; touch made' > /dev/full");
  CHECK(full.status == 254);
  CHECK(full.err.find("cannot write to stdout: No space left on device") != std::string::npos);
  CHECK(fs::exists(machine.project() / "made"));
  CHECK(shell("-- sh -c 'echo hi; exit 3' > /dev/full").status == 3);
  CHECK(shell("-- sh -c 'seq 1000000; exit 3' > /dev/full").status == 3);
  CHECK(shell("-- true > /dev/full").status == 0);
  CHECK(shell("-- sh -c 'echo hi >&2' 2> /dev/full").status == 254);
  auto read_only = shell("-- echo hi 1< /dev/null");
  CHECK(read_only.status == 254);
  CHECK(read_only.err.find("stdout: it is not open for writing") != std::string::npos);
  auto answer = shell("--json -- true > /dev/full");
  CHECK(answer.status == 255);
  CHECK(answer.err.find("cannot write to stdout: No space left on device") != std::string::npos);
}

TEST_CASE("a command that cannot be started is answered in full with --json") {
  Machine machine;
  machine.make_repository();
  for (auto [argument, status] : {std::pair("no-such-command", 127), std::pair("./f", 126)}) {
    auto ended = machine.run({"exec", "--json", "--", argument});
    CHECK(ended.status == status);
    auto answer = boost::json::parse(ended.out);
    CHECK(answer.at("ExitCode") == status);
    CHECK(answer.at("RunID").as_string().size() == 32);
    CHECK(answer.at("RunURL").as_string().find("ssh://") == 0);
    CHECK(answer.at("PulledFiles").as_array().empty());
    CHECK(answer.at("Error").at("Origin") == "command");
    CHECK(answer.at("Error").at("Status") == status);
  }
}

TEST_CASE(
    "SIGINT, SIGTERM and SIGHUP reach the command, also where they were inherited as ignored") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  struct Case {
    const char* name;
    int number;
  };
  for (auto [name, number] : {Case{"INT", SIGINT}, Case{"TERM", SIGTERM}, Case{"HUP", SIGHUP}}) {
    INFO(name);
    std::string script = "trap 'echo got " + std::string(name) + "; exit 9' " + name +
                         "; echo ready; while :; do sleep 0.05; done";
    auto running = machine.start({"exec", "--", "sh", "-c", script});
    REQUIRE(running.out_has("ready"));
    running.signal(number);
    auto ended = running.wait();
    CHECK(ended.status == 9);
    CHECK(ended.out == "ready\ngot " + std::string(name) + "\n");
    write_text(machine.root() / "script", script);
    auto background = machine.start_program({"sh", "-c",
                                             "trap '' INT TERM HUP; exec " SANDBOX_BIN_DIR
                                             "/sandbox exec -- sh -c \"$(cat " +
                                                 (machine.root() / "script").string() + ")\""});
    REQUIRE(background.out_has("ready"));
    background.signal(number);
    CHECK(background.wait().status == 9);
  }
}

TEST_CASE("Ctrl+C without a handler is 130, and the next command runs") {
  Machine machine;
  machine.make_repository();
  auto running = machine.start({"exec", "--", "sh", "-c", "echo ready; exec sleep 600"});
  REQUIRE(running.out_has("ready"));
  running.signal(SIGINT);
  CHECK(running.wait().status == 130);
  CHECK(machine.exec("true").status == 0);
}

TEST_CASE("a second Ctrl+C hurries, a third gives up") {
  Machine machine;
  machine.make_repository();
  const std::string told = " signal {\"name\":\"INT\"";
  auto hurried = machine.start({"exec", "--trace", "--", "sh", "-c",
                                "trap '' INT; echo ready; while :; do sleep 0.05; done"});
  REQUIRE(hurried.out_has("ready"));
  hurried.signal(SIGINT);
  REQUIRE(hurried.err_has(told));  // two at once would be one
  hurried.signal(SIGINT);
  CHECK(hurried.wait(std::chrono::seconds(10)).status == 143);
  auto stubborn = machine.start({"exec", "--trace", "--", "sh", "-c",
                                 "trap '' INT TERM; echo ready; while :; do sleep 0.05; done"});
  REQUIRE(stubborn.out_has("ready"));
  stubborn.signal(SIGINT);
  REQUIRE(stubborn.err_has(told));
  stubborn.signal(SIGINT);
  REQUIRE(stubborn.err_has("Ctrl+C once more"));
  stubborn.signal(SIGINT);
  CHECK(stubborn.wait(std::chrono::seconds(5)).status == 130);
  CHECK(machine.exec("true").status == 0);  // the box has ended it
}

TEST_CASE("the option -t gives the command a terminal with our size, keys and window changes") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  How how;
  how.terminal = true;
  const std::string script =
      "test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size; "
      "trap 'stty size' WINCH; echo $TERM; read line; echo \"<$line>\"; "
      "while ! read line; do :; done; exit 5";
  auto running = machine.start({"exec", "-t", "--", "sh", "-c", script}, how);
  REQUIRE(running.out_has("xterm"));
  CHECK(running.out().find("terminal\r\n") != std::string::npos);
  CHECK(running.out().find("30 100") != std::string::npos);
  running.type("typed\r");
  REQUIRE(running.out_has("<typed>"));
  running.resize({40, 120});
  REQUIRE(running.out_has("40 120"));
  running.type("\r");
  CHECK(running.wait().status == 5);
}

TEST_CASE("with -t and a stdin that is none the command's terminal follows that of our stdout") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  How how;
  how.terminal = true;
  auto running = machine.start_program(
      {"sh", "-c",
       "sleep 600 | " SANDBOX_BIN_DIR
       "/sandbox exec -t -- sh -c \"trap 'stty size; exit 5' WINCH; stty size; echo ready; "
       "while :; do sleep 0.05; done\""},
      how);
  REQUIRE(running.out_has("ready"));
  CHECK(running.out().find("30 100") != std::string::npos);
  running.resize({40, 120});
  CHECK(running.out_has("40 120"));
}

TEST_CASE("Ctrl+C in a terminal is the command's key") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  How how;
  how.terminal = true;
  auto running =
      machine.start({"exec", "-t", "--", "sh", "-c",
                     "trap 'echo key; exit 7' INT; echo ready; while :; do sleep 0.05; done"},
                    how);
  REQUIRE(running.out_has("ready"));
  running.type("\x03");
  CHECK(running.wait().status == 7);
  CHECK(running.out().find("key") != std::string::npos);
}

TEST_CASE("the directory is the same as here, unless --cwd says otherwise") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / "a/b/file", "");
  How how;
  how.directory = machine.project() / "a/b";
  auto mirrored = machine.exec("pwd; ls", how);
  CHECK(mirrored.out.find("/workspace/a/b\nfile\n") != std::string::npos);
  auto named = machine.run({"exec", "--cwd", "a", "--", "sh", "-c", "pwd"}, how);
  CHECK(named.out.find("/workspace/a\n") != std::string::npos);
  auto root = machine.run({"exec", "--cwd", ".", "--", "sh", "-c", "pwd"}, how);
  CHECK(root.out.find("/workspace\n") != std::string::npos);
  auto outside = machine.run({"exec", "--cwd", "../x", "--", "pwd"}, how);
  CHECK(outside.status == 2);
  CHECK(outside.err.find("../x") != std::string::npos);
  auto from_dir = machine.run({"exec", "-d", "a", "--", "sh", "-c", "pwd"});
  CHECK(from_dir.out.find("/workspace/a\n") != std::string::npos);
}

TEST_CASE("a --cwd that is nowhere is an error that names it, and makes nothing") {
  Machine machine;
  machine.make_repository();
  auto typo = machine.run({"exec", "--cwd", "tpyo", "--", "pwd"});
  CHECK(typo.status == 255);
  CHECK(typo.out.empty());
  CHECK(typo.err.find("no directory tpyo") != std::string::npos);
  CHECK(typo.err.find("--cwd") != std::string::npos);
  CHECK(machine.exec("ls -d tpyo").status != 0);

  // One that is empty here does not travel, and is no mistake; nor is one that is only there.
  std::filesystem::create_directories(machine.project() / "empty");
  CHECK(machine.run({"exec", "--cwd", "empty", "--", "pwd"}).status == 0);
  CHECK(machine.exec("mkdir there").status == 0);
  CHECK(machine.run({"exec", "--cwd", "there", "--", "pwd"}).status == 0);
}

TEST_CASE("options of --env and the configuration set variables, and ours stay here") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / ".sandbox.yml", "env:\n  FROM_FILE: file\n  BOTH: file\n");
  How how;
  how.environment = {{"PASSED", "with 'quotes'\nand lines"}, {"SECRET", "hidden"}};
  auto ended = machine.run(
      {"exec", "--env", "PASSED", "-e", "BOTH=line", "-e", "EMPTY=", "-e", "NOT_SET", "--", "sh",
       "-c", "echo \"$FROM_FILE/$BOTH/$PASSED/${EMPTY-unset}/${NOT_SET-unset}/${SECRET-unset}\""},
      how);
  CHECK(ended.out == "file/line/with 'quotes'\nand lines//unset/unset\n");
}

TEST_CASE("the configuration's shell and depth are what setup and history get") {
  Machine machine;
  machine.make_repository();
  for (const char* text : {"two\n", "three\n"}) {
    write_text(machine.project() / "f", text);
    machine.git({"commit", "-qam", "more"});
  }
  write_text(machine.project() / ".sandbox.yml",
             "shell: /bin/bash\nsync: {depth: 1}\nsetup: 'echo \"$0 $BASH_VERSION\" > shell'\n");
  auto ran = machine.exec("git rev-list --count HEAD");
  INFO(ran.err);
  CHECK(ran.out == "1\n");
  CHECK(file_text(machine.project() / "shell").rfind("/bin/bash ", 0) == 0);
  CHECK(machine.git({"rev-list", "--count", "HEAD"}).out == "3\n");
}

TEST_CASE("what --json was to say beside a command stands in Warnings") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / ".sandbox.yml", "env: {A: b}\n");
  auto before = last_line(machine.run({"exec", "--json", "--", "true"}).out);
  CHECK_FALSE(before.as_object().contains("Warnings"));
  write_text(machine.project() / ".sandbox.yml", "env: {A: c}\n");
  auto answer = last_line(machine.run({"exec", "--json", "--", "true"}).out);
  REQUIRE(answer.as_object().contains("Warnings"));
  CHECK(std::string(answer.at("Warnings").at(0).as_string())
            .find(".sandbox.yml has changed since the sandbox was made") != std::string::npos);
}

TEST_CASE("arguments of any bytes arrive as they are") {
  Machine machine;
  machine.make_repository();
  auto ended = machine.run(
      {"exec", "--", "printf", "%s|", "a b", "", "\xff\xfe", "'\"$x`", "new\nline", "--json"});
  CHECK(ended.out == "a b||\xff\xfe|'\"$x`|new\nline|--json|");
}

TEST_CASE("the option --json puts one line after the command's output") {
  Machine machine;
  machine.make_repository();
  auto ended =
      machine.run({"exec", "--json", "--", "sh", "-c", "echo output; echo x > pulled; exit 4"});
  CHECK(ended.status == 4);
  CHECK(ended.err.empty());
  CHECK(ended.out.rfind("output\n", 0) == 0);
  auto answer = last_line(ended.out);
  CHECK(answer.at("ExitCode") == 4);
  CHECK(answer.at("PulledFiles").as_array().size() == 1);
  CHECK(answer.at("PulledFiles").at(0) == "pulled");
  CHECK(answer.at("RunID").as_string().size() == 32);
  CHECK(std::string(answer.at("RunURL").as_string())
            .rfind("ssh://" + std::string(answer.at("RunID").as_string()) + "@127.0.0.1:", 0) == 0);
  CHECK(answer.at("Snapshot").as_string().size() == 40);
}

TEST_CASE("the option --json tells errors, too, on one line of stdout") {
  Machine machine;
  machine.make_repository();
  auto missing = machine.run({"exec", "--json", "--", "no-such-command"});
  CHECK(missing.status == 127);
  CHECK(missing.err.empty());
  CHECK(last_line(missing.out).at("Error").at("Origin") == "command");
  auto misuse = machine.run({"exec", "--json"});
  CHECK(misuse.status == 2);
  CHECK(last_line(misuse.out).at("Error").at("Origin") == "arguments");
  auto none = machine.run({"push", "--json", "--id", "nothing"});
  CHECK(none.status == 255);
  CHECK(last_line(none.out).at("Error").at("Message").as_string().size() > 0);
}

TEST_CASE("eight at once in a fresh project make one sandbox") {
  Machine machine;
  machine.make_repository();
  std::vector<test::Running> all;
  all.reserve(8);
  for (int i = 0; i < 8; ++i) {
    all.push_back(machine.start({"exec", "--json", "--", "true"}));
  }
  std::string id;
  for (auto& one : all) {
    auto ended = one.wait(std::chrono::seconds(120));
    INFO(ended.out << ended.err);
    REQUIRE(ended.status == 0);
    std::string mine(last_line(ended.out).at("RunID").as_string());
    CHECK((id.empty() || id == mine));
    id = mine;
  }
  CHECK(test::sandbox_count(machine.run({"list", "--json"}).out) == 1);
}

TEST_CASE("five at once from one work tree end with all lines, here and there") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  std::vector<test::Running> all;
  all.reserve(5);
  for (int i = 0; i < 5; ++i) {
    all.push_back(
        machine.start({"exec", "--", "sh", "-c", "echo S >> lines; sleep 0.1; echo E >> lines"}));
  }
  for (auto& one : all) {
    auto ended = one.wait(std::chrono::seconds(120));
    INFO(ended.err);
    CHECK(ended.status == 0);
  }
  std::string expected;
  for (int i = 0; i < 5; ++i) expected += "S\nE\n";
  CHECK(file_text(machine.project() / "lines") == expected);
  CHECK(machine.exec("cat lines").out == expected);
}

TEST_CASE("waiting says who holds the lock, once in a log, and a short wait says nothing") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  How open;
  open.input_stays_open = true;
  auto holder = machine.start({"exec", "--", "sh", "-c", "echo ready; cat"}, open);
  REQUIRE(holder.out_has("ready"));
  auto waiter = machine.start({"exec", "--", "echo", "mine"});
  REQUIRE(waiter.err_has("waiting for the lock"));
  auto quiet = machine.start({"exec", "--json", "--", "true"});
  auto in_line = [&] {
    return boost::json::parse(machine.run({"status", "--json"}).out).at("Queue").as_array().size();
  };
  REQUIRE(test::eventually([&] { return in_line() == 2; }));
  // Whoever came later says by now that it waits, so the quiet one would have said it, too.
  auto later = machine.start({"exec", "--", "true"});
  REQUIRE(later.err_has("waiting for the lock: place 3"));
  CHECK(quiet.err().empty());
  holder.end_input();
  auto ended = waiter.wait();
  CHECK(ended.status == 0);
  CHECK(ended.out == "mine\n");
  CHECK(ended.err.find("waiting for the lock: place 1 in line; held by tester: exec `sh -c ") == 0);
  CHECK(std::count(ended.err.begin(), ended.err.end(), '\n') == 1);
  auto silent = quiet.wait();
  CHECK(silent.err.empty());
  CHECK(later.wait().status == 0);
  holder.wait();
}

TEST_CASE("the options --no-wait and --wait=DURATION and SANDBOX_LOCK_WAIT bound the wait") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto holder = machine.start({"exec", "--", "sh", "-c", "echo ready; sleep 600"});
  REQUIRE(holder.out_has("ready"));
  auto refused = machine.run({"exec", "--no-wait", "--", "touch", "ran"});
  CHECK(refused.status == 75);
  CHECK(refused.err.find("tester") != std::string::npos);
  auto expired = machine.run({"exec", "--wait=1", "--", "touch", "ran"});
  CHECK(expired.status == 124);
  How zero;
  zero.environment = {{"SANDBOX_LOCK_WAIT", "0"}};
  CHECK(machine.run({"exec", "--", "touch", "ran"}, zero).status == 75);
  How wrong;
  wrong.environment = {{"SANDBOX_LOCK_WAIT", "soon"}};
  auto misuse = machine.run({"exec", "--", "true"}, wrong);
  CHECK(misuse.status == 2);
  CHECK(misuse.err.find("SANDBOX_LOCK_WAIT") != std::string::npos);
  CHECK_FALSE(fs::exists(machine.project() / "ran"));
  auto json = machine.run({"exec", "--json", "--no-wait", "--", "true"});
  CHECK(last_line(json.out).at("Error").at("Origin") == "lock");
  auto waiting = machine.start({"exec", "--", "true"});
  REQUIRE(waiting.err_has("waiting for the lock"));
  waiting.signal(SIGINT);
  CHECK(waiting.wait(std::chrono::seconds(10)).status == 130);
  holder.signal(SIGINT);
  holder.wait();
}

TEST_CASE("make, three times, builds once") {
  Machine machine;
  machine.make_repository();
  write_text(machine.project() / "Makefile", "out: f\n\techo built >> log\n\tcp f out\n");
  for (int i = 0; i < 3; ++i) {
    INFO(i);
    auto made = machine.run({"exec", "--", "make"});
    INFO(made.out << made.err);
    REQUIRE(made.status == 0);
    CHECK(file_text(machine.project() / "log") == "built\n");
  }
  write_text(machine.project() / "f", "changed\n");
  REQUIRE(machine.run({"exec", "--", "make"}).status == 0);
  CHECK(file_text(machine.project() / "out") == "changed\n");
  CHECK(file_text(machine.project() / "log") == "built\nbuilt\n");
}

// The agent has said `released` and sent the result; the client, which merges it, is held up by its
// store's lock.
TEST_CASE("a client killed with -9 when the lock is free again and nothing merged loses nothing") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  How open;
  open.input_stays_open = true;
  auto victim = machine.start({"exec", "--", "sh", "-c", "echo ready; cat; echo x > made"}, open);
  REQUIRE(victim.out_has("ready"));
  auto origin = fs::directory_iterator(machine.state() / "origins")->path();
  auto lock = protocol::os::FileLock::lock(origin / "store.git/lock",
                                           protocol::os::FileLock::Kind::exclusive);
  REQUIRE(lock);
  victim.end_input();
  REQUIRE(test::eventually([&] {
    return boost::json::parse(machine.run({"status", "--json"}).out).at("Active") == false;
  }));
  victim.signal(SIGKILL);
  victim.wait();
  CHECK_FALSE(fs::exists(machine.project() / "made"));
  lock->release();
  auto pulled = machine.run({"pull"});
  INFO(pulled.out << pulled.err);
  CHECK(pulled.status == 0);
  CHECK(file_text(machine.project() / "made") == "x\n");
}

TEST_CASE("a client killed with -9 frees the lock, and loses no changes") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto victim =
      machine.start({"exec", "--", "sh", "-c", "echo kept > kept; echo ready; exec sleep 600"});
  REQUIRE(victim.out_has("ready"));
  victim.signal(SIGKILL);
  victim.wait();
  auto next = machine.exec("cat kept");
  CHECK(next.status == 0);
  CHECK(next.out == "kept\n");
  CHECK(file_text(machine.project() / "kept") == "kept\n");
}

TEST_CASE("a conflict keeps ours, saves theirs, is named, and makes 0 a 254") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto running =
      machine.start({"exec", "--", "sh", "-c", "echo theirs > f; echo ready; cat > /dev/null"}, [] {
        How how;
        how.input_stays_open = true;
        return how;
      }());
  REQUIRE(running.out_has("ready"));
  write_text(machine.project() / "f", "ours\n");
  running.end_input();
  auto ended = running.wait();
  CHECK(ended.status == 254);
  CHECK(ended.err.find("f.sandbox-conflict") != std::string::npos);
  CHECK(file_text(machine.project() / "f") == "ours\n");
  CHECK(file_text(machine.project() / "f.sandbox-conflict") == "theirs\n");
}

TEST_CASE("the option --trace shows each directive as it is sent and answered, in order") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto ended = machine.run({"exec", "--trace", "-e", "TOKEN=secret", "--", "true"});
  std::size_t at = 0;
  for (const char* text :
       {"> 0 bind", "> 1 __rwx_sandbox_lock_requested__", "> 1 __rwx_sandbox_sync_start__",
        "> 1 __rwx_sandbox_sync_end__", "> 1 exec", "> 1 __rwx_sandbox_lock_released__",
        "< 1 exited", "< 1 released"}) {
    INFO(text);
    auto found = ended.err.find(text, at);
    CHECK(found != std::string::npos);
    at = found == std::string::npos ? at : found;
  }
  CHECK(ended.err.find("secret") == std::string::npos);
  CHECK(machine.exec("true").err.find("__rwx_sandbox") == std::string::npos);
}

TEST_CASE("on a terminal the waiting line changes in place and is taken away") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto holder = machine.start({"exec", "--", "sh", "-c", "echo ready; sleep 3"});
  REQUIRE(holder.out_has("ready"));
  How how;
  how.terminal = true;
  auto waiter = machine.start({"exec", "--", "echo", "mine"}, how);
  REQUIRE(waiter.out_has("place 1 in line"));
  auto ended = waiter.wait();
  CHECK(ended.status == 0);
  auto first = ended.out.find("place 1 in line");
  CHECK(ended.out.find("place 1 in line", first + 1) != std::string::npos);
  CHECK(ended.out.find("\r\x1b[K") != std::string::npos);
  CHECK(ended.out.substr(ended.out.size() - 6) == "mine\r\n");
  holder.wait();
}

TEST_CASE("editing while the command runs keeps both sides' changes") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  How open;
  open.input_stays_open = true;
  auto running = machine.start(
      {"exec", "--", "sh", "-c", "echo there > there; echo ready; cat > /dev/null"}, open);
  REQUIRE(running.out_has("ready"));
  write_text(machine.project() / "here", "here\n");
  running.end_input();
  CHECK(running.wait().status == 0);
  CHECK(file_text(machine.project() / "here") == "here\n");
  CHECK(file_text(machine.project() / "there") == "there\n");
}
