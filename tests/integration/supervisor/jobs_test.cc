// What a client of a supervisor sees of its command: streams, status, signals, terminals, input.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>

#include "protocol/os/fd.h"
#include "protocol/os/subreaper.h"
#include "tests/support/catch.h"
#include "tests/support/supervised.h"

using test::Client;
using test::Supervised;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

wire::Exec command(std::vector<std::string> argv) {
  wire::Exec exec;
  exec.argv = std::move(argv);
  return exec;
}

// Kilobytes that this process holds now.
std::size_t resident_kb() {
  std::ifstream file("/proc/self/statm");
  std::size_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) / 1024;
}

}  // namespace

TEST_CASE("output comes before the ends of both streams, and these before the status") {
  Supervised s;
  auto client = s.connect();
  client->exec(1, "echo out; echo err >&2; exit 7");
  auto started = client->expect<wire::Started>();
  CHECK(started.pid > 0);
  CHECK_FALSE(started.job.empty());
  auto exited = client->expect<wire::Exited>();
  CHECK(exited.status == 7);
  CHECK(exited.signal.empty());
  CHECK(exited.leftovers.empty());
  CHECK(client->output(1) == "out\n");
  CHECK(client->error(1) == "err\n");
  std::vector<std::string>& order = client->order;
  REQUIRE(order.size() >= 6);
  CHECK(order[0] == "hello");
  CHECK(order[1] == "started");
  std::vector<std::string> end(order.end() - 3, order.end());
  CHECK(end == std::vector<std::string>{"output end", "error end", "exited"});
}

TEST_CASE("a command that a signal ended says which") {
  Supervised s;
  auto client = s.connect();
  client->exec(1, "kill -KILL $$");
  auto exited = client->expect<wire::Exited>();
  CHECK(exited.signal == "KILL");
  CHECK(exited.status == 0);
}

TEST_CASE("whichever process of a job was killed for want of memory, the job says so") {
  Supervised s;
  auto events = s.directory / "memory.events";
  std::ofstream(events) << "low 0\noom 4\noom_kill 4\n";
  s.options.oom_events = events;
  auto client = s.connect();
  client->exec(1, "exit 2");
  CHECK_FALSE(client->expect<wire::Exited>().oom);
  client->exec(2, "printf 'oom_kill 5\\n' > " + events.string() + "; exit 2");
  auto exited = client->expect<wire::Exited>();
  CHECK(exited.oom);
  CHECK(exited.status == 2);
  client->exec(3, "kill -KILL $$");
  CHECK_FALSE(client->expect<wire::Exited>().oom);
}

TEST_CASE("a command that cannot be run fails its step and skips what comes after it") {
  Supervised s;
  auto client = s.connect();
  SECTION("not found") {
    client->send(1, command({"no-such-program-anywhere"}));
    client->send(1, wire::LockReleased{});
    auto failed = client->expect<wire::Failed>();
    CHECK(failed.step == "exec");
    CHECK(failed.code == "not_found");
    CHECK(failed.message.find("no-such-program-anywhere") != std::string::npos);
  }
  SECTION("not executable") {
    std::ofstream(s.workspace() / "plain") << "x";
    client->send(1, command({"./plain"}));
    client->send(1, wire::LockReleased{});
    CHECK(client->expect<wire::Failed>().code == "denied");
  }
  SECTION("nothing that a process could be given") {
    client->send(1, command({std::string("a\0b", 3)}));
    client->send(1, wire::LockReleased{});
    CHECK(client->expect<wire::Failed>().code == "bad_input");
  }
  CHECK(client->expect<wire::Skipped>().step == "__rwx_sandbox_lock_released__");
  // The next request is none the worse for it.
  client->exec(2, "exit 3");
  CHECK(client->expect<wire::Exited>().status == 3);
}

TEST_CASE("a job knows its sandbox, its home and its directory, and little of the agent") {
  ::setenv("SANDBOX_TEST_SECRET", "leaked", 1);
  ::setenv("LC_TEST", "passed", 1);
  Supervised s;
  ::unsetenv("SANDBOX_TEST_SECRET");
  ::unsetenv("LC_TEST");
  std::filesystem::create_directories(s.workspace() / "sub dir");
  auto client = s.connect();
  wire::Exec exec;
  exec.script = "echo \"$HOME|$SANDBOX_ID|$PWD|$(pwd)|$SANDBOX_TEST_SECRET|$LC_TEST|$MINE|$1\"";
  exec.argv = {"argument"};
  exec.env = {{"MINE", "two words"}};
  exec.cwd = "sub dir";
  client->send(1, exec);
  client->expect<wire::Exited>();
  auto root = s.options.directory;
  std::string here = (s.workspace() / "sub dir").native();
  CHECK(client->output(1) == (root / "home").native() + "|sandbox|" + here + "|" + here +
                                 "||passed|two words|argument\n");
}

