// Jobs that outlive their client on purpose: whose they are when, how they are watched and killed,
// and what is kept of them.
#include <signal.h>
#include <sys/stat.h>

#include <fstream>

#include "protocol/os/subreaper.h"
#include "tests/support/catch.h"
#include "tests/support/supervised.h"

using test::Client;
using test::Supervised;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

wire::Exec detached(std::string script) {
  wire::Exec exec;
  exec.script = std::move(script);
  exec.detach = true;
  return exec;
}

bool happened(const std::vector<std::string>& calls, const std::string& call) {
  return std::find(calls.begin(), calls.end(), call) != calls.end();
}

std::string text_of(const std::filesystem::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Until a command has written this file, and its line is whole.
std::string line_of(Supervised& s, const std::string& name) {
  std::string text;
  s.loop.run(
      [](Supervised& world, std::filesystem::path file, std::string& out) -> os::awaitable<void> {
        auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (out.empty() || out.back() != '\n') {
          if (std::chrono::steady_clock::now() > deadline)
            throw std::runtime_error("nothing in " + file.string());
          co_await os::pause(world.loop.executor(), std::chrono::milliseconds(2));
          out = text_of(file);
        }
      }(s, s.workspace() / name, text));
  return text;
}

bool is_alive(const std::string& pid) {
  auto all = os::processes();
  return std::any_of(all.begin(), all.end(), [&](const os::ProcessInfo& p) {
    return p.pid == std::stoi(pid) && !p.zombie;
  });
}

}  // namespace

TEST_CASE("a detached job goes on when its connection ends, and has no input and no terminal") {
  Supervised s;
  auto first = s.connect();
  auto exec =
      detached("echo begin; cat; [ -t 1 ] || echo no terminal; read line <gate; echo $line");
  exec.terminal = wire::Terminal{};
  std::filesystem::create_directories(s.workspace());
  REQUIRE(::mkfifo((s.workspace() / "gate").c_str(), 0600) == 0);
  first->send(1, exec);
  auto started = first->expect<wire::Started>();
  first->send(1, wire::Detach{});
  first->send(2, wire::LockReleased{});  // the connection's steps go on
  first->expect<wire::Unchanged>();
  first->send(0, wire::Hangup{});
  first->expect<wire::Ended>();
  CHECK(first->gone());

  auto second = s.connect();
  REQUIRE(s.hello.jobs.size() == 1);
  CHECK(s.hello.jobs[0].job == started.job);
  CHECK(s.hello.jobs[0].detached);
  second->send(4, wire::Attach{started.job, {}});
  second->wait_output(4, "begin\nno terminal\n");
  std::ofstream(s.workspace() / "gate") << "end" << std::endl;
  CHECK(second->expect<wire::Exited>().status == 0);
  CHECK(second->output(4) == "begin\nno terminal\nend\n");
}

TEST_CASE("until the agent says that it is detached, a job ends with its client") {
  Supervised s;
  auto client = s.connect();
  client->send(1, detached("echo $$ >pid; exec sleep 1000"));
  client->expect<wire::Started>();
  auto pid = line_of(s, "pid");
  client->send(0, wire::Hangup{});
  client->expect<wire::Ended>();
  CHECK_FALSE(is_alive(pid));
  CHECK(s.supervisor->running_jobs().empty());
}

TEST_CASE("an agent that dies before it has said so finds the job, which goes on") {
  Supervised s;
  auto client = s.connect();
  client->send(1, detached("echo $$ >pid; exec sleep 1000"));
  auto job = client->expect<wire::Started>().job;
  client.reset();
  auto next = s.connect();
  REQUIRE(s.hello.jobs.size() == 1);
  CHECK(s.hello.jobs[0].job == job);
  CHECK(is_alive(line_of(s, "pid")));
}

