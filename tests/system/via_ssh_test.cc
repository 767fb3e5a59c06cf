// A box that is reached through its own sshd: a real one, and the user's real ssh.
#include <signal.h>

#include <boost/json.hpp>

#include "protocol/os/paths.h"
#include "protocol/wire/frames.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/messages.h"
#include "tests/support/catch.h"
#include "tests/support/places.h"
#include "tests/support/sshd.h"
#include "tests/support/team.h"

namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using test::has;
using test::line_with;
using test::Machine;
using test::SharedBox;
using test::Sshd;
using test::Words;

constexpr const char* kAgent = SANDBOX_BIN_DIR "/sandbox-agent";

// A machine that knows the box `far` through an sshd.
struct Far {
  SharedBox box{"far-agent"};
  Sshd sshd;
  Machine machine;

  Far() {
    machine.make_repository();
    sshd.introduce(machine);
  }
  Words add() const {
    return {"boxes",     "add",     "--name", "far",     "--via-ssh",
            sshd.host(), "--agent", kAgent,   "--state", box.state().string()};
  }
  void introduce() {
    auto added = machine.run(add());
    INFO(added.err);
    REQUIRE(added.status == 0);
    machine.environment["SANDBOX_BOX"] = "far";
  }
};

}  // namespace

TEST_CASE("a box behind an sshd is added, listed and used as every other") {
  Far far;
  auto added = far.machine.run(far.add());
  INFO(added.err);
  REQUIRE(added.status == 0);
  CHECK(has(added.out, "ssh far"));
  far.machine.environment["SANDBOX_BOX"] = "far";

  test::write_text(far.machine.project() / "input", "sent\n");
  auto ran = far.machine.run(
      {"exec", "--", "sh", "-c", "cat input; echo changed > f; cat >&2; exit 7"}, [] {
        test::How how;
        how.input = "from stdin";
        return how;
      }());
  CHECK(ran.status == 7);
  CHECK(ran.out == "sent\n");
  CHECK(has(ran.err, "from stdin"));
  CHECK(test::file_text(far.machine.project() / "f") == "changed\n");

  auto listed = far.machine.run({"boxes"});
  CHECK(has(line_with(listed.out, "far"), "ssh far"));
  CHECK(has(line_with(listed.out, "far"), "current"));
  auto list = json::parse(far.machine.run({"list", "--json"}).out);
  CHECK(list.at("Sandboxes").at(0).at("Status") == "ready");
  CHECK(list.at("Sandboxes").at(0).at("RunURL") == "");
  CHECK(far.machine.run({"stop"}).status == 0);
}

TEST_CASE("an agent of another protocol is not used, and which end to update is said") {
  namespace wire = protocol::wire;
  Machine machine;
  machine.make_repository();
  machine.run({"key"});  // makes the directory
  test::write_text(machine.config() / "boxes.json",
                   R"({"version":1,"boxes":{"far":{"viaSsh":"far"}}})");
  fs::path said = machine.root() / "said";
  fs::path ssh = machine.root() / "ssh";
  test::write_text(ssh, "#!/bin/sh\ncat " + said.string() + "\nexec cat > /dev/null\n");
  fs::permissions(ssh, fs::perms::owner_all);
  machine.environment["SANDBOX_SSH"] = ssh.string();
  machine.environment["SANDBOX_BOX"] = "far";
  for (bool older : {true, false}) {
    INFO(older);
    wire::Info info;
    info.protocol = older ? wire::kProtocolVersion - 1 : wire::kProtocolVersion + 1;
    test::write_text(said, wire::encode(wire::Frame{wire::FrameKind::control, 0,
                                                    wire::encode(wire::Message(info))}));
    auto refused = machine.exec("true");
    CHECK(refused.status == 255);
    CHECK(has(refused.err, "speaks protocol " + std::to_string(info.protocol)));
    CHECK(has(refused.err, older ? "sandbox update --box far" : "Update sandbox here"));
    CHECK(has(refused.err, "Nothing was changed."));
  }
}

TEST_CASE("a lot of output and of files goes through an sshd whole") {
  Far far;
  far.introduce();
  std::string big(3'000'000, 'x');
  for (std::size_t i = 0; i < big.size(); i += 997) {
    big[i] = static_cast<char>(i % 251);
  }
  test::write_text(far.machine.project() / "big", big);
  auto ran = far.machine.run({"exec", "--", "sh", "-c", "cat big; cp big copy"});
  CHECK(ran.status == 0);
  CHECK(ran.out == big);
  CHECK(test::file_text(far.machine.project() / "copy") == big);
}

