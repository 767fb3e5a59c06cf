// The program that takes limits on and becomes another one.
#include <unistd.h>

#include "protocol/os/limits.h"
#include "protocol/os/process.h"
#include "protocol/os/run.h"
#include "tests/support/catch.h"
#include "tests/support/places.h"
#include "tests/support/temporary_directory.h"

namespace os = protocol::os;

namespace {

os::Output under(const os::ProcessLimits& limits, std::vector<std::string> command) {
  os::Spawn spawn;
  spawn.argv = {SANDBOX_BIN_DIR "/sandbox-agent", "limited"};
  for (auto& word : os::limit_options(limits)) spawn.argv.push_back(word);
  spawn.argv.emplace_back("--");
  for (auto& word : command) spawn.argv.push_back(std::move(word));
  auto output = os::run(spawn);
  REQUIRE(output);
  return *output;
}

os::Output shell(const os::ProcessLimits& limits, const std::string& script) {
  return under(limits, {"/bin/sh", "sh", "-c", script});
}

}  // namespace

TEST_CASE("a process that took a limit of memory on gets no more, nor does what it starts") {
  os::ProcessLimits limits;
  limits.memory = 512ll << 20;
  CHECK(shell(limits, "ulimit -v; sh -c 'ulimit -v'").out == "524288\n524288\n");
  CHECK(shell(limits, "dd if=/dev/zero of=/dev/null bs=100M count=1 2>&1").exit.ok());
  CHECK(!shell(limits, "dd if=/dev/zero of=/dev/null bs=600M count=1 2>&1").exit.ok());
  if (::geteuid() != 0) CHECK(!shell(limits, "ulimit -v unlimited").exit.ok());
}

TEST_CASE("a process that took some processors on runs on no others, whatever it asks for") {
  auto cpus = os::usable_cpus();
  REQUIRE(!cpus.empty());
  os::ProcessLimits limits;
  limits.cpus = {cpus.back()};
  auto ran = shell(limits, "nproc; taskset -c 0-1000 true 2>/dev/null || echo refused; nproc");
  CHECK(ran.out == "1\nrefused\n1\n");
  // So that the refusal is this limit's.
  CHECK(shell({}, "taskset -c 0-1000 true || echo refused").out.empty());
}

TEST_CASE("a process that took a limit of processes on starts no more of them") {
  os::ProcessLimits limits;
  limits.pids = 3000;
  CHECK(shell(limits, "grep -c 'Max processes  *3000  *3000 ' /proc/self/limits").out == "1\n");
}

TEST_CASE("a limit that cannot be had is an error, and nothing is run") {
  test::TemporaryDirectory directory;
  os::ProcessLimits limits;
  limits.cgroup = directory / "no-such-group";
  auto ran = shell(limits, "echo ran");
  CHECK(ran.exit.status == 125);
  CHECK(ran.out.empty());
  CHECK(ran.err.find("no-such-group") != std::string::npos);
  limits = {};
  limits.cpus = {1000};
  CHECK(shell(limits, "echo ran").exit.status == 125);
}

TEST_CASE(
    "a limited program keeps its name, arguments and status, and one that is not there has a "
    "shell's") {
  CHECK(under({}, {"/bin/sh", "called", "-c", "echo $0 $#; exit 7", "zero", "--", "--help"}).out ==
        "zero 2\n");
  CHECK(under({}, {"/bin/sh", "called", "-c", "exit 7"}).exit.status == 7);
  CHECK(under({}, {"/no/such", "such"}).exit.status == 127);
  CHECK(under({}, {"/etc/passwd", "passwd"}).exit.status == 126);
}
