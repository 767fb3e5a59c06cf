#include "agent/bubblewrap.h"

#include <algorithm>
#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

using agent::Shown;
using agent::Shut;
namespace fs = std::filesystem;

namespace {

using Words = std::vector<std::string>;

bool has(const Words& command, const Words& run) {
  return std::search(command.begin(), command.end(), run.begin(), run.end()) != command.end();
}

std::ptrdiff_t place(const Words& command, const Words& run) {
  auto found = std::search(command.begin(), command.end(), run.begin(), run.end());
  REQUIRE(found != command.end());
  return found - command.begin();
}

Shut example() {
  Shut shut;
  shut.directory = "/s/sandboxes/abc";
  shut.home = "/home/ann";
  shut.program = "/usr/bin/sandbox-agent";
  return shut;
}

}  // namespace

TEST_CASE(
    "a sandbox has its own processes, users, IPC and host name, and no capabilities to keep") {
  auto command = agent::bubblewrap_command(example());
  CHECK(command.front() == "bwrap");
  CHECK(command.back() == "--");
  for (const char* option : {"--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
                             "--disable-userns", "--as-pid-1", "--clearenv"}) {
    CAPTURE(option);
    CHECK(has(command, {option}));
  }
  CHECK(has(command, {"--cap-drop", "ALL"}));
  CHECK(has(command, {"--remount-ro", "/"}));
  CHECK(place(command, {"--proc", "/proc"}) <
        place(command, {"--ro-bind-try", "/proc/sys", "/proc/sys"}));
  // It outlives the agent, and bubblewrap.
  CHECK(!has(command, {"--die-with-parent"}));
}

TEST_CASE("the network is the box's unless it was asked to be none") {
  Shut shut = example();
  CHECK(!has(agent::bubblewrap_command(shut), {"--unshare-net"}));
  shut.network = false;
  CHECK(has(agent::bubblewrap_command(shut), {"--unshare-net"}));
}

TEST_CASE("every sandbox finds its workspace and its home at the same place") {
  auto command = agent::bubblewrap_command(example());
  CHECK(has(command, {"--bind", "/s/sandboxes/abc/workspace", "/workspace"}));
  CHECK(has(command, {"--bind", "/s/sandboxes/abc/home", "/home/ann"}));
  CHECK(has(command, {"--bind", "/s/sandboxes/abc", "/run/sandbox/abc"}));
  CHECK(has(command, {"--ro-bind", "/usr/bin/sandbox-agent", "/run/sandbox/sandbox-agent"}));
}

TEST_CASE("what is given is mounted after what it lies in, and never over it") {
  Shut shut = example();
  shut.shown = {{"/home/ann/.cargo"}, {"/home"}, {"/tmp/x"}, {"/dev/ttyUSB0", "", true}};
  auto command = agent::bubblewrap_command(shut);
  auto all = place(command, {"--ro-bind-try", "/home", "/home"});
  auto home = place(command, {"--bind", "/s/sandboxes/abc/home", "/home/ann"});
  auto tools = place(command, {"--ro-bind-try", "/home/ann/.cargo", "/home/ann/.cargo"});
  CHECK(all < home);
  CHECK(home < tools);
  CHECK(place(command, {"--tmpfs", "/tmp"}) <
        place(command, {"--ro-bind-try", "/tmp/x", "/tmp/x"}));
  CHECK(place(command, {"--dev", "/dev"}) <
        place(command, {"--dev-bind-try", "/dev/ttyUSB0", "/dev/ttyUSB0"}));
}

TEST_CASE("whatever user looks, the directories above what is shown are open to it") {
  Shut shut = example();
  shut.shown = {{"/etc/ssl"}, {"/usr"}, {"/usr/local/x"}};
  auto command = agent::bubblewrap_command(shut);
  CHECK(place(command, {"--perms", "0755", "--dir", "/etc"}) <
        place(command, {"--ro-bind-try", "/etc/ssl", "/etc/ssl"}));
  CHECK(has(command, {"--dir", "/home"}));
  // What is mounted has its own.
  CHECK(!has(command, {"--dir", "/usr/local"}));
  CHECK(!has(command, {"--dir", "/run"}));
}

TEST_CASE("the environment inside is what was named and nothing else") {
  Shut shut = example();
  shut.environment = {{"PATH", "/usr/bin"}};
  auto command = agent::bubblewrap_command(shut);
  CHECK(place(command, {"--clearenv"}) < place(command, {"--setenv", "PATH", "/usr/bin"}));
  CHECK(std::count(command.begin(), command.end(), "--setenv") == 1);
}

TEST_CASE("of the system programs are shown, of its settings no secrets") {
  test::TemporaryDirectory root;
  for (const char* directory : {"usr/bin", "usr/share/zoneinfo", "opt", "etc/ssl", "etc/ssh",
                                "home", "etc/java-17", "run/resolve", "root", "var"})
    fs::create_directories(root / directory);
  fs::create_directory_symlink("usr/bin", root / "bin");
  for (const char* file :
       {"etc/passwd", "etc/shadow", "etc/gitconfig", "usr/share/zoneinfo/UTC", "run/resolve/conf"})
    std::ofstream(root / file) << "x";
  fs::create_symlink("/usr/share/zoneinfo/UTC", root / "etc/localtime");
  fs::create_symlink("../run/resolve/conf", root / "etc/resolv.conf");
  fs::create_symlink("/nowhere", root / "etc/hosts");
  auto shown = agent::look_at_system(root.path());
  std::vector<Shown> wanted = {{"/usr"},
                               {"/bin", "usr/bin"},
                               {"/opt"},
                               {"/etc/java-17"},
                               {"/etc/localtime", "/usr/share/zoneinfo/UTC"},
                               {"/etc/passwd"},
                               {"/etc/resolv.conf"},
                               {"/etc/ssl"}};
  std::string names;
  for (const auto& each : shown) names += each.path.native() + " " + each.link + "\n";
  INFO(names);
  CHECK(shown == wanted);
}

TEST_CASE("an account's home keeps its place unless that would hide a part of the system") {
  CHECK(agent::home_place("/home/ann") == "/home/ann");
  CHECK(agent::home_place("/home/ann/") == "/home/ann");
  CHECK(agent::home_place("/root") == "/root");
  CHECK(agent::home_place("/var/lib/agent") == "/var/lib/agent");
  for (const char* taken : {"/", "", "home", "/usr/sbin", "/bin", "/etc/x", "/run/user/1", "/tmp",
                            "/workspace", "/var", "/opt", "/proc"})
    CHECK(agent::home_place(taken) == "/home/sandbox");
}
