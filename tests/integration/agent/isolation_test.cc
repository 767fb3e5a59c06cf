#include "agent/isolation.h"

#include <algorithm>
#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

using agent::Isolation;
using agent::IsolationMode;
using protocol::wire::Errc;
namespace fs = std::filesystem;

namespace {

// A box whose bubblewrap is a script that says yes or no.
struct Box {
  Box() {
    settings.mode = IsolationMode::none;
    settings.program = "/usr/bin/sandbox-agent";
    settings.scratch = scratch.path();
    settings.users = [this] { return users; };
  }
  Box& bubblewrap(bool works) {
    settings.bubblewrap = scratch / "bwrap";
    std::ofstream(settings.bubblewrap)
        << (works ? "#!/bin/sh\n" : "#!/bin/sh\necho no way >&2; exit 1\n");
    fs::permissions(settings.bubblewrap, fs::perms::owner_all);
    return *this;
  }
  Box& mode(IsolationMode mode) {
    settings.mode = mode;
    return *this;
  }
  agent::result<Isolation> open() { return Isolation::open(settings); }

  test::TemporaryDirectory scratch;
  Isolation::Settings settings;
  std::size_t users = 1;
};

std::string chosen(Box& box, const std::string& wanted) {
  auto isolation = box.open();
  REQUIRE(isolation);
  auto choice = isolation->choose(wanted);
  return choice ? *choice : protocol::wire::name(choice.error().code);
}

}  // namespace

TEST_CASE("isolation is with bubblewrap where it works, and none where it does not") {
  Box works, broken;
  works.bubblewrap(true).mode(IsolationMode::automatic);
  broken.bubblewrap(false).mode(IsolationMode::automatic);
  CHECK(chosen(works, "auto") == "bwrap");
  CHECK(works.open()->by_default() == "bwrap");
  CHECK(chosen(broken, "auto") == "none");
  CHECK(broken.open()->by_default() == "none");
  CHECK(chosen(broken, "bwrap") == "unsupported");
  CHECK(chosen(works, "magic") == "bad_input");
}

TEST_CASE("a box that was told to isolate does not start where it cannot, and says why") {
  Box broken;
  auto opened = broken.bubblewrap(false).mode(IsolationMode::bwrap).open();
  REQUIRE(!opened);
  CHECK(opened.error().code == Errc::unsupported);
  CHECK(opened.error().what.find("no way") != std::string::npos);
  Box works;
  works.bubblewrap(true).mode(IsolationMode::bwrap);
  CHECK(chosen(works, "auto") == "bwrap");
}

TEST_CASE("no isolation is what one person may ask for, unless the box demands it") {
  Box box;
  box.bubblewrap(true).mode(IsolationMode::automatic);
  CHECK(chosen(box, "none") == "none");
  box.mode(IsolationMode::bwrap);
  CHECK(chosen(box, "none") == "refused");
  box.mode(IsolationMode::none);
  CHECK(chosen(box, "auto") == "none");
  CHECK(chosen(box, "bwrap") == "unsupported");
}

TEST_CASE("a box of several users runs nothing without isolation unless it trusts all commands") {
  Box box;
  box.users = 2;
  box.bubblewrap(true).mode(IsolationMode::automatic);
  CHECK(chosen(box, "auto") == "bwrap");
  CHECK(chosen(box, "none") == "refused");
  auto without = box.mode(IsolationMode::none).open();
  REQUIRE(!without);
  CHECK(without.error().code == Errc::refused);
  CHECK(without.error().what.find("--trust-commands") != std::string::npos);
  CHECK(!box.bubblewrap(false).mode(IsolationMode::automatic).open());
  box.settings.trust_commands = true;
  CHECK(chosen(box, "auto") == "none");
}

TEST_CASE("a second user who may come in later ends what one user was allowed") {
  Box box;
  box.mode(IsolationMode::none);
  auto isolation = box.open();
  REQUIRE(isolation);
  CHECK(isolation->choose("auto"));
  agent::SandboxRecord made;
  made.isolation = "none";
  CHECK(isolation->supervise(made, "/s/abc"));
  box.users = 2;
  CHECK(!isolation->choose("auto"));
  auto started = isolation->supervise(made, "/s/abc");
  REQUIRE(!started);
  CHECK(started.error().code == Errc::refused);
}

TEST_CASE("a sandbox runs in what it was made with") {
  Box box;
  box.bubblewrap(true).mode(IsolationMode::automatic);
  auto isolation = box.open();
  REQUIRE(isolation);
  agent::SandboxRecord sandbox;
  sandbox.isolation = "none";
  CHECK(*isolation->supervise(sandbox, "/s/abc") ==
        std::vector<std::string>{"/usr/bin/sandbox-agent", "supervise", "--directory", "/s/abc"});
  sandbox.isolation = "bwrap";
  auto command = isolation->supervise(sandbox, "/s/abc");
  REQUIRE(command);
  std::vector<std::string> inside = {"--", "/run/sandbox/sandbox-agent", "supervise", "--directory",
                                     "/run/sandbox/abc"};
  CHECK(std::search(command->begin(), command->end(), inside.begin(), inside.end()) !=
        command->end());
  CHECK(command->front() == box.settings.bubblewrap.native());

  // Not without, when it does not work any more.
  auto broken = box.bubblewrap(false).open();
  REQUIRE(broken);
  auto refused = broken->supervise(sandbox, "/s/abc");
  REQUIRE(!refused);
  CHECK(refused.error().what.find("no way") != std::string::npos);
}

TEST_CASE("what the box's owner gives to every sandbox is shown, and of the environment little") {
  Box box;
  box.bubblewrap(true).mode(IsolationMode::automatic);
  box.settings.exposed = {"/home/ann/.cargo", "/dev/ttyUSB0"};
  box.settings.environment = {{"PATH", "/bin"}, {"LC_ALL", "C"}, {"TOKEN", "secret"}};
  auto isolation = box.open();
  REQUIRE(isolation);
  agent::SandboxRecord sandbox;
  sandbox.isolation = "bwrap";
  auto command = isolation->supervise(sandbox, "/s/abc");
  REQUIRE(command);
  auto has = [&](std::vector<std::string> run) {
    return std::search(command->begin(), command->end(), run.begin(), run.end()) != command->end();
  };
  CHECK(has({"--ro-bind-try", "/home/ann/.cargo", "/home/ann/.cargo"}));
  CHECK(has({"--dev-bind-try", "/dev/ttyUSB0", "/dev/ttyUSB0"}));
  CHECK(has({
      "--setenv",
      "PATH",
      "/bin",
  }));
  CHECK(has({"--setenv", "LC_ALL", "C"}));
  CHECK(!has({"TOKEN"}));
}