TEST_CASE(
    "a directory that is not there is made, as one that is empty at the origin does not travel") {
  Supervised s;
  auto client = s.connect();
  wire::Exec exec;
  exec.script = "pwd";
  exec.cwd = "not yet/there";
  client->send(1, exec);
  client->expect<wire::Exited>();
  CHECK(client->output(1) == (s.workspace() / "not yet/there").native() + "\n");
}

TEST_CASE("a directory that was asked for by name is not made") {
  Supervised s;
  auto client = s.connect();
  wire::Exec exec;
  exec.script = "pwd";
  exec.cwd = "a/typo";
  exec.make_cwd = false;
  client->send(1, exec);
  auto failed = client->expect<wire::Failed>();
  CHECK(failed.step == "exec");
  CHECK(failed.code == "bad_input");
  CHECK(failed.message.find("a/typo") != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(s.workspace() / "a"));
}

TEST_CASE("a command never runs in another directory than the one asked for") {
  Supervised s;
  std::filesystem::create_directory_symlink("/etc", s.workspace() / "link");
  std::ofstream(s.workspace() / "file") << "x";
  auto client = s.connect();
  std::uint32_t number = 0;
  for (std::string cwd : {"../..", "/etc", "a/../../b", "link/made", "file"}) {
    wire::Exec exec;
    exec.script = "pwd";
    exec.cwd = cwd;
    client->send(++number, exec);
    auto failed = client->expect<wire::Failed>();
    CHECK(failed.step == "exec");
    CHECK(failed.message.find(cwd) != std::string::npos);
  }
}

TEST_CASE("input goes to the command, to its end, however much") {
  Supervised s;
  auto client = s.connect();
  std::string bytes(8 << 20, 'i');
  for (std::size_t i = 0; i < bytes.size(); i += 1000) bytes[i] = static_cast<char>('a' + i % 26);
  client->send(1, command({"cat"}));
  s.loop.start([](Client& c, std::string all) -> protocol::os::awaitable<void> {
    auto sent = co_await c.frames->send_bulk(wire::FrameKind::input, 1, all);
    if (sent) c.frames->end_bulk(wire::FrameKind::input, 1);
  }(*client, bytes));
  CHECK(client->expect<wire::Exited>().status == 0);
  CHECK(client->output(1) == bytes);
}

TEST_CASE("input sent ahead of the command reaches it; what nobody reads holds up nothing") {
  Supervised s;
  auto client = s.connect();
  client->input(1, "ahead\n");
  client->exec(1, "read line; echo \"got $line\"");
  client->expect<wire::Exited>();
  CHECK(client->output(1) == "got ahead\n");
  // Far more than all credit for a command that reads none of it.
  client->exec(2, "exit 4");
  client->input(2, std::string(6 << 20, 'x'));
  CHECK(client->expect<wire::Exited>().status == 4);
}

TEST_CASE("without interactive input stdin is empty") {
  Supervised s;
  auto client = s.connect();
  wire::Exec exec;
  exec.script = "readlink /proc/self/fd/0; cat";
  exec.interactive_input = false;
  client->send(1, exec);
  client->expect<wire::Exited>();
  CHECK(client->output(1) == "/dev/null\n");
}

TEST_CASE("a signal reaches the command and its children, also one that overtook the command") {
  Supervised s;
  auto client = s.connect();
  SECTION("while it runs") {
    client->exec(1, "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.05; done");
    client->wait_output(1, "ready");
    client->send(1, wire::Signal{"USR1"});
    CHECK(client->expect<wire::Exited>().status == 5);
    CHECK(client->output(1) == "ready\ncaught\n");
  }
  SECTION("before it began") {
    client->send(1, wire::Signal{"INT"});
    client->send(1, command({"sleep", "30"}));  // dash forgets one that comes while it starts
    CHECK(client->expect<wire::Exited>().signal == "INT");
  }
  SECTION("that is none") {
    client->exec(1, "sleep 0.2");
    client->send(1, wire::Signal{"NONSENSE"});
    CHECK(client->expect<wire::Failed>().step == "signal");
    CHECK(client->expect<wire::Exited>().status == 0);
  }
}