TEST_CASE("a box behind a jump host is reached as the user's ssh_config says") {
  SharedBox box("far-agent");
  Sshd jump("jump");
  Sshd behind("behind");
  Machine machine;
  machine.make_repository();
  jump.introduce(machine);
  behind.add_client_option("ProxyJump jump");
  behind.introduce(machine);
  auto added = machine.run({"boxes", "add", "--name", "deep", "--via-ssh", "behind", "--agent",
                            kAgent, "--state", box.state().string()});
  INFO(added.err);
  REQUIRE(added.status == 0);
  auto ran = machine.run({"exec", "--box", "deep", "--", "cat", "f"});
  CHECK(ran.status == 0);
  CHECK(ran.out == "committed\n");
  CHECK(has(jump.log(), "Accepted publickey"));
  jump.stop();
  auto cut = machine.run({"exec", "--box", "deep", "--", "true"});
  CHECK(cut.status == 255);
  CHECK(has(cut.err, "cannot reach the box deep (ssh behind)"));
}

TEST_CASE("the account decides who somebody is behind an sshd") {
  Far far;
  far.introduce();
  far.machine.environment["SANDBOX_USER"] = "somebody-else";
  auto locked = far.machine.run({"boxes", "lock", "--box", "far"});
  CHECK(locked.status == 0);
  CHECK(has(locked.out, "'far' locked by " + protocol::os::user_name() + " at"));
}

TEST_CASE("Ctrl+C at a terminal ends the command on the box, not the way to it") {
  Far far;
  far.introduce();
  fs::path trapped = far.machine.root() / "trapped";
  test::How terminal;
  terminal.terminal = true;
  auto running = far.machine.start({"exec", "--", "sh", "-c",
                                    "trap 'echo > " + trapped.string() +
                                        "; exit 9' INT; echo held; while :; do sleep 0.05; done"},
                                   terminal);
  REQUIRE(running.out_has("held"));
  running.type("\x03");  // to the whole foreground group, ssh included
  CHECK(running.wait().status == 9);
  CHECK(fs::exists(trapped));
}

TEST_CASE("a client behind an sshd that is killed frees the box") {
  Far far;
  far.introduce();
  auto holder = far.machine.start({"exec", "--", "sh", "-c", "echo held; exec sleep 600"});
  REQUIRE(holder.out_has("held"));
  CHECK(far.machine.exec("true").status == 75);
  holder.signal(SIGKILL);
  holder.wait();
  CHECK(far.machine.run({"exec", "--wait=30", "--", "true"}).status == 0);
}

TEST_CASE("what goes wrong on the way through an sshd is named, and changes nothing") {
  Far far;
  auto add = [&](const Words& more) {
    Words words = {"boxes", "add", "--name", "x"};
    words.insert(words.end(), more.begin(), more.end());
    auto ended = far.machine.run(words);
    CHECK(ended.status != 0);
    CHECK(ended.out.empty());
    CHECK_FALSE(fs::exists(far.machine.config() / "boxes.json"));
    return ended;
  };
  auto no_program = add({"--via-ssh", "far", "--agent", "/nowhere/sandbox-agent"});
  CHECK(has(no_program.err, "there is no /nowhere/sandbox-agent on the box x (ssh far)"));
  CHECK(has(no_program.err, "--agent PROGRAM"));
  auto no_agent = add({"--via-ssh", "far", "--agent", kAgent, "--state", "/nowhere/state"});
  CHECK(has(no_agent.err, "no agent can be reached"));
  CHECK(has(no_agent.err, "/nowhere/state"));
  auto chatter = add({"--via-ssh", "far", "--agent", "echo"});
  CHECK(has(chatter.err, "is no agent"));
  CHECK(has(chatter.err, "has to print nothing"));
  auto no_key = add({"--via-ssh", "far", "--host-key", "SHA256:x"});
  CHECK(no_key.status == 2);
  far.sshd.stop();
  auto no_sshd = add({"--via-ssh", "far"});
  CHECK(has(no_sshd.err, "cannot reach the box x (ssh far)"));
  CHECK(has(no_sshd.err, "Connection refused"));  // ssh's own words
  CHECK(has(no_sshd.err, "`ssh far true`"));
  far.machine.environment["SANDBOX_SSH"] = "/nowhere/ssh";
  CHECK(has(add({"--via-ssh", "far"}).err, "there is no ssh to run"));
}

TEST_CASE("ssh-config says what a box behind an sshd has not got") {
  Far far;
  far.introduce();
  REQUIRE(far.machine.exec("true").status == 0);
  auto ended = far.machine.run({"ssh-config"});
  CHECK(ended.status == 255);
  CHECK(has(ended.err, "reached through its own sshd"));
}
