#include "agent/limits.h"

#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

using agent::Cgroups;
using agent::Limits;
using protocol::wire::Errc;
namespace fs = std::filesystem;

namespace {

// A tree of files as cgroup v2 shows it. What the kernel would make of what is written, it does
// not.
class Tree {
 public:
  explicit Tree(const std::string& controllers = "cpuset cpu memory pids") {
    fs::create_directories(own());
    write("mounts", "22 1 0:20 / /proc rw - proc proc rw\n30 1 0:26 / " + (files_ / "fs").native() +
                        " rw,relatime shared:4 - cgroup2 cgroup2 rw\n");
    write("membership", "4:memory:/old\n0::/service\n");
    write("fs/service/cgroup.controllers", controllers + "\n");
    write("fs/service/cgroup.subtree_control", "");
    // As the kernel makes them, in every group.
    for (const char* group : {"agent", "probe", "sandbox-abc"}) {
      fs::create_directories(own() / group);
      for (const char* file :
           {"cgroup.procs", "memory.max", "memory.swap.max", "cpu.max", "pids.max"})
        write(std::string("fs/service/") + group + "/" + file, "");
    }
  }
  void remove(const std::string& file) {
    for (const char* group : {"probe", "sandbox-abc"}) fs::remove(own() / group / file);
  }
  fs::path own() const { return files_ / "fs/service"; }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(files_ / name) << text;
  }
  std::string read(const std::string& name) const {
    std::ifstream file(own() / name);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  agent::result<Cgroups> open() const {
    return Cgroups::open(files_ / "mounts", files_ / "membership");
  }

 private:
  test::TemporaryDirectory files_;
};

agent::SandboxRecord sandbox(protocol::wire::Limits limits,
                             const std::string& isolation = "bwrap") {
  agent::SandboxRecord record;
  record.id = "abc";
  record.isolation = isolation;
  record.limits = limits;
  return record;
}

Limits by_process(bool root = false) { return Limits(std::nullopt, "none", root, {0, 1, 2, 3}); }

std::string refusal(const Limits& limits, protocol::wire::Limits wanted, bool isolated = true) {
  auto checked = limits.check(wanted, isolated);
  REQUIRE(!checked);
  CHECK(checked.error().code == Errc::unsupported);
  return checked.error().what;
}

}  // namespace

TEST_CASE("an agent with a cgroup of its own makes room in it for its sandboxes") {
  Tree tree;
  auto cgroups = tree.open();
  REQUIRE(cgroups);
  CHECK(tree.read("cgroup.subtree_control") == "+memory +cpu +pids");
  CHECK(tree.read("agent/cgroup.procs") == std::to_string(::getpid()));
  auto group = cgroups->make("abc", {.memory = 1 << 30, .millicpus = 1500, .pids = 64});
  REQUIRE(group);
  CHECK(*group == tree.own() / "sandbox-abc");
  CHECK(tree.read("sandbox-abc/memory.max") == "1073741824");
  CHECK(tree.read("sandbox-abc/memory.swap.max") == "0");
  CHECK(tree.read("sandbox-abc/cpu.max") == "150000 100000");
  CHECK(tree.read("sandbox-abc/pids.max") == "64");
  // Made again with others, it has those.
  REQUIRE(cgroups->make("abc", {.millicpus = 500}));
  CHECK(tree.read("sandbox-abc/memory.max") == "max");
  CHECK(tree.read("sandbox-abc/cpu.max") == "50000 100000");
}

TEST_CASE("a limit that the kernel does not take is none before a sandbox asks for it") {
  Tree tree;
  tree.remove("cpu.max");
  auto cgroups = tree.open();
  REQUIRE(cgroups);
  CHECK(!cgroups->has("cpu"));
  CHECK(cgroups->has("memory"));
  CHECK(cgroups->has("pids"));
  REQUIRE(cgroups->make("abc", {.memory = 1 << 30, .millicpus = 1500, .pids = 64}));
  CHECK(tree.read("sandbox-abc/pids.max") == "64");
  // Then it is one of each command, or refused.
  Limits limits(*cgroups, "", true, {0, 1});
  CHECK(refusal(limits, {.millicpus = 1500}).find("its cgroup has no such limit") !=
        std::string::npos);

  for (const char* file : {"memory.max", "pids.max"}) tree.remove(file);
  REQUIRE(!tree.open());
  CHECK(tree.open().error().what.find("pids.max") != std::string::npos);
}