TEST_CASE("a stream that nobody reads any more ends those who write there, and nobody else") {
  Supervised s;
  auto client = s.connect();
  SECTION("SIGPIPE") {
    client->exec(1, "yes; echo \"yes: $?\" >&2; exit 4");
    client->wait_output(1, "y");
    client->send(1, wire::Signal{"PIPE", "output"});
    CHECK(client->expect<wire::Exited>().status == 4);
    CHECK(client->error(1) == "yes: 141\n");
  }
  SECTION("EPIPE, and the other stream") {
    client->exec(1,
                 "trap '' PIPE; echo ready; while /bin/echo x >&2; do :; done; echo done; exit 5");
    client->wait_output(1, "ready");
    client->send(1, wire::Signal{"PIPE", "error"});
    CHECK(client->expect<wire::Exited>().status == 5);
    CHECK(client->output(1) == "ready\ndone\n");
  }
  SECTION("a terminal has one stream") {
    wire::Exec exec;
    exec.script = "exec yes";
    exec.terminal = wire::Terminal{};
    client->send(1, exec);
    client->wait_output(1, "y");
    client->send(1, wire::Signal{"PIPE", "output"});
    CHECK(client->expect<wire::Exited>().signal == "PIPE");
  }
}

TEST_CASE(
    "what a command leaves in its session is ended and named, and its streams not waited for") {
  Supervised s;
  auto client = s.connect();
  auto begun = std::chrono::steady_clock::now();
  client->exec(1,
               "sleep 300 & trap '' TERM; sh -c \"trap '' TERM; sleep 301; sleep 302\" & sleep "
               "0.2; echo done; exit 6");
  auto started = client->expect<wire::Started>();
  auto exited = client->expect<wire::Exited>();
  CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds(10));
  CHECK(exited.status == 6);
  CHECK(client->output(1) == "done\n");
  REQUIRE_FALSE(exited.leftovers.empty());
  CHECK(std::any_of(exited.leftovers.begin(), exited.leftovers.end(),
                    [](const std::string& name) { return name.starts_with("sleep (pid "); }));
  CHECK(protocol::os::session_processes(static_cast<pid_t>(started.pid)).empty());
}

TEST_CASE("what left the session stays as a resident, and is ended by shutdown") {
  Supervised s;
  auto client = s.connect();
  client->exec(1, "setsid sleep 303 >/dev/null 2>&1 & sleep 0.2; echo $!");
  auto exited = client->expect<wire::Exited>();
  CHECK(exited.leftovers.empty());
  client->send(0, wire::StatusRequest{});
  auto status = client->expect<wire::Status>();
  REQUIRE(status.jobs.size() == 2);
  CHECK(status.jobs[0].state == "exited");
  CHECK(status.jobs[0].status == 0);
  CHECK(status.jobs[1].state == "resident");
  CHECK(status.jobs[1].command == "sleep");
  pid_t resident = static_cast<pid_t>(status.jobs[1].pid);
  CHECK(::kill(resident, 0) == 0);
  client->send(0, wire::Shutdown{});
  client->expect<wire::Ended>();
  s.wait_stopped();
  CHECK(::kill(resident, 0) != 0);
}

TEST_CASE("a resident that holds a stream does not hold up the status") {
  Supervised s;
  auto client = s.connect();
  client->exec(1, "setsid sh -c 'sleep 304' & sleep 0.1; echo done");
  CHECK(client->expect<wire::Exited>().status == 0);
  CHECK(client->output(1) == "done\n");
}

TEST_CASE("a terminal has its size, follows it, and passes keys") {
  Supervised s;
  auto client = s.connect();
  wire::Exec exec;
  exec.script =
      "stty -echo; stty size; echo $TERM; tty >/dev/null && echo terminal; "
      "while read line; do echo \"<$line>\"; stty size; done; echo over";
  exec.terminal = wire::Terminal{"xterm-256color", 33, 111};
  client->send(1, exec);
  client->wait_output(1, "terminal");
  CHECK(client->output(1).find("33 111") != std::string::npos);
  CHECK(client->output(1).find("xterm-256color") != std::string::npos);
  client->send(1, wire::Window{44, 122});
  client->input(1, "hello\n");
  client->wait_output(1, "<hello>");
  client->wait_output(1, "44 122");
  SECTION("the end of input is the key for it") {
    client->end_input(1);
    CHECK(client->expect<wire::Exited>().status == 0);
    CHECK(client->output(1).find("over") != std::string::npos);
  }
  SECTION("Ctrl+C interrupts") {
    client->input(1, "\x03");
    CHECK(client->expect<wire::Exited>().signal == "INT");
  }
}

