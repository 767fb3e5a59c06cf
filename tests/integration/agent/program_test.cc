// The real agent and its supervisors: our session channel and stock ssh, and what becomes of
// commands when somebody dies.
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio.hpp>
#include <boost/json.hpp>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "protocol/os/fd.h"
#include "protocol/os/paths.h"
#include "protocol/os/run.h"
#include "protocol/wire/frames.h"
#include "tests/support/agent_process.h"
#include "tests/support/catch.h"
#include "tests/support/places.h"
#include "tests/support/unprivileged.h"

using namespace test;
using namespace protocol::wire;

namespace {

// How much more an agent may have in memory, in KiB, however much goes through it.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kMostMemory = 400'000;  // what was freed stays for a while
#else
constexpr std::uint64_t kMostMemory = 32'000;
#endif

bool is_alive(const std::string& pid) {
  return !pid.empty() && ::kill(static_cast<pid_t>(std::stol(pid)), 0) == 0;
}

// Of a file in /proc: the number behind this word; 0 when the process is gone.
std::uint64_t proc_number(pid_t pid, const char* file, const std::string& word) {
  std::string text = read_text("/proc/" + std::to_string(pid) + "/" + file);
  auto at = text.find(word);
  return at == std::string::npos ? 0 : std::stoull(text.substr(at + word.size()));
}

// Waits until that process writes no more, blocked or ended; what it has written.
std::uint64_t written_when_stuck(pid_t pid) {
  std::uint64_t last = 0;
  for (int same = 0; same < 25; std::this_thread::sleep_for(std::chrono::milliseconds(20))) {
    std::uint64_t now = proc_number(pid, "io", "wchar:");
    same = now == last && now > 0 ? same + 1 : 0;
    last = now;
    if (now == 0) break;
  }
  return last;
}

// An agent with sandbox 'a' of ann, ready.
struct World : AgentProcess {
  explicit World(std::vector<std::string> options = {"--slots", "0"})
      : AgentProcess(std::move(options)) {
    start();
    auto client = session();
    client.create('a');
    client.send(0, Ready{});
    client.expect<Bound>(0);
    client.finish();
  }
  std::filesystem::path file(const std::string& name) const {
    return sandbox('a') / "workspace" / name;
  }
  boost::json::value self() const { return boost::json::parse(read_text(state() / "agent.json")); }
  pid_t pid() const { return static_cast<pid_t>(self().at("PID").as_int64()); }
  std::uint64_t resident_kb() const { return proc_number(pid(), "status", "VmRSS:"); }
};

}  // namespace

TEST_CASE("program: lock, run and release over the session channel") {
  World world;
  auto client = world.session();
  client.create('a');
  auto ran = client.run(1, "echo out; echo err >&2; pwd; exit 3");
  CHECK(ran.status == 3);
  CHECK(ran.out == "out\n" + (world.sandbox('a') / "workspace").string() + "\n");
  CHECK(ran.err == "err\n");
  // The same session may ask again.
  CHECK(client.run(2, "kill -KILL $$").signal == "KILL");
  client.finish();
}

TEST_CASE("program: five at once run one after another") {
  World world;
  std::vector<SessionClient> clients;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(world.session());
    clients.back().create('a');
  }
  std::string script = "echo S >>f; sleep 0.05; echo E >>f";
  for (auto& client : clients) {
    client.send_command(1, script);
  }
  for (auto& client : clients) {
    Message message = client.next();
    bool queued = false;
    while (!std::holds_alternative<Granted>(message)) {
      queued = true;
      message = client.next();
    }
    if (queued) {
      Exec exec;
      exec.script = script;
      client.send(2, exec);
      client.send(2, LockReleased{});
    }
    while (!std::holds_alternative<Released>(client.next())) {
    }
  }
  CHECK(read_text(world.file("f")) == "S\nE\nS\nE\nS\nE\nS\nE\nS\nE\n");
}

