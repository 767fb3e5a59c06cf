#include "protocol/os/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "protocol/os/pty.h"
#include "protocol/os/run.h"
#include "protocol/os/signal_names.h"
#include "protocol/os/signals.h"
#include "protocol/os/subreaper.h"
#include "protocol/os/wakeup.h"
#include "tests/support/catch.h"
#include "tests/support/loop.h"
#include "tests/support/temporary_directory.h"

using namespace protocol;
using os::ExitStatus;
using os::Process;
using os::Spawn;
using wire::Errc;

namespace {

Spawn shell(std::string script) {
  Spawn spawn;
  spawn.argv = {"/bin/sh", "-c", std::move(script)};
  return spawn;
}

std::string output_of(std::string script) {
  auto output = os::run(shell(std::move(script)));
  REQUIRE(output);
  return output->out;
}

}  // namespace

TEST_CASE("a program's output, errors and status come back apart") {
  auto output = os::run(shell("echo out; echo err >&2; exit 7"));
  REQUIRE(output);
  CHECK(output->out == "out\n");
  CHECK(output->err == "err\n");
  CHECK(output->exit.status == 7);
  CHECK_FALSE(output->exit.ok());
}

TEST_CASE("a program that a signal ended tells which") {
  auto output = os::run(shell("kill -KILL $$"));
  REQUIRE(output);
  CHECK(output->exit.signal == SIGKILL);
  CHECK(os::signal_name(output->exit.signal) == "KILL");
}

TEST_CASE("signals have the same name both ways") {
  for (const char* name : {"HUP", "INT", "QUIT", "KILL", "TERM", "USR1", "USR2", "WINCH", "CONT"}) {
    REQUIRE(os::signal_number(name));
    CHECK(os::signal_name(*os::signal_number(name)) == name);
    CHECK(os::signal_number("SIG" + std::string(name)) == os::signal_number(name));
  }
  CHECK_FALSE(os::signal_number("NONSENSE"));
  CHECK_FALSE(os::signal_number(""));
  CHECK_FALSE(os::signal_number("9"));
}

TEST_CASE("a program that is not there, or that is not one, says so") {
  test::TemporaryDirectory directory;
  Spawn spawn;
  SECTION("nowhere on PATH") {
    spawn.argv = {"no-such-program-anywhere"};
    CHECK(os::run(spawn).error().code == Errc::not_found);
  }
  SECTION("not at its path") {
    spawn.argv = {"./no-such-program"};
    CHECK(os::run(spawn).error().code == Errc::not_found);
  }
  SECTION("not executable") {
    std::ofstream(directory / "plain") << "echo hi\n";
    spawn.argv = {directory / "plain"};
    CHECK(os::run(spawn).error().code == Errc::denied);
    spawn.argv = {"plain"};
    spawn.env = {{{"PATH", directory.path()}}};
    CHECK(os::run(spawn).error().code == Errc::denied);
  }
  SECTION("a directory") {
    spawn.argv = {directory.path()};
    CHECK(os::run(spawn).error().code == Errc::denied);
  }
  SECTION("empty") {
    CHECK(os::run(spawn).error().code == Errc::not_found);
    spawn.argv = {""};
    CHECK(os::run(spawn).error().code == Errc::not_found);
  }
  SECTION("a directory to run in that is not there") {
    spawn.argv = {"true"};
    spawn.cwd = directory / "missing";
    auto output = os::run(spawn);
    CHECK(output.error().code == Errc::not_found);
    CHECK(output.error().what.find("missing") != std::string::npos);
  }
  SECTION("arguments without end") {
    spawn.argv = {"true", std::string(10 << 20, 'x')};
    CHECK(os::run(spawn).error().code == Errc::too_large);
  }
}

TEST_CASE("a script without #! is run as a shell would run it") {
  test::TemporaryDirectory directory;
  std::ofstream(directory / "script") << "echo ran $1\n";
  ::chmod((directory / "script").c_str(), 0755);
  Spawn spawn;
  spawn.argv = {directory / "script", "it"};
  auto output = os::run(spawn);
  REQUIRE(output);
  CHECK(output->out == "ran it\n");
}

