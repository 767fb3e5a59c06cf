// How an installed agent is started.
#include "cli/install_service.h"

#include "tests/support/catch.h"

namespace {

const cli::ServiceOptions kOptions{"rig", "127.0.0.1:0", "2"};

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("the script that starts the agent says what it was made from") {
  std::string text = cli::serve_script("/home/a b/bin/sandbox-agent", "/home/a b/state", kOptions);
  CHECK(text.rfind("#!/bin/sh\n", 0) == 0);
  CHECK(has(text,
            "exec '/home/a b/bin/sandbox-agent' serve --state '/home/a b/state' --name rig "
            "--listen 127.0.0.1:0 --slots 2\n"));
  CHECK(cli::parse_serve_script(text) == kOptions);
  CHECK(cli::parse_serve_script("#!/bin/sh\nexec something\n") == std::nullopt);
  CHECK(cli::parse_serve_script("") == std::nullopt);
}

TEST_CASE("the unit lets what runs in sandboxes outlive the agent's restart") {
  std::string unit = cli::unit_file("/home/a/state/serve", kOptions);
  CHECK(has(unit, "\nKillMode=process\n"));
  CHECK(has(unit, "\nType=notify\n"));
  CHECK(has(unit, "\nRestart=always\n"));
  CHECK(has(unit, "\nWantedBy=default.target\n"));
  CHECK(has(unit, "\nExecStart=\"/home/a/state/serve\"\n"));
}

TEST_CASE("a unit's command line is taken as it is, whatever the home is called") {
  std::string unit = cli::unit_file("/home/100% $me \"x\" \\y/serve", kOptions);
  CHECK(has(unit, "\nExecStart=\"/home/100%% $$me \\\"x\\\" \\\\y/serve\"\n"));
}