TEST_CASE("a job is watched to its end, and its result is taken before that is said") {
  Supervised s;
  s.script->next = wire::Result{"r1", "base", {}, {}};
  auto client = s.connect("theorigin");
  client->send(1, detached("echo $$ >pid; read line <gate; exit 4"));
  REQUIRE(::mkfifo((s.workspace() / "gate").c_str(), 0600) == 0);
  auto job = client->expect<wire::Started>().job;
  client->send(1, wire::Detach{});
  auto watcher = s.connect("");
  watcher->send(1, wire::WatchJob{job});
  line_of(s, "pid");
  CHECK_FALSE(happened(s.script->taken_calls(), "take theorigin"));
  std::ofstream(s.workspace() / "gate") << "go" << std::endl;
  CHECK(watcher->expect<wire::Exited>().status == 4);
  CHECK(happened(s.script->taken_calls(), "take theorigin"));
  // Who asks later hears the same.
  watcher->send(2, wire::WatchJob{job});
  CHECK(watcher->expect<wire::Exited>().status == 4);
  watcher->send(3, wire::WatchJob{"0123"});
  CHECK(watcher->expect<wire::Failed>().code == "not_found");
}

TEST_CASE("the result of a job that ends while nobody is there is taken all the same") {
  Supervised s;
  s.script->next = wire::Result{"r1", "base", {}, {}};
  auto client = s.connect("theorigin");
  client->send(1, detached("echo $$ >pid; read line <gate"));
  REQUIRE(::mkfifo((s.workspace() / "gate").c_str(), 0600) == 0);
  client->expect<wire::Started>();
  client->send(1, wire::Detach{});
  client->send(0, wire::Hangup{});
  client->expect<wire::Ended>();
  CHECK(client->gone());
  line_of(s, "pid");
  std::ofstream(s.workspace() / "gate") << "go" << std::endl;
  s.loop.run([](Supervised& world) -> os::awaitable<void> {
    auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!happened(world.script->taken_calls(), "take theorigin")) {
      if (std::chrono::steady_clock::now() > deadline)
        throw std::runtime_error("the result was not taken");
      co_await os::pause(world.loop.executor(), std::chrono::milliseconds(2));
    }
  }(s));
}

TEST_CASE("a job's end is known from its journal when its supervisor is gone") {
  std::string job;
  Supervised s;
  {
    auto client = s.connect();
    client->send(1, detached("echo all of it; exit 6"));
    job = client->expect<wire::Started>().job;
    client->send(1, wire::Detach{});
    client->send(2, wire::WatchJob{job});
    client->expect<wire::Exited>();
  }
  s.supervisor->shutdown();
  s.wait_stopped();
  s.supervisor.reset();
  auto client = s.connect();
  client->send(1, wire::WatchJob{job});
  CHECK(client->expect<wire::Exited>().status == 6);
  client->send(2, wire::Attach{job, {}});
  CHECK(client->expect<wire::Exited>().status == 6);
  CHECK(client->output(2) == "all of it\n");
}

TEST_CASE("an output beyond its limit keeps its end and how the command ended, also later") {
  Supervised s;
  s.options.journal.file = 3'000'000;
  s.options.journal.memory = 100'000;
  std::string job;
  auto check = [&](Client& client, std::uint32_t number) {
    client.send(number, wire::Attach{job, {}});
    CHECK(client.expect<wire::Exited>().status == 9);
    const std::string& output = client.output(number);
    CHECK(output.size() > 1'000'000);
    CHECK(output.size() < 5'000'000);
    CHECK(output.substr(output.size() - 8) == "the end\n");
    bool told = std::any_of(client.passed.begin(), client.passed.end(), [](const auto& message) {
      const auto* notice = std::get_if<wire::Notice>(&message);
      return notice && notice->text.find("not kept") != std::string::npos;
    });
    CHECK(told);
  };
  {
    auto client = s.connect();
    client->send(1, detached("head -c 8000000 /dev/zero; echo the end; exit 9"));
    job = client->expect<wire::Started>().job;
    client->send(1, wire::Detach{});
    client->send(2, wire::WatchJob{job});
    client->expect<wire::Exited>();
    check(*client, 3);
  }
  s.supervisor->shutdown();
  s.wait_stopped();
  s.supervisor.reset();
  auto client = s.connect();
  check(*client, 1);
}