TEST_CASE("program: a client that is killed has its command ended before the next one runs") {
  World world;
  auto client = world.session();
  client.create('a');
  client.send_command(
      1, "trap 'sleep 0.2; echo ended >>f; exit' INT; echo $$ >pid; while :; do sleep 0.01; done");
  client.expect<Granted>(1);
  world.until([&] { return read_text(world.file("pid")).size() > 1; });
  auto next = world.session();
  next.create('a');
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  client.vanish();
  Message message = next.next();
  while (!std::holds_alternative<Granted>(message)) {
    message = next.next();
  }
  CHECK(read_text(world.file("f")) == "ended\n");
  CHECK(!is_alive(read_text(world.file("pid"))));
}

TEST_CASE(
    "program: a killed agent's command goes on, and its successor ends it before it lets anybody "
    "in") {
  World world;
  auto client = world.session();
  client.create('a');
  client.send_command(1,
                      "trap 'echo ended; exit 9' INT; echo $$ >pid; i=0; while :; do i=$((i+1)); "
                      "echo line $i; sleep 0.01; done");
  client.expect<Granted>(1);
  world.until([&] { return read_text(world.file("pid")).size() > 1; });
  std::string pid = read_text(world.file("pid"));
  world.kill(SIGKILL);
  CHECK(world.wait() == 128 + SIGKILL);
  CHECK(is_alive(pid));
  world.start();
  CHECK(!is_alive(pid));
  // Every byte, from the first to what it said last, and how it ended.
  std::string output;
  int status = -1;
  for (const auto& entry : std::filesystem::directory_iterator(world.sandbox('a') / "logs")) {
    std::string journal = read_text(entry.path());
    if (entry.path().filename() == "supervisor.log" || journal.size() < 16) {
      continue;
    }
    FrameDecoder decoder;
    decoder.feed(std::as_bytes(std::span(journal)).subspan(16));
    for (auto frame = decoder.next(); frame && *frame; frame = decoder.next()) {
      if ((*frame)->kind == FrameKind::output) {
        output += (*frame)->payload;
      } else if (auto message = decode((*frame)->payload)) {
        if (const auto* exited = std::get_if<Exited>(&*message)) {
          status = exited->status;
        }
      }
    }
  }
  std::string expected;
  int lines = 0;
  while (expected.size() + std::string("ended\n").size() < output.size()) {
    expected += "line " + std::to_string(++lines) + "\n";
  }
  CHECK(lines > 0);
  CHECK(output == expected + "ended\n");
  CHECK(status == 9);
  auto after = world.session();
  after.create('a');
  CHECK(after.run(1, "echo again").out == "again\n");
  after.finish();
}

TEST_CASE("program: a sandbox that was bound is there whatever becomes of its agent") {
  World world;
  auto client = world.session();
  client.create('b');
  world.kill(SIGKILL);
  world.wait();
  world.start();
  auto again = world.session();
  Bind bind;
  bind.sandbox = sandbox_id('b');
  again.send(0, bind);
  CHECK(again.expect<Bound>(0).state == "starting");
  again.finish();
}

TEST_CASE("program: its log has one line `listening`, with the address that agent.json has") {
  World world;
  std::string log = world.log();
  std::string address(world.self().at("Address").as_string());
  std::size_t lines = 0, with_address = 0;
  for (std::size_t start = 0, end; (end = log.find('\n', start)) != std::string::npos;
       start = end + 1) {
    std::string line = log.substr(start, end - start);
    if (line.find(" listening ") != std::string::npos) {
      ++lines;
      with_address += line.find(address) != std::string::npos ? 1 : 0;
    }
  }
  INFO(log);
  CHECK(lines == 1);
  CHECK(with_address == 1);
}

