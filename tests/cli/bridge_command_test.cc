#include <algorithm>

#include "cli/bridge_connection.h"
#include "tests/support/catch.h"

namespace {

using Words = std::vector<std::string>;

cli::Box far_box() {
  cli::Box box;
  box.name = "far";
  box.via_ssh = "far-host";
  return box;
}

Words command(const cli::Box& box, bool may_ask, const std::string& ssh = "") {
  cli::Environment environment;
  environment.variables["SANDBOX_SSH"] = ssh;
  return cli::bridge_command(box, environment, std::chrono::seconds(7), may_ask);
}

bool has(const Words& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

TEST_CASE("the user's own ssh runs the bridge, and the host can be no option") {
  Words words = command(far_box(), true);
  CHECK(words[3] == "ssh");
  CHECK(has(words, "-T"));
  CHECK(has(words, "ConnectTimeout=7"));
  CHECK_FALSE(has(words, "BatchMode=yes"));
  REQUIRE(words.size() > 3);
  CHECK(words[words.size() - 3] == "--");
  CHECK(words[words.size() - 2] == "far-host");
  CHECK(words.back() == "sandbox-agent bridge --state .local/state/sandbox-agent");
}

TEST_CASE("an ssh that may not ask fails instead") {
  CHECK(has(command(far_box(), false), "BatchMode=yes"));
}

TEST_CASE("another ssh and another agent are taken as they are named") {
  cli::Box box = far_box();
  box.agent = "/opt/my agent";
  box.state = "/var/lib/it's";
  Words words = command(box, true, "/usr/local/bin/ssh");
  CHECK(words[3] == "/usr/local/bin/ssh");
  CHECK(words.back() == "'/opt/my agent' bridge --state '/var/lib/it'\\''s'");
}
