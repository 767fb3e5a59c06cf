// A sandbox's supervisor is killed with -9 while it works.
#include <signal.h>

#include <boost/json.hpp>

#include "protocol/os/subreaper.h"
#include "tests/support/catch.h"
#include "tests/support/system.h"

namespace fs = std::filesystem;
using test::file_text;
using test::Machine;

namespace {

fs::path sandbox_of(const Machine& machine) {
  for (const auto& entry : fs::directory_iterator(machine.state() / "agent/sandboxes"))
    return entry.path();
  return {};
}

void kill_supervisor(const Machine& machine) {
  auto record = boost::json::parse(file_text(sandbox_of(machine) / "supervisor.json"));
  auto pid = static_cast<pid_t>(record.at("pid").as_int64());
  REQUIRE(::kill(pid, SIGKILL) == 0);
  REQUIRE(test::eventually([&] { return protocol::os::session_processes(pid).empty(); }));
}

}  // namespace

TEST_CASE("what a command changed comes home though its supervisor was killed under it") {
  Machine machine;
  machine.make_repository();
  machine.exec("true");
  auto running = machine.start(
      {"exec", "--", "sh", "-c",
       "echo made >made; echo changed >>f; echo $$ >pid; echo ready; exec sleep 600"});
  REQUIRE(running.out_has("ready"));
  kill_supervisor(machine);
  auto ended = running.wait();
  CHECK(ended.status == 255);
  CHECK_FALSE(fs::exists(machine.project() / "made"));
  auto pid = static_cast<pid_t>(std::stol(file_text(sandbox_of(machine) / "workspace/pid")));

  auto next = machine.exec("cat made");
  INFO(next.err);
  CHECK(next.status == 0);
  CHECK(next.out == "made\n");
  CHECK(next.err.find("drift") == std::string::npos);
  CHECK(file_text(machine.project() / "made") == "made\n");
  CHECK(file_text(machine.project() / "f").ends_with("changed\n"));
  CHECK(protocol::os::session_processes(pid).empty());
}

TEST_CASE("a sandbox whose supervisor was killed is stopped with all that ran in it") {
  Machine machine;
  machine.make_repository();
  auto running =
      machine.start({"exec", "--", "sh", "-c", "echo $$ >pid; echo ready; exec sleep 600"});
  REQUIRE(running.out_has("ready"));
  auto pid = static_cast<pid_t>(std::stol(file_text(sandbox_of(machine) / "workspace/pid")));
  REQUIRE_FALSE(protocol::os::session_processes(pid).empty());
  kill_supervisor(machine);
  running.wait();
  // What the killed job had changed was not brought home.
  auto kept = machine.run({"stop"});
  CHECK(kept.status == 255);
  CHECK(kept.err.find("never pulled") != std::string::npos);
  CHECK(protocol::os::session_processes(pid).empty());
  CHECK(machine.run({"stop", "--discard"}).status == 0);
}
