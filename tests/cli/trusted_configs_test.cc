#include "cli/trusted_configs.h"

#include <sys/stat.h>

#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

using cli::Config;
using cli::TrustedConfigs;

namespace {

struct World {
  test::TemporaryDirectory directory;
  cli::Paths paths{directory / "state", directory / "config"};
  TrustedConfigs trusted{paths};
};

Config config(const std::string& text, const std::string& file = "/p/.sandbox.yml") {
  return cli::parse_config(text, file);
}

}  // namespace

TEST_CASE("what is trusted is this file with exactly this content") {
  World world;
  CHECK_FALSE(world.trusted.trusts(config("box: rig\n")));
  world.trusted.add(config("box: rig\n"));
  CHECK(world.trusted.trusts(config("box: rig\n")));
  CHECK_FALSE(world.trusted.trusts(config("box: rig\n ")));
  CHECK_FALSE(world.trusted.trusts(config("box: rig\n", "/q/.sandbox.yml")));
  CHECK_FALSE(world.trusted.trusts(Config()));
  world.trusted.add(config("box: other\n"));
  CHECK_FALSE(world.trusted.trusts(config("box: rig\n")));  // one content at a time
  CHECK(world.trusted.all().size() == 1);
  CHECK(world.trusted.remove("/p/.sandbox.yml"));
  CHECK_FALSE(world.trusted.remove("/p/.sandbox.yml"));
  CHECK_FALSE(world.trusted.trusts(config("box: other\n")));
}

TEST_CASE("the digest that is kept is SHA-256") {
  CHECK(config("").sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST_CASE(
    "the list of trusted files is its owner's alone, and one that others may write is not "
    "believed") {
  World world;
  world.trusted.add(config("box: rig\n", "/p/\xff.yml"));
  CHECK(world.trusted.all().front().file == "/p/\xff.yml");
  struct stat status {};
  REQUIRE(::stat(world.paths.trust().c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  ::chmod(world.paths.trust().c_str(), 0620);
  CHECK_THROWS_AS(world.trusted.all(), cli::UserError);
  ::chmod(world.paths.trust().c_str(), 0600);
  for (const char* damaged : {"", "x", "{}", R"({"format":"2","trusted":[]})"}) {
    std::ofstream(world.paths.trust()) << damaged << std::flush;
    CHECK_THROWS_AS(world.trusted.all(), cli::UserError);
  }
}
