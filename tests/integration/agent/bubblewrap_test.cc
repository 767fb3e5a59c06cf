#include "agent/bubblewrap.h"

#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/places.h"
#include "tests/support/temporary_directory.h"

using agent::Shut;
namespace fs = std::filesystem;

TEST_CASE("whether bubblewrap works is known from trying it") {
  test::TemporaryDirectory scratch;
  Shut shut;
  shut.home = "/home/sandbox";
  shut.program = SANDBOX_BIN_DIR "/sandbox-agent";
  shut.bubblewrap = (scratch / "no-such-program").string();
  auto probed = agent::probe_bubblewrap(shut, scratch.path());
  REQUIRE(!probed);
  CHECK(probed.error().code == protocol::wire::Errc::unsupported);
  CHECK(probed.error().what.find("no-such-program") != std::string::npos);
  CHECK(fs::is_empty(scratch.path()));

  // One that says why.
  auto script = [&](const std::string& text) {
    std::ofstream(scratch / "bwrap") << "#!/bin/sh\n" << text;
    fs::permissions(scratch / "bwrap", fs::perms::owner_all);
    shut.bubblewrap = scratch / "bwrap";
  };
  script("echo first >&2; echo 'bwrap: No permissions' >&2; exit 1\n");
  probed = agent::probe_bubblewrap(shut, scratch.path());
  REQUIRE(!probed);
  CHECK(probed.error().what == "bwrap: No permissions");

  // One that cannot do without user namespaces inside.
  script("case \"$*\" in *--disable-userns*) exit 1;; esac\n");
  REQUIRE(agent::probe_bubblewrap(shut, scratch.path()));
  CHECK(!shut.own_users_only);
}

TEST_CASE("the agent's program runs in what the command line makes") {
  test::TemporaryDirectory scratch;
  Shut shut;
  shut.home = "/home/sandbox";
  shut.program = SANDBOX_BIN_DIR "/sandbox-agent";
  shut.shown = agent::look_at_system();
  auto probed = agent::probe_bubblewrap(shut, scratch.path());
  if (!probed) {
    WARN("skipped: no bubblewrap here: " << probed.error().what);
    return;
  }
  CHECK(fs::is_empty(scratch.path()));
  // What it needs is found out by running it, so without the system it does not work.
  shut.shown.clear();
  CHECK(!agent::probe_bubblewrap(shut, scratch.path()));
}
