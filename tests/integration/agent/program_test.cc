// The real agent and its supervisors: our session channel and stock ssh, and what becomes of
// commands when somebody dies.
#include <signal.h>

#include <boost/asio.hpp>
#include <fstream>
#include <thread>

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

bool is_alive(const std::string& pid) {
  return !pid.empty() && ::kill(static_cast<pid_t>(std::stol(pid)), 0) == 0;
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
  CHECK(world.ssh("sleep 1000 & echo done").out == "done\n");
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

TEST_CASE("program: a plain command is refused while another has the box's last slot") {
  World world({"--slots", "1"});
  auto holder = world.session();
  holder.create('a');
  LockRequested lock;
  lock.command = "make flash";
  holder.send(1, lock);
  holder.expect<Granted>(1);
  auto refused = world.ssh("echo never >f");
  CHECK(refused.exit.status == 75);
  CHECK(refused.err.find("make flash") != std::string::npos);
  CHECK(!std::filesystem::exists(world.file("f")));
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
  for (int i = 0; i < 20; ++i) {
    many.push_back(world.ssh_beside("echo " + std::to_string(i) + "; exit " + std::to_string(i),
                                    world.scratch() / ("out" + std::to_string(i)), share));
  }
  for (int i = 0; i < 20; ++i) {
    CHECK(many[static_cast<std::size_t>(i)].wait_blocking().status == i);
    CHECK(read_text(world.scratch() / ("out" + std::to_string(i))) == std::to_string(i) + "\n");
  }
  auto terminal = share;
  terminal.push_back("-tt");
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
  spawn.argv = {SANDBOX_BIN_DIR "/sandbox-agent",       "serve", "--name", "x", "--state",
                (directory / "file" / "state").string()};
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