TEST_CASE("where the kernel does not count what is swapped, memory is limited all the same") {
  Tree tree;
  tree.remove("memory.swap.max");
  auto cgroups = tree.open();
  REQUIRE(cgroups);
  CHECK(cgroups->has("memory"));
  REQUIRE(cgroups->make("abc", {.memory = 1 << 30}));
  CHECK(tree.read("sandbox-abc/memory.max") == "1073741824");
  CHECK(!fs::exists(tree.own() / "sandbox-abc/memory.swap.max"));
}

TEST_CASE("where there is no cgroup to be had, it is said why") {
  Tree empty("");
  REQUIRE(!empty.open());
  CHECK(empty.open().error().what.find("no controller") != std::string::npos);
  Tree old;
  old.write("membership", "4:memory:/old\n");
  REQUIRE(!old.open());
  CHECK(old.open().error().what.find("no cgroup v2") != std::string::npos);
  Tree elsewhere;
  elsewhere.write("mounts", "22 1 0:20 / /proc rw - proc proc rw\n");
  CHECK(!elsewhere.open());
  Tree shared;
  fs::remove(shared.own() / "cgroup.subtree_control");
  REQUIRE(!shared.open());
  CHECK(shared.open().error().what.find("Delegate=yes") != std::string::npos);
}

TEST_CASE("with a cgroup a sandbox is limited as a whole, and its commands are not one by one") {
  Tree tree;
  auto cgroups = tree.open();
  REQUIRE(cgroups);
  Limits limits(*cgroups, "", true, {0});
  auto plan = limits.plan(
      sandbox({.memory = 1 << 30, .millicpus = 2500, .pids = 20, .seconds = 9}, "none"));
  REQUIRE(plan);
  CHECK(plan->cgroup == tree.own() / "sandbox-abc");
  CHECK(!plan->jobs.any());
  CHECK(plan->seconds == 9);
  // Its supervisor is one of them.
  CHECK(tree.read("sandbox-abc/pids.max") == "36");
  // Nothing is limited, nothing is made.
  auto free = limits.plan(sandbox({.seconds = 9}));
  REQUIRE(free);
  CHECK(free->cgroup.empty());
}

TEST_CASE("without a cgroup each command is limited") {
  auto plan =
      by_process().plan(sandbox({.memory = 1 << 30, .millicpus = 2000, .pids = 20, .seconds = 9}));
  REQUIRE(plan);
  CHECK(plan->cgroup.empty());
  CHECK(plan->jobs.memory == 1 << 30);
  CHECK(plan->jobs.pids == 36);
  CHECK(plan->jobs.cpus.size() == 2);
  CHECK(plan->jobs.cpus[0] != plan->jobs.cpus[1]);
  CHECK(plan->seconds == 9);
  auto none = by_process().plan(sandbox({}));
  REQUIRE(none);
  CHECK(!none->jobs.any());
}

TEST_CASE("a limit that cannot be enforced is refused by its name") {
  using Wanted = protocol::wire::Limits;
  CHECK(refusal(by_process(true), Wanted{.pids = 5}).find("limits.pids") != std::string::npos);
  CHECK(refusal(by_process(true), Wanted{.pids = 5}).find("as another user") != std::string::npos);
  CHECK(refusal(by_process(), Wanted{.pids = 5}, false).find("limits.pids") != std::string::npos);
  CHECK(refusal(by_process(), Wanted{.millicpus = 1500}).find("limits.cpus") != std::string::npos);
  CHECK(refusal(by_process(), Wanted{.millicpus = 5000}).find("4 processors") != std::string::npos);
  CHECK(by_process().check(Wanted{.memory = 1 << 30, .millicpus = 4000, .pids = 5}, true));
  CHECK(by_process(true).check(Wanted{.memory = 1 << 30, .seconds = 1}, false));
  // And when a sandbox that was made elsewhere is to start.
  CHECK(!by_process(true).plan(sandbox({.pids = 5})));
}

TEST_CASE("what is no limit is no limit") {
  for (protocol::wire::Limits wrong : {protocol::wire::Limits{.memory = -1},
                                       {.memory = 1000},
                                       {.millicpus = -1},
                                       {.pids = -5},
                                       {.seconds = -1},
                                       {.memory = 1ll << 60}}) {
    auto checked = by_process().check(wrong, true);
    REQUIRE(!checked);
    CHECK(checked.error().code == Errc::bad_input);
  }
}
