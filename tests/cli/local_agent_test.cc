#include "cli/local_agent.h"

#include "tests/support/catch.h"

namespace {

std::vector<std::string> exposed(const std::string& path, const std::string& named = {}) {
  cli::Environment environment;
  environment.variables = {{"HOME", "/home/ann"}, {"PATH", path}, {"SANDBOX_EXPOSE", named}};
  cli::Paths paths;
  paths.state = "/home/ann/.local/state/sandbox";
  paths.config = "/home/ann/.config/sandbox";
  std::vector<std::string> names;
  for (const auto& each : cli::exposed_paths(environment, paths)) names.push_back(each.string());
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE(
    "the local box's sandboxes are shown where this user's programs are, and what was named") {
  CHECK(exposed("/usr/bin:/home/ann/.cargo/bin:/bin") == Names{"/home/ann/.cargo/bin"});
  CHECK(exposed("/usr/bin", "/data:/home/ann/.rustup") == Names{"/data", "/home/ann/.rustup"});
  CHECK(exposed("").empty());
}

TEST_CASE("what is shown never has this program's own files in it, nor is it the whole home") {
  CHECK(exposed("/home/ann:/home/ann/:/home:/:.:bin:/home/ann/../ann/.local:/home/annex/bin")
            .empty());
  CHECK(exposed("/usr/bin", "/home/ann:/home:/:rel:/home/ann/.config/sandbox").empty());
}

TEST_CASE("the local box's agent has no slots, is this machine's alone, and ends when it is idle") {
  auto argv = cli::serve_arguments("/opt/sandbox-agent", "/s", {"/data"}, 4321);
  CHECK(argv == std::vector<std::string>{"/opt/sandbox-agent", "serve", "--listen",
                                         "127.0.0.1:4321", "--state", "/s", "--name", "local",
                                         "--slots", "0", "--idle-exit", "1800",
                                         "--trust-claimed-users", "--expose", "/data"});
}