TEST_CASE("all that a command wrote to its terminal arrives, to the last byte") {
  Supervised s;
  auto client = s.connect();
  for (std::uint32_t number = 1; number <= 10; ++number) {
    wire::Exec exec;
    exec.script = "seq 1 3000; echo THE-END";
    exec.terminal = wire::Terminal{"xterm", 24, 80};
    client->send(number, exec);
    client->expect<wire::Exited>();
    CHECK(client->output(number).ends_with("3000\r\nTHE-END\r\n"));
    CHECK(client->output(number).size() > 16000);
  }
}

TEST_CASE("a login shell is what an empty command means") {
  Supervised s;
  auto client = s.connect();
  client->send(1, wire::Exec{});
  client->input(1, "echo in $0; exit 9\n");
  CHECK(client->expect<wire::Exited>().status == 9);
  CHECK(client->output(1).find("in ") != std::string::npos);
}

TEST_CASE("a slow reader slows the command, and memory stays flat") {
  Supervised s;
  auto client = s.connect();
  client->consuming = false;
  client->exec(1, "head -c 50000000 /dev/zero; echo finished >&2");
  client->expect<wire::Started>();
  std::size_t before = resident_kb();
  // Nothing is consumed: the first credit passes, then nothing more.
  s.loop.run(protocol::os::pause(s.loop.executor(), std::chrono::milliseconds(300)));
  CHECK(client->received == wire::kInitialStreamCredit);
  CHECK(s.supervisor->running_jobs().size() == 1);
  CHECK(client->error(1).empty());
  CHECK(resident_kb() < before + 20000);
  client->consuming = true;
  client->frames->consumed(wire::FrameKind::output, 1, wire::kInitialStreamCredit);
  client->expect<wire::Exited>();
  CHECK(client->received == 50000000 + std::string("finished\n").size());
}

TEST_CASE("two connections run at once, each with its own output") {
  Supervised s;
  auto one = s.connect("a"), two = s.connect("b");
  one->exec(1, "echo one; read line; echo $line");
  two->exec(1, "echo two; read line; echo $line");
  one->wait_output(1, "one");
  two->wait_output(1, "two");
  two->input(1, "second\n");
  CHECK(two->expect<wire::Exited>().status == 0);
  one->input(1, "first\n");
  CHECK(one->expect<wire::Exited>().status == 0);
  CHECK(one->output(1) == "one\nfirst\n");
  CHECK(two->output(1) == "two\nsecond\n");
}

TEST_CASE("a tunnel that is still being dialled ends with its connection") {
  Supervised s;
  // With its backlog full, whoever comes next waits.
  os::Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* name = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(::bind(listener.get(), name, size) == 0);
  REQUIRE(::listen(listener.get(), 0) == 0);
  REQUIRE(::getsockname(listener.get(), name, &size) == 0);
  std::vector<os::Fd> waiting;
  pollfd last{};
  do {
    waiting.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    last = {waiting.back().get(), POLLOUT, 0};
    (void)::connect(last.fd, name, size);
  } while (::poll(&last, 1, 100) == 1 && waiting.size() < 100);
  REQUIRE(waiting.size() < 100);
  auto client = s.connect();
  client->send(2, wire::Dial{ntohs(address.sin_port)});
  client->send(0, wire::Hangup{});
  client->expect<wire::Ended>();
  client.reset();
  s.supervisor->shutdown();
  s.wait_stopped();  // with every connection, and all that it began
}

TEST_CASE("a tunnel reaches a port of the sandbox, and nobody listening is told") {
  Supervised s;
  auto client = s.connect();
  client->exec(1,
               "python3 -c 'import socket; l=socket.create_server((\"127.0.0.1\",0)); "
               "print(l.getsockname()[1], flush=True); c,_=l.accept(); d=c.recv(100); "
               "c.sendall(b\"echo \"+d); c.close()'");
  client->wait_output(1, "\n");
  auto port = static_cast<std::uint16_t>(std::stoi(client->output(1)));
  client->expect<wire::Started>();
  client->send(2, wire::Dial{port});
  client->expect<wire::Started>();
  client->input(2, "hello");
  client->wait_output(2, "echo hello");
  client->expect<wire::Exited>();
  client->send(3, wire::Dial{port});
  CHECK(client->expect<wire::Failed>().step == "dial");
}