TEST_CASE("a kill ends the whole tree, what has left the session too, and begins with its signal") {
  Supervised s;
  auto client = s.connect();
  client->send(1, detached("trap 'echo term >>heard; exit 0' TERM; trap 'echo int >>heard' INT;"
                           "sh -c 'echo $$ >child; exec sleep 1000' &"
                           "setsid sh -c 'echo $$ >stray; exec sleep 1000' &"
                           "echo $$ >pid; while :; do sleep 0.01; done"));
  auto job = client->expect<wire::Started>().job;
  client->send(1, wire::Detach{});
  std::string pids[] = {line_of(s, "pid"), line_of(s, "child"), line_of(s, "stray")};
  client->send(2, wire::EndJob{job, "TERM"});
  client->expect<wire::Ended>();
  for (const std::string& pid : pids) {
    CHECK_FALSE(is_alive(pid));
  }
  CHECK(text_of(s.workspace() / "heard") == "term\n");
}

TEST_CASE("a hang-up leaves what has left the session, as a resident") {
  Supervised s;
  auto client = s.connect();
  client->exec(1, "setsid sh -c 'echo $$ >stray; exec sleep 1000' & echo $$ >pid; exec sleep 1000");
  client->expect<wire::Started>();
  auto pid = line_of(s, "pid");
  auto stray = line_of(s, "stray");
  client->send(0, wire::Hangup{});
  client->expect<wire::Ended>();
  CHECK_FALSE(is_alive(pid));
  CHECK(is_alive(stray));
}

TEST_CASE("detached jobs' journals are not pushed out by others', nor forgotten at a restart") {
  Supervised s;
  s.options.kept_journals = 2;
  std::string job;
  {
    auto client = s.connect();
    client->send(1, detached("echo kept"));
    job = client->expect<wire::Started>().job;
    client->send(1, wire::Detach{});
    client->send(2, wire::WatchJob{job});
    client->expect<wire::Exited>();
    for (std::uint32_t number = 10; number < 15; ++number) {
      client->exec(number, "echo x");
      client->expect<wire::Exited>();
    }
    client->send(3, wire::Attach{job, {}});
    client->expect<wire::Exited>();
    CHECK(client->output(3) == "kept\n");
  }
  s.supervisor->shutdown();
  s.wait_stopped();
  s.supervisor.reset();
  auto client = s.connect();
  client->send(1, wire::Attach{job, {}});
  client->expect<wire::Exited>();
  CHECK(client->output(1) == "kept\n");
}

TEST_CASE("no command begins in the middle of another lock's sync") {
  Supervised s;
  s.script->hold_apply = true;
  auto first = s.connect("origin", "7.1");
  first->sync(1, "snapshot", "pack");
  s.loop.run([](Supervised& world) -> os::awaitable<void> {
    while (!world.script->applying)
      co_await os::pause(world.loop.executor(), std::chrono::milliseconds(1));
  }(s));
  auto forced = s.connect("", "7.2");
  forced->exec(1, "exit 4");
  forced->send(0, wire::StatusRequest{});
  forced->expect<wire::Status>();
  CHECK_FALSE(happened(forced->order, "started"));
  s.script->release();
  first->expect<wire::Applied>();
  CHECK(forced->expect<wire::Exited>().status == 4);
}

TEST_CASE("nothing is synced while a command under another lock runs, and its own are no matter") {
  Supervised s;
  auto forced = s.connect("origin", "7.2");
  forced->exec(1, "echo ready; read line");
  forced->wait_output(1, "ready");
  auto first = s.connect("origin", "7.1");
  first->sync(1, "snapshot", "pack");
  CHECK(first->expect<wire::Failed>().code == "busy");
  CHECK_FALSE(happened(s.script->taken_calls(), "apply snapshot"));
  forced->end_input(1);
  forced->expect<wire::Exited>();
  first->sync(2, "snapshot", "pack");
  first->expect<wire::Applied>();
  // What runs without a lock (a stock client's) keeps nobody from syncing.
  auto plain = s.connect("", "");
  plain->exec(1, "echo ready; read line");
  plain->wait_output(1, "ready");
  first->sync(3, "other", "pack");
  first->expect<wire::Applied>();
  plain->end_input(1);
  plain->expect<wire::Exited>();
}
