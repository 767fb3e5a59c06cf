// The CLI and an agent of another version: one that is older and does not know what it is asked,
// one that is newer, and one that says things it should not.
#include <boost/json.hpp>

#include "agent/channel_stream.h"
#include "protocol/os/frame_stream.h"
#include "tests/support/catch.h"
#include "tests/support/ssh_world.h"
#include "tests/support/team.h"

namespace {

namespace json = boost::json;
namespace os = protocol::os;
namespace ssh = protocol::ssh;
namespace wire = protocol::wire;
using test::has;
using test::line_with;
using test::Machine;

// Answers each question by this function, and `unsupported` where it has no answer.
using Answers = std::function<std::optional<wire::Message>(const wire::Message&)>;

test::Command agent_that(Answers answers) {
  return [answers = std::move(answers)](std::shared_ptr<ssh::ServerChannel> channel,
                                        ssh::ExecRequest) -> os::awaitable<void> {
    channel->accept();
    os::FrameStream frames(co_await boost::asio::this_coro::executor,
                           std::make_unique<agent::ChannelStream>(channel));
    for (;;) {
      auto frame = co_await frames.read();
      if (!frame || !*frame) {
        break;
      }
      auto question = wire::decode((**frame).payload);
      auto answer = question ? answers(*question) : std::nullopt;
      wire::Message said = wire::Failed{"message", "unsupported", "there is no such message"};
      if (answer) {
        said = *answer;
      }
      frames.send((**frame).request, said);
    }
    auto ended = co_await frames.finish();
    (void)ended;
  };
}

struct World {
  explicit World(Answers answers) : ssh({}, agent_that(std::move(answers))) {
    test::write_text(
        machine.config() / "boxes.json",
        json::serialize(json::object(
            {{"version", 1},
             {"boxes",
              {{"rig", {{"address", "127.0.0.1:" + std::to_string(ssh.server.port())}}}}}})));
    std::filesystem::permissions(machine.config(), std::filesystem::perms::owner_all);
  }
  test::Ended run(const test::Words& words) {
    test::Ended ended;
    ssh.run_beside([&] { ended = machine.run(words); });
    return ended;
  }
  test::SshWorld ssh;
  Machine machine;
};

std::optional<wire::Message> only_info(const wire::Message& question, const std::string& version) {
  if (!std::holds_alternative<wire::InfoRequest>(question)) {
    return std::nullopt;
  }
  wire::Info info;
  info.version = version;
  info.protocol = 1;
  return info;
}

}  // namespace

TEST_CASE("an agent that is too old for the question is listed with its version") {
  World world([](const wire::Message& question) { return only_info(question, "0.0.9"); });
  auto listed = world.run({"boxes"});
  CHECK(listed.status == 0);
  CHECK(has(line_with(listed.out, "rig"), "0.0.9"));
  CHECK(has(line_with(listed.out, "rig"), "needs update"));
  CHECK(has(listed.out, "1 box needs an update"));
  auto answer = json::parse(world.run({"boxes", "--json"}).out);
  CHECK(answer.at("Boxes").at(0).at("Status") == "needs update");
  CHECK(answer.at("Boxes").at(0).at("Sandboxes").is_null());
}

TEST_CASE("an agent that cannot be locked yet is named, and what to do") {
  World world([](const wire::Message& question) { return only_info(question, "0.0.9"); });
  for (const char* verb : {"lock", "unlock"}) {
    auto ended = world.run({"boxes", verb, "--box", "rig"});
    CHECK(ended.status == 255);
    CHECK(ended.out.empty());
    CHECK(has(ended.err, "the agent of the box rig is older than this"));
    CHECK(has(ended.err, "Update it"));
  }
}

TEST_CASE("an agent that is newer is listed as that") {
  World world([](const wire::Message& question) -> std::optional<wire::Message> {
    if (!std::holds_alternative<wire::BoxRequest>(question)) {
      return std::nullopt;
    }
    wire::Box box;
    box.version = "99.0";
    return box;
  });
  auto listed = world.run({"boxes"});
  CHECK(has(line_with(listed.out, "rig"), "newer"));
  CHECK(has(listed.out, "1 box is newer than this CLI"));
}

TEST_CASE("an agent that answers something else is unreachable, and says nothing to the terminal") {
  World world([](const wire::Message&) -> std::optional<wire::Message> {
    return wire::Failed{"x\x1b[2J", "io", "y\x1b[2J"};
  });
  auto listed = world.run({"boxes"});
  CHECK(has(line_with(listed.out, "rig"), "unreachable"));
  CHECK(has(listed.err, "rig: "));
  CHECK((listed.out + listed.err).find('\x1b') == std::string::npos);
}

TEST_CASE("an agent that cannot be locked is not updated, unless by force") {
  const std::string version = GENERATE(std::string(), std::string("0.0.9"));
  World world([&](const wire::Message& question) {
    return version.empty() ? std::nullopt : only_info(question, version);
  });
  auto ended = world.run({"update", "--box", "rig"});
  CHECK(ended.status == 255);
  CHECK(has(ended.err, version.empty()
                           ? "the box rig opens no session: there is no such message"
                           : "rig cannot be locked as a whole: there is no such message"));
  CHECK(has(ended.err, "With --force-command it is updated without being asked"));
  // ... which goes on to the next step.
  auto forced = world.run({"update", "--box", "rig", "--force-command"});
  CHECK(forced.status == 2);
  CHECK(has(forced.err, "updating it by force"));
  CHECK(has(forced.err, "the box rig was not installed from here"));
}