TEST_CASE("the program is looked up in the PATH of its own environment, from its own directory") {
  test::TemporaryDirectory directory;
  std::filesystem::create_directory(directory / "bin");
  std::ofstream(directory / "bin/tool") << "#!/bin/sh\necho found\n";
  ::chmod((directory / "bin/tool").c_str(), 0755);
  Spawn spawn;
  spawn.argv = {"tool"};
  spawn.cwd = directory.path();
  SECTION("absolute") { spawn.env = {{{"PATH", (directory / "bin").native()}}}; }
  SECTION("relative") { spawn.env = {{{"PATH", "bin"}}}; }
  SECTION("after a directory that is not there") {
    spawn.env = {{{"PATH", "/nonexistent:" + (directory / "bin").native()}}};
  }
  auto output = os::run(spawn);
  REQUIRE(output);
  CHECK(output->out == "found\n");
}

TEST_CASE("a child gets the environment and directory it is given, and no other") {
  ::setenv("SANDBOX_TEST_LEAK", "1", 1);
  Spawn spawn = shell("pwd; env | grep -c . ; echo $ONE");
  spawn.env = {{{"ONE", "two words"}, {"PATH", "/usr/bin:/bin"}}};
  spawn.cwd = "/usr";
  auto output = os::run(spawn);
  REQUIRE(output);
  CHECK(output->out.starts_with("/usr\n"));
  CHECK(output->out.ends_with("two words\n"));
  auto leaked = os::run([] {
    Spawn s = shell("echo [$SANDBOX_TEST_LEAK]");
    s.env.emplace();
    return s;
  }());
  CHECK(leaked->out == "[]\n");
  ::unsetenv("SANDBOX_TEST_LEAK");
}

TEST_CASE("a child has default dispositions, an empty mask and no extra descriptors") {
  // As under nohup, from a parent that is careless about all three.
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t blocked, before;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGTERM);
  ::sigaddset(&blocked, SIGUSR1);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
  int careless = ::open("/etc/passwd", O_RDONLY);  // no O_CLOEXEC
  Spawn spawn;
  spawn.argv = {"cat", "/proc/self/status"};
  auto status = os::run(spawn);
  std::string descriptors = output_of("ls /proc/self/fd | tr '\\n' ' '");
  ::close(careless);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::signal(SIGINT, SIG_DFL);
  ::signal(SIGHUP, SIG_DFL);
  REQUIRE(status);
  INFO(status->out.substr(status->out.find("SigBlk"), 120));
  CHECK(status->out.find("SigBlk:\t0000000000000000") != std::string::npos);
  // glibc's posix_spawn leaves its own two signals, 32 and 33, ignored; they are nobody else's.
  auto ignored = std::stoull(status->out.substr(status->out.find("SigIgn:") + 7), nullptr, 16);
  CHECK((ignored & ~0x180000000ull) == 0);
  CHECK(descriptors == "0 1 2 3 ");  // 3 is ls's own, of the directory
}

TEST_CASE("stdin is /dev/null unless one is given") {
  CHECK(output_of("readlink /proc/self/fd/0") == "/dev/null\n");
}

TEST_CASE("descriptors below 3 may be given in any order") {
  auto in = os::make_pipe(), out = os::make_pipe();
  REQUIRE(in);
  REQUIRE(out);
  int saved_in = ::dup(0), saved_out = ::dup(1);
  ::dup2(out->write.get(), 0);  // the child's stdout is our 0, its stdin our 1
  ::dup2(in->read.get(), 1);
  Spawn spawn = shell("cat");
  spawn.stdin_fd = 1;
  spawn.stdout_fd = 0;
  auto process = Process::start(spawn);
  ::dup2(saved_in, 0);
  ::dup2(saved_out, 1);
  ::close(saved_in);
  ::close(saved_out);
  REQUIRE(process);
  REQUIRE(::write(in->write.get(), "crossed", 7) == 7);
  in->write.reset();
  out->write.reset();
  char buffer[16] = {};
  CHECK(::read(out->read.get(), buffer, sizeof buffer) == 7);
  CHECK(std::string(buffer) == "crossed");
  CHECK(process->wait_blocking().ok());
}

