// How jobs are ended, what outlives a connection, and how a later one finds it.
#include <signal.h>
#include <sys/stat.h>

#include <fstream>

#include "protocol/os/flock.h"
#include "protocol/os/frame_stream.h"
#include "protocol/os/unix_socket.h"
#include "tests/support/catch.h"
#include "tests/support/supervised.h"

using namespace std::chrono_literals;
using std::chrono::steady_clock;
using test::Client;
using test::Supervised;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

wire::Result some_result(std::string id) {
  wire::Result result;
  result.result = std::move(id);
  result.base = "base";
  return result;
}

bool happened(const std::vector<std::string>& calls, const std::string& call) {
  return std::find(calls.begin(), calls.end(), call) != calls.end();
}

// A command that says what it hears, and goes on.
const char* kDeaf =
    "trap 'echo int >>heard' INT; trap 'echo term >>heard' TERM; echo ready; "
    "while :; do sleep 0.02; done";

std::string heard(const Supervised& s) {
  std::ifstream file(s.workspace() / "heard");
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("a hang-up ends the job by INT, TERM and KILL, each in its time, and takes its result") {
  Supervised s;
  s.script->next = some_result("r1");
  auto client = s.connect();
  client->exec(1, kDeaf);
  client->wait_output(1, "ready");
  auto begun = steady_clock::now();
  client->send(0, wire::Hangup{});
  client->expect<wire::Ended>();
  auto took = steady_clock::now() - begun;
  CHECK(took >= s.options.end_times.interrupt + s.options.end_times.terminate);
  CHECK(client->gone());
  CHECK(heard(s) == "int\nterm\n");
  CHECK(happened(s.script->taken_calls(), "take origin"));
  CHECK(s.supervisor->running_jobs().empty());
  // It was not for the client that is gone.
  CHECK_FALSE(std::count(client->order.begin(), client->order.end(), "exited"));
}

TEST_CASE("a job that ends at INT is not waited for longer") {
  Supervised s;
  auto client = s.connect();
  client->exec(1, "trap 'echo int >>heard; exit 1' INT; echo ready; while :; do sleep 0.02; done");
  client->wait_output(1, "ready");
  auto begun = steady_clock::now();
  client->send(0, wire::Hangup{});
  client->expect<wire::Ended>();
  CHECK(steady_clock::now() - begun < s.options.end_times.interrupt);
  CHECK(heard(s) == "int\n");
}

TEST_CASE("two more interrupts hurry an end to its last step") {
  Supervised s;
  s.options.end_times.interrupt = 60s;
  s.options.end_times.terminate = 60s;
  auto client = s.connect();
  client->exec(1, kDeaf);
  client->wait_output(1, "ready");
  client->send(0, wire::Hangup{});
  client->send(1, wire::Signal{"INT"});
  // The second one only when the first has had its effect.
  s.loop.run([](Supervised& world) -> os::awaitable<void> {
    while (heard(world).find("term") == std::string::npos)
      co_await os::pause(world.loop.executor(), 5ms);
  }(s));
  client->send(1, wire::Signal{"INT"});
  client->expect<wire::Ended>();
  CHECK(heard(s) == "int\nterm\n");
}

TEST_CASE("a hang-up does not wait for a client that takes no output") {
  Supervised s;
  auto client = s.connect();
  client->consuming = false;
  client->exec(1, "exec cat /dev/zero");
  client->expect<wire::Started>();
  s.loop.run(os::pause(s.loop.executor(), 50ms));
  client->send(0, wire::Hangup{});
  client->expect<wire::Ended>();
}

TEST_CASE("a hang-up drops the steps that have not begun") {
  Supervised s;
  auto client = s.connect();
  client->exec(1, "echo ready; sleep 60");
  client->exec(1, "touch never");
  client->wait_output(1, "ready");
  client->send(0, wire::Hangup{});
  client->expect<wire::Ended>();
  CHECK_FALSE(std::filesystem::exists(s.workspace() / "never"));
}

TEST_CASE("a hang-up without a job is answered at once") {
  Supervised s;
  auto client = s.connect();
  client->send(0, wire::Hangup{});
  client->expect<wire::Ended>();
  CHECK(client->gone());
  CHECK_FALSE(happened(s.script->taken_calls(), "take origin"));
}

TEST_CASE("a job outlives its agent; the next one sees it, gets every byte and the status") {
  Supervised s;
  s.script->next = some_result("r1");
  auto first = s.connect();
  // 3 MB before and after the agent dies: more than pipes and credit hold.
  first->consuming = false;
  first->exec(1,
              "echo begin; head -c 3000000 /dev/zero | tr '\\0' a; echo middle >&2; "
              "read never; head -c 3000000 /dev/zero | tr '\\0' b; echo end; exit 8");
  auto started = first->expect<wire::Started>();
  first.reset();  // no hang-up: the agent was killed

  auto second = s.connect();
  REQUIRE(s.hello.jobs.size() == 1);
  CHECK(s.hello.jobs[0].job == started.job);
  CHECK(s.hello.jobs[0].pid == started.pid);
  CHECK(s.hello.jobs[0].state == "running");
  second->send(5, wire::Attach{started.job});
  CHECK(second->expect<wire::Started>().job == started.job);
  second->wait_output(5, "begin\n");
  second->input(5, "go on\n");
  CHECK(second->expect<wire::Exited>().status == 8);
  CHECK(second->output(5) ==
        "begin\n" + std::string(3000000, 'a') + std::string(3000000, 'b') + "end\n");
  CHECK(second->error(5) == "middle\n");
  std::vector<std::string> end(second->order.end() - 3, second->order.end());
  CHECK(end == std::vector<std::string>{"output end", "error end", "exited"});

  // An ended job is still there for who comes late, and its result was taken.
  auto third = s.connect();
  CHECK(s.hello.jobs.empty());
  CHECK(happened(s.script->taken_calls(), "take origin"));
  third->send(1, wire::Attach{started.job});
  CHECK(third->expect<wire::Exited>().status == 8);
  CHECK(third->output(1) == second->output(5));
}

TEST_CASE("the agent that comes back ends a job, and its result is taken") {
  Supervised s;
  s.script->next = some_result("r1");
  auto first = s.connect("theorigin");
  first->exec(1, "echo ready; sleep 60");
  first->wait_output(1, "ready");
  first.reset();
  auto second = s.connect("");
  REQUIRE(s.hello.jobs.size() == 1);
  second->send(3, wire::EndJob{s.hello.jobs[0].job});
  second->expect<wire::Ended>();
  CHECK(s.supervisor->running_jobs().empty());
  CHECK(happened(s.script->taken_calls(), "take theorigin"));
  second->send(4, wire::EndJob{"no such job"});
  second->expect<wire::Ended>();
}

TEST_CASE("steps that had not begun when the agent died do not begin") {
  Supervised s;
  auto client = s.connect();
  client->exec(1, "echo ready; read line; touch first");
  client->exec(1, "touch second");
  client->wait_output(1, "ready");
  client.reset();
  auto next = s.connect();
  REQUIRE(s.hello.jobs.size() == 1);
  next->send(1, wire::Attach{s.hello.jobs[0].job});
  next->input(1, "go\n");
  CHECK(next->expect<wire::Exited>().status == 0);
  CHECK(std::filesystem::exists(s.workspace() / "first"));
  CHECK(s.supervisor->running_jobs().empty());
  CHECK_FALSE(std::filesystem::exists(s.workspace() / "second"));
}

TEST_CASE("a later agent's hello ends what an earlier one said, read or not") {
  Supervised s;
  wire::Hello first, second;
  first.origin = "theorigin";
  first.fence = "1.1";
  first.epoch = 1;
  second.epoch = 2;
  auto earlier = s.connect_as(first);
  earlier->exec(1, "echo ready; read line; echo $line");
  auto started = earlier->expect<wire::Started>();
  auto waiting = s.connect_as(first);
  auto other = s.connect("origin");  // does not say which agent it is
  auto later = s.connect_as(second);
  REQUIRE(s.hello.jobs.size() == 1);
  CHECK(s.hello.jobs[0].job == started.job);
  CHECK(s.hello.jobs[0].fence == "1.1");
  waiting->exec(1, "touch never");
  waiting->sync(2, "main", "PACK");
  CHECK(waiting->gone());
  CHECK(earlier->gone());
  auto late = s.connect_silent();
  late->send(0, first);
  CHECK(late->expect<wire::Failed>().code == "refused");
  late->exec(1, "touch never");
  CHECK(late->gone());
  // What ran goes on until the later agent says otherwise.
  later->send(1, wire::EndJob{started.job, {}});
  later->expect<wire::Ended>();
  other->exec(1, "exit 3");
  CHECK(other->expect<wire::Exited>().status == 3);
  CHECK(s.supervisor->running_jobs().empty());
  CHECK_FALSE(std::filesystem::exists(s.workspace() / "never"));
  CHECK_FALSE(happened(s.script->taken_calls(), "apply main"));
}

TEST_CASE("all that came on a connection ends by the connection's name") {
  Supervised s;
  s.script->next = some_result("r1");
  wire::Hello named;
  named.origin = "theorigin";
  named.connection = "one";
  auto broken = s.connect_as(named);
  auto next = s.connect();
  auto end = [&] {
    next->send(1, wire::EndJob{{}, {}, "one"});
    next->expect<wire::Ended>();
  };
  SECTION("what is still to be read does not begin") {
    end();
    broken->exec(1, "touch never");
    CHECK(broken->gone());
  }
  SECTION("what runs is reaped, whether or not its connection has ended") {
    broken->exec(1, "echo ready; sleep 60; touch never");
    broken->wait_output(1, "ready");
    SECTION("it has") { broken.reset(); }
    SECTION("it has not") {}
    end();
    CHECK(happened(s.script->taken_calls(), "take theorigin"));
  }
  CHECK(s.supervisor->running_jobs().empty());
  CHECK_FALSE(std::filesystem::exists(s.workspace() / "never"));
  next->exec(2, "exit 3");
  CHECK(next->expect<wire::Exited>().status == 3);
}

TEST_CASE("a job of an earlier supervisor is replayed from its journal") {
  std::string job;
  Supervised s;
  {
    auto client = s.connect();
    client->exec(1, "echo kept; exit 3");
    job = client->expect<wire::Started>().job;
    client->expect<wire::Exited>();
    client->send(0, wire::Shutdown{});
    client->expect<wire::Ended>();
  }
  s.wait_stopped();
  s.supervisor.reset();
  auto client = s.connect();
  client->send(1, wire::Attach{job});
  CHECK(client->expect<wire::Exited>().status == 3);
  CHECK(client->output(1) == "kept\n");
  client->send(2, wire::Attach{"../../etc/passwd"});
  CHECK(client->expect<wire::Failed>().code == "not_found");
  client->send(3, wire::Attach{"0123456789abcdef"});
  CHECK(client->expect<wire::Failed>().code == "not_found");
}

TEST_CASE("a sandbox whose home is open to all by its own doing still starts") {
  Supervised s;
  {
    auto client = s.connect();
    client->exec(1, "chmod 777 $HOME");
    CHECK(client->expect<wire::Exited>().status == 0);
    client->send(0, wire::Shutdown{});
    client->expect<wire::Ended>();
  }
  s.wait_stopped();
  s.supervisor.reset();
  auto client = s.connect();
  client->exec(1, "exit 3");
  CHECK(client->expect<wire::Exited>().status == 3);
}

TEST_CASE("journals are private, and only the newest are kept") {
  Supervised s;
  s.options.kept_journals = 3;
  auto client = s.connect();
  for (std::uint32_t number = 1; number <= 6; ++number) {
    client->exec(number, "echo x");
    client->expect<wire::Exited>();
  }
  s.loop.settle();
  int journals = 0;
  for (const auto& entry : std::filesystem::directory_iterator(s.options.directory / "logs")) {
    struct stat status = {};
    REQUIRE(::stat(entry.path().c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
    ++journals;
  }
  CHECK(journals == 3);
}

TEST_CASE("big journals go before there are many, but never the latest") {
  Supervised s;
  s.options.kept_journal_bytes = 150000;
  auto client = s.connect();
  std::string last;
  for (std::uint32_t number = 1; number <= 4; ++number) {
    client->exec(number, "head -c 100000 /dev/zero");
    last = client->expect<wire::Started>().job;
    client->expect<wire::Exited>();
  }
  client->exec(5, "head -c 400000 /dev/zero");
  last = client->expect<wire::Started>().job;
  client->expect<wire::Exited>();
  s.loop.settle();
  client->send(0, wire::StatusRequest{});
  auto jobs = client->expect<wire::Status>().jobs;
  REQUIRE(jobs.size() == 1);
  CHECK(jobs[0].job == last);
}

TEST_CASE("shutdown ends what runs, tells who asked and takes the socket away") {
  Supervised s;
  auto client = s.connect(), other = s.connect();
  other->exec(1, "echo ready; sleep 60");
  other->wait_output(1, "ready");
  client->send(9, wire::Shutdown{});
  client->expect<wire::Ended>();
  CHECK(client->gone());
  CHECK(other->gone());
  s.wait_stopped();
  CHECK_FALSE(std::filesystem::exists(s.options.directory / "supervisor.sock"));
}

TEST_CASE("a sandbox has one supervisor at a time") {
  Supervised s;
  auto client = s.connect();
  int opened = 0;
  auto second = agent::supervisor::Supervisor::open(
      s.loop.executor(), s.options,
      [&]() -> wire::result<std::unique_ptr<protocol::sync::Workspace>> {
        ++opened;
        return std::unique_ptr<protocol::sync::Workspace>(new test::FakeWorkspace(s.script));
      });
  REQUIRE_FALSE(second);
  CHECK(second.error().code == wire::Errc::busy);
  CHECK(opened == 0);
}

TEST_CASE("an idle supervisor tidies and ends by itself, a busy one does not") {
  Supervised s;
  s.options.idle_limit = 200ms;
  auto client = s.connect();
  client->exec(1, "sleep 0.6");
  client->expect<wire::Started>();
  client.reset();
  s.loop.run(os::pause(s.loop.executor(), 400ms));
  CHECK_FALSE(s.stopped());
  s.wait_stopped();
  CHECK(happened(s.script->taken_calls(), "tidy"));
}

TEST_CASE("a sandbox that is being removed starts no job, and one with a job is not removed") {
  Supervised s;
  auto client = s.connect();
  auto removing =
      os::FileLock::try_lock(s.options.directory / ".lock", os::FileLock::Kind::exclusive);
  REQUIRE(removing);
  client->exec(1, "true");
  CHECK(client->expect<wire::Failed>().code == "busy");
  removing->release();
  client->exec(2, "echo ready; read line");
  client->wait_output(2, "ready");
  CHECK_FALSE(os::FileLock::try_lock(s.options.directory / ".lock", os::FileLock::Kind::exclusive));
  client->end_input(2);
  client->expect<wire::Exited>();
  s.loop.settle();
  CHECK(os::FileLock::try_lock(s.options.directory / ".lock", os::FileLock::Kind::exclusive));
}

TEST_CASE("hostile frames are answered or hung up on, and the supervisor goes on") {
  Supervised s;
  auto good = s.connect();
  auto raw = [&](std::string bytes) {
    auto stream =
        s.loop.run(os::connect_unix(s.loop.executor(), s.options.directory / "supervisor.sock"));
    REQUIRE(stream);
    auto written = s.loop.run((*stream)->write(std::as_bytes(std::span(bytes))));
    (void)written;
    s.loop.settle();
    return std::move(*stream);
  };
  SECTION("no hello") {
    auto client = s.connect_silent();
    client->exec(1, "touch never");
    CHECK(client->expect<wire::Failed>().code == "refused");
    CHECK(client->gone());
    CHECK_FALSE(std::filesystem::exists(s.workspace() / "never"));
  }
  SECTION("messages that are not for a supervisor, malformed or unknown") {
    auto client = s.connect();
    client->send(1, wire::LockRequested{});
    CHECK(client->expect<wire::Failed>().code == "refused");
    client->frames->forward({wire::FrameKind::control, 1, "exec {"});
    CHECK(client->expect<wire::Failed>().code == "bad_input");
    client->frames->forward({wire::FrameKind::control, 1, "nonsense {}"});
    CHECK(client->expect<wire::Failed>().code == "unsupported");
    client->frames->forward({static_cast<wire::FrameKind>(9), 1, "x"});
    CHECK(client->expect<wire::Failed>().code == "unsupported");
    client->frames->forward({wire::FrameKind::output, 1, "x"});
    CHECK(client->expect<wire::Failed>().code == "refused");
    client->send(1, wire::SyncEnd{});
    CHECK(client->expect<wire::Failed>().code == "bad_input");
    wire::Hello again;
    client->send(0, again);
    CHECK(client->expect<wire::Failed>().code == "refused");
    client->exec(2, "exit 2");
    CHECK(client->expect<wire::Exited>().status == 2);
  }
  SECTION("a length beyond all limits") {
    auto stream = raw(std::string("\xff\xff\xff\xff\x01\0\0\0\0", 9));
    std::array<std::byte, 64> buffer;
    auto count = s.loop.run(stream->read_some(buffer));
    CHECK((!count || *count == 0));
  }
  SECTION("noise") {
    for (int seed = 0; seed < 200; ++seed) {
      std::string bytes;
      for (int i = 0; i < 200; ++i) bytes += static_cast<char>((seed * 7919 + i * i * 31) >> 3);
      raw(bytes);
    }
  }
  SECTION("a flood of steps") {
    auto client = s.connect();
    client->exec(1, "sleep 5");
    for (int i = 0; i < 1000; ++i) client->exec(2, "true");
    CHECK(client->gone());
  }
  SECTION("a flood of input for requests that never come") {
    auto client = s.connect();
    for (std::uint32_t number = 1; number < 1000 && client->frames->is_open(); ++number) {
      client->frames->forward(
          {wire::FrameKind::input, number, std::string(wire::kMaxBulkBytes, 'x')});
    }
    CHECK(client->gone());
  }
  good->exec(7, "exit 7");
  CHECK(good->expect<wire::Exited>().status == 7);
}