TEST_CASE("program: a service manager hears of its start and its end, and nobody else does") {
  TemporaryDirectory directory;
  std::string path = (directory / "notify").string();
  protocol::os::Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof name.sun_path);
  path.copy(name.sun_path, sizeof name.sun_path - 1);
  REQUIRE(::bind(socket.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
  timeval limit{20, 0};
  REQUIRE(::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
  auto heard = [&] {
    char text[64];
    ssize_t count = ::recv(socket.get(), text, sizeof text, 0);
    return std::string(text, count > 0 ? static_cast<std::size_t>(count) : 0);
  };
  struct Variable {
    explicit Variable(const std::string& value) { ::setenv("NOTIFY_SOCKET", value.c_str(), 1); }
    ~Variable() { ::unsetenv("NOTIFY_SOCKET"); }
  } variable(path);
  World world;
  CHECK(heard() == "READY=1");
  CHECK(world.ssh("echo ${NOTIFY_SOCKET-unset}").out == "unset\n");
  auto record = boost::json::parse(read_text(world.sandbox('a') / "supervisor.json"));
  std::string environment =
      read_text("/proc/" + std::to_string(record.at("pid").as_int64()) + "/environ");
  CHECK(environment.find("PATH=") != std::string::npos);
  CHECK(environment.find("NOTIFY_SOCKET") == std::string::npos);
  world.kill(SIGTERM);
  CHECK(heard() == "STOPPING=1");
  CHECK(world.wait() == 0);
}

TEST_CASE("program: SIGTERM stops it; the next one finds everything") {
  World world;
  world.kill(SIGTERM);
  CHECK(world.wait() == 0);
  CHECK(!std::filesystem::exists(world.state() / "agent.json"));
  world.start();
  auto client = world.session();
  CHECK(client.create('a').state == "ready");
  client.finish();
}

TEST_CASE("program: misuse is 2, a taken state directory 75, a port that is taken 1") {
  World world;
  auto run = [](std::vector<std::string> arguments) {
    protocol::os::Spawn spawn;
    spawn.argv = {SANDBOX_BIN_DIR "/sandbox-agent"};
    spawn.argv.insert(spawn.argv.end(), arguments.begin(), arguments.end());
    return *protocol::os::run(spawn);
  };
  CHECK(run({}).exit.status == 2);
  CHECK(run({"serve", "--nonsense"}).exit.status == 2);
  auto taken = run({"serve", "--state", world.state().string(), "--name", "x"});
  CHECK(taken.exit.status == 75);
  CHECK(taken.err.find(world.state().string()) != std::string::npos);
  auto port = run({"serve", "--state", (world.scratch() / "other").string(), "--name", "x",
                   "--listen", "127.0.0.1:" + std::to_string(world.port())});
  CHECK(port.exit.status == 1);
  CHECK(port.err.find("cannot listen") != std::string::npos);
  auto key = run({"authorize", "--state", (world.scratch() / "new").string(), "nonsense"});
  CHECK(key.exit.status == 2);
  auto help = run({"--help"});
  CHECK(help.exit.status == 0);
  CHECK(help.out.find("authorize") != std::string::npos);
  CHECK(run({"version"}).out.find("sandbox-agent ") == 0);
}

TEST_CASE("program: ending a sandbox ends what runs in it and removes it") {
  test::Unprivileged unprivileged;
  World world;
  auto client = world.session();
  client.create('a');
  client.send_command(1, "mkdir -p d/e; chmod 0 d/e; chmod 500 d; echo $$ >pid; exec sleep 1000");
  client.expect<Granted>(1);
  world.until([&] { return read_text(world.file("pid")).size() > 1; });
  std::string pid = read_text(world.file("pid"));
  auto other = world.session();
  other.create('a');
  other.send(0, End{});
  CHECK(other.expect<Refused>(0).why == "busy");
  other.send(0, End{true});
  other.expect<Ended>(0);
  CHECK(!is_alive(pid));
  CHECK(!std::filesystem::exists(world.sandbox('a')));
  world.until([&] { return std::filesystem::is_empty(world.state() / ".removing"); });
}

// ---- stock clients ---------------------------------------------------------------------------

TEST_CASE("program: stock ssh runs a command as sshd would") {
  World world;
  auto ran = world.ssh("echo out; echo err >&2; exit 7");
  CHECK(ran.out == "out\n");
  CHECK(ran.err == "err\n");
  CHECK(ran.exit.status == 7);
  CHECK(world.ssh("cat", "some input\n").out == "some input\n");
  CHECK(world.ssh("pwd").out == (world.sandbox('a') / "workspace").string() + "\n");
  CHECK(world.ssh("no-such-command").exit.status == 127);
  CHECK(world.ssh("kill -TERM $$").exit.status == 255);  // what ssh makes of an exit-signal
  // Ends with the command, though a grandchild keeps its streams.
  auto left =
      world.ssh("sleep 1000 & while test \"$(cat /proc/$!/comm)\" != sleep; do :; done; echo done");
  INFO(left.err);
  CHECK(left.out == "done\n");
  CHECK(left.err.find("sandbox: ended, because the command left it behind: sleep (pid ") !=
        std::string::npos);
  CHECK(left.exit.status == 0);
  // By an id, and by what only one id begins with.
  CHECK(world.ssh("echo id", "", sandbox_id('a')).out == "id\n");
  CHECK(world.ssh("echo prefix", "", "aaaa").out == "prefix\n");
  CHECK(world.ssh("echo rwx", "", "rwx-cli").out == "rwx\n");
  auto unknown = world.ssh("true", "", "bbbb");
  CHECK(unknown.exit.status == 255);
  CHECK(unknown.err.find("bbbb") != std::string::npos);
}

TEST_CASE("program: much goes in and out without being held in memory") {
  World world;
  std::string block(20 * 1024 * 1024, 'x');
  for (std::size_t i = 0; i < block.size(); i += 4096) {
    block[i] = static_cast<char>('a' + (i / 4096) % 26);
  }
  auto echoed = world.ssh("cat", block);
  CHECK(echoed.exit.status == 0);
  CHECK(echoed.out == block);
}

TEST_CASE("program: a client that does not read holds its command up, and fills no memory") {
  World world;
  REQUIRE(world.ssh("true").exit.status == 0);
  auto before = world.resident_kb();
  constexpr std::size_t kAll = 200'000'000;
  std::filesystem::path out = world.scratch() / "fifo";
  REQUIRE(::mkfifo(out.c_str(), 0600) == 0);
  protocol::os::Fd fifo(::open(out.c_str(), O_RDWR | O_CLOEXEC));
  auto client =
      world.ssh_beside("echo $$ >pid; exec head -c " + std::to_string(kAll) + " /dev/zero", out);
  world.until([&] { return read_text(world.file("pid")).size() > 1; });
  auto written = written_when_stuck(std::stoi(read_text(world.file("pid"))));
  CHECK(written > 0);
  CHECK(written < kAll / 4);
  CHECK(world.resident_kb() < before + kMostMemory);
  std::vector<char> buffer(1 << 20);
  for (std::size_t left = kAll; left > 0;) {
    ssize_t count = ::read(fifo.get(), buffer.data(), buffer.size());
    REQUIRE(count > 0);
    left -= std::min(left, static_cast<std::size_t>(count));
  }
  CHECK(client.wait_blocking().status == 0);
  CHECK(world.resident_kb() < before + kMostMemory);
}

TEST_CASE("program: a command that does not read holds its client up, and fills no memory") {
  World world;
  REQUIRE(world.ssh("true").exit.status == 0);
  auto before = world.resident_kb();
  auto pipe = protocol::os::make_pipe();
  REQUIRE(pipe);
  constexpr std::size_t kAll = 200'000'000;
  protocol::os::Spawn producer, ssh;
  producer.argv = {"head", "-c", std::to_string(kAll), "/dev/zero"};
  producer.stdout_fd = pipe->write.get();
  ssh.argv = world.ssh_arguments("sandbox", {});
  ssh.argv.emplace_back("touch up; while ! test -e go; do sleep 0.01; done; wc -c >count");
  ssh.stdin_fd = pipe->read.get();
  auto client = protocol::os::Process::start(ssh);
  auto head = protocol::os::Process::start(producer);
  REQUIRE(client);
  REQUIRE(head);
  *pipe = {};
  world.until([&] { return std::filesystem::exists(world.file("up")); });
  auto written = written_when_stuck(head->pid());
  CHECK(written > 0);
  CHECK(written < kAll / 4);
  CHECK(world.resident_kb() < before + kMostMemory);
  std::ofstream(world.file("go")) << std::flush;
  CHECK(client->wait_blocking().status == 0);
  CHECK(head->wait_blocking().status == 0);
  CHECK(std::stoull(read_text(world.file("count"))) == kAll);
  CHECK(world.resident_kb() < before + kMostMemory);
}

TEST_CASE("program: directives of stock clients") {
  World world;
  auto unknown = world.ssh("__rwx_sandbox_dance__");
  CHECK(unknown.exit.status == 127);
  CHECK(unknown.out.empty());
  CHECK(unknown.err.find("__rwx_sandbox_dance__") != std::string::npos);
  for (std::string directive :
       {"lock_requested", "lock_released", "sync_start", "sync_end", "sync_end"}) {
    auto ran = world.ssh("__rwx_sandbox_" + directive + "__");
    CHECK(ran.exit.status == 0);
    CHECK(ran.out.empty());
  }
  auto no_sandbox = world.ssh("__rwx_sandbox_lock_requested__", "", "bbbb");
  CHECK(no_sandbox.exit.status == 255);  // ssh's own: there was no status
  auto ended = world.ssh("__rwx_sandbox_end__");
  CHECK(ended.exit.status == 0);
  CHECK(!std::filesystem::exists(world.sandbox('a')));
}

TEST_CASE("program: a stock lock waits in line, says so, and passes on with its connection") {
  World world;
  auto holder = world.session();
  holder.create('a');
  LockRequested lock;
  lock.verb = "exec";
  lock.command = "make test";
  holder.send(1, lock);
  holder.expect<Granted>(1);

  std::filesystem::path control = world.scratch() / "control";
  auto waiter = world.ssh_beside("__rwx_sandbox_lock_requested__", world.scratch() / "out",
                                 {"-o", "ControlMaster=yes", "-o",
                                  "ControlPath=" + control.string(), "-o", "ControlPersist=60"});
  std::filesystem::path news = world.scratch() / "out.err";
  world.until([&] { return read_text(news).find("make test") != std::string::npos; });
  holder.send(1, LockReleased{});
  holder.expect<Released>(1);
  CHECK(waiter.wait_blocking().status == 0);

  // The connection holds it now, not the channel.
  auto next = world.session();
  next.create('a');
  next.send(1, LockRequested{});
  CHECK(next.expect<Queued>(1).position == 1);
  auto ended =
      world.ssh("", "", "sandbox", {"-O", "exit", "-o", "ControlPath=" + control.string()});
  CHECK(ended.exit.status == 0);
  Message message = next.next();
  while (!std::holds_alternative<Granted>(message)) {
    message = next.next();
  }
}

namespace {

// Somebody listens on this machine's loopback, and hears whether anybody came.
struct Listener {
  boost::asio::io_context context;
  boost::asio::ip::tcp::acceptor acceptor{context, {boost::asio::ip::make_address("127.0.0.1"), 0}};
  std::string there = "127.0.0.1:" + std::to_string(acceptor.local_endpoint().port());

  bool came() {
    acceptor.non_blocking(true);
    boost::system::error_code error;
    boost::asio::ip::tcp::socket socket = acceptor.accept(error);
    return !error;
  }
};

void check_refused(World& world, const std::string& why) {
  auto plain = world.ssh("echo never >f");
  CHECK(plain.exit.status == 75);
  CHECK(plain.err.find(why) != std::string::npos);
  auto shell = world.ssh("", "echo never >f\n", "sandbox", {"-T"});
  CHECK(shell.exit.status == 75);
  CHECK(shell.err.find(why) != std::string::npos);
  CHECK(!std::filesystem::exists(world.file("f")));
  Listener listener;
  auto tunnel = world.ssh("", "hello", "sandbox", {"-W", listener.there});
  CHECK(tunnel.exit.status == 255);
  CHECK(!listener.came());
}

}  // namespace

TEST_CASE("program: somebody else's user lock refuses plain commands, shells and tunnels") {
  World world({"--slots", "0", "--trust-claimed-users"});
  auto bob = world.session();
  bob.send(0, UserLockRequest{"demo", "bob", {}});
  bob.expect<UserLocked>(0);
  check_refused(world, "locked by bob");
  bob.send(0, UserUnlockRequest{false, "bob", {}});
  bob.expect<UserUnlocked>(0);
  CHECK(world.ssh("true").exit.status == 0);
}

TEST_CASE("program: a plain command is refused while another has the box's last slot") {
  World world({"--slots", "1"});
  auto holder = world.session();
  holder.create('a');
  LockRequested lock;
  lock.command = "make flash";
  holder.send(1, lock);
  holder.expect<Granted>(1);
  check_refused(world, "make flash");
  holder.finish();
  CHECK(world.ssh("true").exit.status == 0);
}

TEST_CASE("program: git push into the workspace by stock git") {
  World world;
  REQUIRE(world.ssh("git init -q -b main . && git config receive.denyCurrentBranch ignore")
              .exit.status == 0);
  std::string wrapper = (world.scratch() / "ssh").string();
  {
    std::ofstream script(wrapper);
    script << "#!/bin/sh\nexec";
    auto argv = world.ssh_arguments("sandbox", {});
    argv.pop_back();
    for (const auto& word : argv) {
      script << " '" << word << "'";
    }
    script << " \"$@\"\n";
  }
  std::filesystem::permissions(wrapper, std::filesystem::perms::owner_all);
  protocol::os::Spawn spawn;
  spawn.argv = {"sh", "-c",
                "git init -q -b main r && cd r && echo hi >f && git add f && "
                "git -c user.name=a -c user.email=a@b commit -q -m m && "
                "git push -q sandbox@127.0.0.1:. +HEAD:refs/rwx/sync-push && git rev-parse HEAD"};
  spawn.cwd = world.scratch().string();
  spawn.env = protocol::os::environment();
  (*spawn.env)["GIT_SSH_COMMAND"] = wrapper;
  auto pushed = protocol::os::run(spawn);
  REQUIRE(pushed);
  CHECK(pushed->exit.status == 0);
  CHECK(world.ssh("git rev-parse refs/rwx/sync-push").out == pushed->out);
}

TEST_CASE("program: a stock client that is killed has its command ended") {
  World world;
  auto client =
      world.ssh_beside("echo $$ >pid; while :; do sleep 0.01; done", world.scratch() / "out");
  world.until([&] { return read_text(world.file("pid")).size() > 1; });
  std::string pid = read_text(world.file("pid"));
  REQUIRE(client.kill(SIGKILL));
  client.wait_blocking();
  world.until([&] { return !is_alive(pid); });
}

TEST_CASE(
    "program: a holder's connection that breaks ends its commands before its lock passes on") {
  World world;
  std::filesystem::path control = world.scratch() / "control";
  auto master = world.ssh_beside(
      "trap 'sleep 0.2; echo ended >>f; exit' INT; echo $$ >pid; while :; do sleep 0.01; done",
      world.scratch() / "out",
      {"-o", "ControlMaster=yes", "-o", "ControlPath=" + control.string()});
  world.until([&] { return read_text(world.file("pid")).size() > 1; });
  auto locked = world.ssh("__rwx_sandbox_lock_requested__", "", "sandbox",
                          {"-o", "ControlPath=" + control.string()});
  CHECK(locked.exit.status == 0);
  auto next = world.session();
  next.create('a');
  next.send(1, LockRequested{});
  next.expect<Queued>(1);
  REQUIRE(master.kill(SIGKILL));
  master.wait_blocking();
  Message message = next.next();
  while (!std::holds_alternative<Granted>(message)) {
    message = next.next();
  }
  CHECK(read_text(world.file("f")) == "ended\n");
}

TEST_CASE("program: many channels on one connection, and a terminal") {
  World world;
  std::filesystem::path control = world.scratch() / "control";
  std::vector<std::string> share{"-o", "ControlPath=" + control.string()};
  auto master = world.ssh_beside(
      "touch up; while ! test -e down; do sleep 0.01; done", world.scratch() / "out",
      {"-o", "ControlMaster=yes", "-o", "ControlPath=" + control.string()});
  world.until([&] { return std::filesystem::exists(world.file("up")); });
  std::vector<protocol::os::Process> many;
  many.reserve(20);
  for (int i = 0; i < 20; ++i) {
    many.push_back(world.ssh_beside("echo " + std::to_string(i) + "; exit " + std::to_string(i),
                                    world.scratch() / ("out" + std::to_string(i)), share));
  }
  for (int i = 0; i < 20; ++i) {
    CHECK(many[static_cast<std::size_t>(i)].wait_blocking().status == i);
    CHECK(read_text(world.scratch() / ("out" + std::to_string(i))) == std::to_string(i) + "\n");
  }
  auto terminal = share;
  terminal.emplace_back("-tt");
  auto tty = world.ssh("tty; echo $TERM; exit 4", "", "sandbox", terminal);
  CHECK(tty.out.find("/dev/pts/") == 0);
  CHECK(tty.exit.status == 4);
  CHECK(world.ssh("touch down", "", "sandbox", share).exit.status == 0);
  CHECK(master.wait_blocking().status == 0);
}

TEST_CASE("program: a tunnel reaches the sandbox's loopback and nothing else") {
  World world;
  boost::asio::io_context context;
  using boost::asio::ip::tcp;
  tcp::acceptor acceptor(context, tcp::endpoint(boost::asio::ip::make_address("127.0.0.1"), 0));
  std::string port = std::to_string(acceptor.local_endpoint().port());
  std::thread echo([&] {
    tcp::socket socket = acceptor.accept();
    std::string all;
    boost::system::error_code end;
    boost::asio::read(socket, boost::asio::dynamic_buffer(all), end);
    boost::asio::write(socket, boost::asio::buffer("got " + all));
  });
  auto through = world.ssh("", "hello", "sandbox", {"-W", "127.0.0.1:" + port});
  echo.join();
  acceptor.close();
  CHECK(through.out == "got hello");
  CHECK(world.ssh("", "", "sandbox", {"-W", "127.0.0.1:" + port}).exit.status == 255);
  CHECK(world.ssh("", "", "sandbox", {"-W", "192.0.2.1:80"}).exit.status == 255);
}

TEST_CASE("program: strangers in the door do not keep others out for ever") {
  World world;
  boost::asio::io_context context;
  using boost::asio::ip::tcp;
  tcp::endpoint agent(boost::asio::ip::make_address("127.0.0.1"), world.port());
  std::vector<tcp::socket> strangers;
  for (int i = 0; i < 64; ++i) {
    strangers.emplace_back(context);
    strangers.back().connect(agent);
    char banner[4];
    boost::asio::read(strangers.back(), boost::asio::buffer(banner));
    CHECK(std::string(banner, 4) == "SSH-");
  }
  CHECK(world.ssh("true").exit.status == 255);
  strangers.clear();
  world.until([&] { return world.ssh("true").exit.status == 0; });
}

TEST_CASE("program: a state directory that cannot be used is named") {
  test::TemporaryDirectory directory;
  { std::ofstream(directory / "file") << "x"; }
  protocol::os::Spawn spawn;
  const std::string program = SANDBOX_BIN_DIR "/sandbox-agent";
  spawn.argv = {program, "serve",   "--name",
                "x",     "--state", (directory / "file" / "state").string()};
  auto ran = protocol::os::run(spawn);
  REQUIRE(ran);
  CHECK(ran->exit.status == 1);
  CHECK(ran->err.find((directory / "file").string()) != std::string::npos);
  // A host key that is none.
  std::filesystem::create_directories(directory / "state");
  std::filesystem::permissions(directory / "state", std::filesystem::perms::owner_all);
  { std::ofstream(directory / "state" / "host_key") << "x"; }
  spawn.argv.back() = (directory / "state").string();
  ran = protocol::os::run(spawn);
  REQUIRE(ran);
  CHECK(ran->exit.status == 1);
  CHECK(ran->err.find("host_key") != std::string::npos);
}