TEST_CASE("descriptors that are passed on are numbered from 3, whatever their numbers were") {
  test::TemporaryDirectory scratch;
  auto file = [&](const char* name) {
    std::ofstream(scratch / name) << name;
    return os::Fd(::open((scratch / name).c_str(), O_RDONLY | O_CLOEXEC));
  };
  os::Fd first = file("first"), second = file("second");
  if (first.get() > second.get()) std::swap(first, second);
  auto spawn = shell("cat <&3; echo; cat <&4; ls /proc/self/fd | tr '\n' ' '");
  spawn.pass_fds = {second.get(), first.get()};
  auto output = os::run(spawn);
  REQUIRE(output);
  // 5 is what ls itself has open.
  CHECK((output->out == "second\nfirst0 1 2 3 4 5 " || output->out == "first\nsecond0 1 2 3 4 5 "));
}

TEST_CASE("run passes 50 MB both ways without deadlock") {
  std::string input(50 << 20, 'x');
  for (std::size_t i = 0; i < input.size(); i += 4096) input[i] = static_cast<char>(i >> 12);
  Spawn spawn;
  spawn.argv = {"cat"};
  auto output = os::run(spawn, input);
  REQUIRE(output);
  CHECK(output->exit.ok());
  CHECK(output->out == input);
}

TEST_CASE("run survives a program that does not read its input") {
  std::string input(1 << 20, 'x');
  auto output = os::run(shell("exit 3"), input);
  REQUIRE(output);
  CHECK(output->exit.status == 3);
}

TEST_CASE("run keeps the end of much stderr and refuses too much stdout") {
  auto noisy = os::run(shell("head -c 300000 /dev/zero | tr '\\0' a >&2; echo end >&2"));
  REQUIRE(noisy);
  CHECK(noisy->err.size() == 64 * 1024);
  CHECK(noisy->err.ends_with("aend\n"));
  auto endless = os::run(shell("exec cat /dev/zero"), {}, 1 << 20);
  REQUIRE_FALSE(endless);
  CHECK(endless.error().code == Errc::too_large);
}

TEST_CASE("run does not wait for a daemon that holds its output") {
  auto start = std::chrono::steady_clock::now();
  auto output = os::run(shell("sleep 20 & echo $!"));
  REQUIRE(output);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(10));
  ::kill(std::stoi(output->out), SIGKILL);
}

TEST_CASE("a child that is waited for as a coroutine gives its status once it ended") {
  test::Loop loop;
  bool portable = GENERATE(false, true);
  Process::set_portable(portable);
  auto process = Process::start(shell("read line; exit 9"));
  REQUIRE(process);
  CHECK(loop.run(process->wait(loop.executor())).status == 9);
  // Its number may mean another process now.
  CHECK(process->kill(SIGTERM).error().code == Errc::gone);
  CHECK(process->kill_group(SIGTERM).error().code == Errc::gone);
  CHECK(loop.run(process->wait(loop.executor())).status == 9);
  Process::set_portable(false);
}

TEST_CASE("an ended child keeps its number until it is reaped") {
  test::Loop loop;
  auto process = Process::start(shell("exit 4"));
  REQUIRE(process);
  loop.run(process->exited(loop.executor()));
  CHECK(::kill(process->pid(), 0) == 0);
  CHECK(process->reap().status == 4);
  CHECK(::kill(process->pid(), 0) != 0);
}

TEST_CASE("a session of its own is signalled as a group") {
  test::Loop loop;
  auto out = os::make_pipe();
  Spawn spawn = shell("sleep 30 & echo ready; wait");
  spawn.new_session = true;
  spawn.stdout_fd = out->write.get();
  auto process = Process::start(spawn);
  REQUIRE(process);
  out->write.reset();
  char buffer[8];
  REQUIRE(::read(out->read.get(), buffer, sizeof buffer) == 6);
  CHECK(os::session_processes(process->pid()).size() == 2);
  REQUIRE(process->kill_group(SIGTERM));
  CHECK(loop.run(process->wait(loop.executor())).signal == SIGTERM);
  CHECK(::read(out->read.get(), buffer, sizeof buffer) == 0);  // sleep is gone too
}

TEST_CASE("a terminal becomes the child's controlling one") {
  test::Loop loop;
  auto pty = os::open_pty({30, 100});
  REQUIRE(pty);
  Spawn spawn = shell("tty; stty size; read line");
  spawn.new_session = true;
  spawn.terminal = pty->path;
  auto process = Process::start(spawn);
  REQUIRE(process);
  pty->slave.reset();
  std::string seen;
  char buffer[256];
  while (seen.find("30 100") == std::string::npos) {
    ssize_t count = ::read(pty->master.get(), buffer, sizeof buffer);
    REQUIRE(count > 0);
    seen.append(buffer, static_cast<std::size_t>(count));
  }
  CHECK(seen.find(pty->path) != std::string::npos);
  REQUIRE(::write(pty->master.get(), "\x03", 1) == 1);  // Ctrl+C
  auto exit = loop.run(process->wait(loop.executor()));
  CHECK(exit.signal == SIGINT);
}

TEST_CASE("orphans become our children, and are reaped without taking a child that is waited for") {
  REQUIRE(os::become_subreaper());
  test::Loop loop;
  // The shell ends at once; its background child is then ours, and ends.
  auto kept = Process::start(shell("exit 5"));
  REQUIRE(kept);
  std::string orphan = output_of("(sleep 0.05; exit 1) >/dev/null 2>&1 & echo $!");
  pid_t pid = std::stoi(orphan);
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  int reaped = 0;
  while (reaped == 0 && std::chrono::steady_clock::now() < deadline) {
    reaped = os::reap_orphans();
    loop.run(os::pause(loop.executor(), std::chrono::milliseconds(5)));
  }
  CHECK(reaped >= 1);
  CHECK(::kill(pid, 0) != 0);
  CHECK(kept->wait_blocking().status == 5);
}

TEST_CASE("the process table knows parents, sessions, names and start times") {
  auto process = Process::start([] {
    Spawn s = shell("sleep 30");
    s.argv = {"sleep", "30"};
    s.new_session = true;
    return s;
  }());
  REQUIRE(process);
  auto mine = os::descendants(::getpid());
  auto found = std::find_if(mine.begin(), mine.end(),
                            [&](const os::ProcessInfo& p) { return p.pid == process->pid(); });
  REQUIRE(found != mine.end());
  CHECK(found->parent == ::getpid());
  CHECK(found->session == process->pid());
  CHECK(found->name == "sleep");
  CHECK(found->started > 0);
  CHECK(found->started == os::start_ticks(process->pid()));
  (void)process->kill(SIGKILL);
  process->wait_blocking();
  CHECK(os::start_ticks(process->pid()) == 0);
}

TEST_CASE("signals come as values, even where they were ignored and blocked, and none is lost") {
  test::Loop loop;
  ::signal(SIGHUP, SIG_IGN);
  sigset_t blocked;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  {
    os::SignalStream signals(loop.executor(), {SIGHUP, SIGUSR1});
    ::raise(SIGHUP);
    ::raise(SIGUSR1);
    CHECK(loop.run(signals.next()) == SIGHUP);
    CHECK(loop.run(signals.next()) == SIGUSR1);
    signals.close();
    CHECK(loop.run(signals.next()) == 0);
  }
}

TEST_CASE("resetting signals gives every one its default and blocks none") {
  auto before = ::signal(SIGINT, SIG_IGN);
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGUSR2);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  os::reset_signals();
  CHECK(::signal(SIGINT, SIG_DFL) == SIG_DFL);
  CHECK(::signal(SIGPIPE, SIG_IGN) == SIG_IGN);
  ::pthread_sigmask(SIG_SETMASK, nullptr, &set);
  CHECK_FALSE(::sigismember(&set, SIGUSR2));
  (void)before;
}
