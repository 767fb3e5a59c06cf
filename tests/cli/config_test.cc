#include "cli/config.h"

#include <fstream>

#include "cli/error.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

namespace {

std::string complaint(const std::string& text) {
  try {
    cli::parse_config(text, "/p/.sandbox.yml");
  } catch (const cli::UserError& error) {
    CHECK(error.origin == "config");
    CHECK(error.status == cli::kMisuse);
    return error.what();
  }
  return "";
}

std::string refusal(const std::string& text, const cli::Consent& consent) {
  cli::Config config = cli::parse_config(text, "/p/.sandbox.yml");
  try {
    cli::apply_consent(config, consent);
  } catch (const cli::UserError& error) {
    CHECK(error.status == cli::kMisuse);
    return std::string(error.what()) + " " + error.next;
  }
  return "";
}

// What loading DIRECTORY's configuration says to do next.
std::string next_step(const std::filesystem::path& directory) {
  try {
    cli::load_config("", directory, directory);
  } catch (const cli::UserError& error) {
    CHECK(std::string(error.what()).find(directory / ".sandbox.yml") != std::string::npos);
    return error.next;
  }
  return "";
}

void write(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

}  // namespace

TEST_CASE("every key is read") {
  auto config = cli::parse_config(
      "box: rig1\nsetup:\n  - make deps\n  - 'echo \"x y\"'\nenv:\n  A: 1\n  B: two words\n  C:\n"
      "shell: /bin/bash\nsync:\n  include: [.env, build/x]\n  depth: 0\nisolation: auto\n",
      "/p/.sandbox.yml");
  CHECK(config.box == "rig1");
  CHECK(config.setup == std::vector<std::string>{"make deps", "echo \"x y\""});
  CHECK(config.env ==
        std::map<std::string, std::string>{{"A", "1"}, {"B", "two words"}, {"C", ""}});
  CHECK(config.shell == "/bin/bash");
  CHECK(config.includes == std::vector<std::string>{".env", "build/x"});
  CHECK(config.depth == 0);
  CHECK(config.isolation == "auto");
}

TEST_CASE("an empty file, and one setup command without a list, are fine") {
  CHECK(cli::parse_config("", "/p/x").setup.empty());
  CHECK(cli::parse_config("# nothing\n", "/p/x").depth == 50);
  CHECK(cli::parse_config("setup: make\n", "/p/x").setup == std::vector<std::string>{"make"});
}

TEST_CASE(
    "the template that init writes is a valid configuration, with and without its comment signs") {
  CHECK(cli::parse_config(cli::config_template(), "/p/x").setup.empty());
  std::string open;
  std::string text = cli::config_template();
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = text.find('\n', at);
    std::string line = text.substr(at, end - at);
    bool prose = line.rfind("# ", 0) == 0 && line.size() > 2 && line[2] != ' ';
    open += (line.rfind('#', 0) == 0 && !prose ? line.substr(1) : line) + "\n";
    at = end + 1;
  }
  auto config = cli::parse_config(open, "/p/x");
  CHECK(config.setup.size() == 2);
  CHECK(config.box == "rig1");
  CHECK(config.includes.size() == 1);
  CHECK(config.network == "none");
  CHECK(config.limits.seconds == 1800);
}

TEST_CASE("limits are sizes, processors, processes and durations") {
  auto config = cli::parse_config(
      "network: none\nlimits: {memory: 512M, cpus: 1.5, pids: 100, time: 10m}\n", "/p/x");
  CHECK(config.network == "none");
  CHECK(config.limits.memory == 512 << 20);
  CHECK(config.limits.millicpus == 1500);
  CHECK(config.limits.pids == 100);
  CHECK(config.limits.seconds == 600);
  CHECK(cli::parse_config("limits: {memory: 2T}\n", "/p/x").limits.memory == 2ll << 40);
  CHECK(cli::parse_config("limits: {memory: 1048576}\n", "/p/x").limits.memory == 1 << 20);
  CHECK(cli::parse_config("limits: {cpus: 2}\n", "/p/x").limits.millicpus == 2000);
  CHECK(cli::parse_config("limits:\n", "/p/x").limits == protocol::wire::Limits());
  for (const char* wrong :
       {"memory: lots", "memory: 0", "memory: -1", "memory: 9999999T", "memory: G", "cpus: 1.",
        "cpus: 0", "cpus: 0.0001", "cpus: -2", "pids: 1.5", "pids: 0", "time: soon", "time: 0"}) {
    CAPTURE(wrong);
    CHECK(
        complaint("limits:\n  " + std::string(wrong) + "\n").find("/p/.sandbox.yml:2: `limits.") ==
        0);
  }
  CHECK(complaint("limits:\n  disk: 1G\n").find("`limits.disk`") != std::string::npos);
  CHECK(complaint("limits: 3\n").find("/p/.sandbox.yml:1: `limits` must be a map") == 0);
  CHECK(complaint("network: vpn\n").find("/p/.sandbox.yml:1: `network`") == 0);
}

TEST_CASE("what is wrong is named with file and line") {
  CHECK(complaint("setup:\n  - a\nsteup: x\n").find("/p/.sandbox.yml:3: there is no key `steup`") ==
        0);
  CHECK(complaint("sync:\n  includes: []\n")
            .find("/p/.sandbox.yml:2: there is no key `sync.includes`") == 0);
  CHECK(complaint("sync:\n  depth: many\n").find("/p/.sandbox.yml:2: `sync.depth`") == 0);
  CHECK(complaint("sync:\n  depth: -1\n").find("/p/.sandbox.yml:2: `sync.depth`") == 0);
  CHECK(complaint("env:\n  - A\n").find("/p/.sandbox.yml:2: `env` must be a map") == 0);
  CHECK(complaint("env:\n  A: [1]\n").find("/p/.sandbox.yml:2: `env.A` must be a text") == 0);
  CHECK(complaint("shell: bash\n").find("/p/.sandbox.yml:1: `shell` must be an absolute path") ==
        0);
  CHECK(complaint("\nisolation: docker\n").find("/p/.sandbox.yml:2: `isolation`") == 0);
  CHECK(complaint("setup: {a: b}\n").find("/p/.sandbox.yml:1: `setup` must be a list") == 0);
  CHECK(complaint("setup:\n  - [a]\n").find("/p/.sandbox.yml:2:") == 0);
  CHECK(complaint("- a\n- b\n").find("/p/.sandbox.yml:1:") == 0);
  CHECK(complaint("box: a\nbox: b\n").find("/p/.sandbox.yml:2: `box` is there twice") == 0);
  CHECK(complaint("box: [open\n").find("/p/.sandbox.yml:") == 0);
  CHECK(complaint("a: b: c\n").find("/p/.sandbox.yml:1:") == 0);
  CHECK(complaint("box: \xff\xfe\n").find("/p/.sandbox.yml:1:") == 0);
  CHECK(complaint("env:\n  A=B: 1\n").find("/p/.sandbox.yml:2:") == 0);
}

TEST_CASE("what reaches beyond the sandbox needs the command line, too") {
  CHECK(refusal("env: {}\nbox: rig1\n", {}).find("/p/.sandbox.yml:2: `box`") == 0);
  CHECK(refusal("box: rig1\n", {}).find("--box rig1") != std::string::npos);
  CHECK(refusal("isolation: none\n", {}).find("--isolation none") != std::string::npos);
  CHECK(refusal("isolation: auto\n", {}) == "");
  CHECK(refusal("network: host\n", {}) == "");
  CHECK(refusal("sync:\n  include: [.env]\n", {}).find("--include .env") != std::string::npos);
  CHECK(refusal("sync:\n  include: [.env]\n", {"", "", {"other"}}).find("--include .env") !=
        std::string::npos);
  CHECK(refusal("sync:\n  include: [.env]\n", {"", "", {"other", ".env"}}) == "");
  CHECK(refusal("box: rig1\n", {"rig2", "", {}}) == "");
  CHECK(refusal("box: rig1\n", {}).find("sandbox trust /p/.sandbox.yml") != std::string::npos);
}

TEST_CASE("a trusted file may say alone what reaches beyond the sandbox") {
  cli::Config config =
      cli::parse_config("sync: {include: [a]}\nbox: rig1\nisolation: none\n", "/p/x");
  auto reaches = cli::reaching(config, {});
  REQUIRE(reaches.size() == 3);
  CHECK(reaches[0].what == "`sync.include` (a)");
  CHECK(reaches[0].line == 1);
  CHECK(reaches[1].option == "--box rig1");
  CHECK(reaches[2].line == 3);
  cli::apply_consent(config, {}, true);
  CHECK(config.box == "rig1");
  CHECK(config.isolation == "none");
  CHECK(config.includes == std::vector<std::string>{"a"});
}

TEST_CASE("the command line lies over the file") {
  cli::Config config =
      cli::parse_config("box: rig1\nisolation: none\nsync: {include: [a]}\n", "/p/x");
  cli::apply_consent(config, {"rig2", "auto", {"a", "b"}});
  CHECK(config.box == "rig2");
  CHECK(config.isolation == "auto");
  CHECK(config.includes == std::vector<std::string>{"a", "b"});
}

TEST_CASE("the file is looked for up to the project's root and no further") {
  test::TemporaryDirectory temporary;
  auto top = std::filesystem::canonical(temporary.path());
  write(top / ".sandbox.yml", "shell: /outside\n");
  std::filesystem::create_directories(top / "project/a/b");
  CHECK(cli::load_config("", top / "project/a/b", top / "project").file.empty());
  write(top / "project/.sandbox.yml", "shell: /root\n");
  CHECK(cli::load_config("", top / "project/a/b", top / "project").shell == "/root");
  write(top / "project/a/.sandbox.yml", "shell: /nearer\n");
  CHECK(cli::load_config("", top / "project/a/b", top / "project").shell == "/nearer");
  CHECK(cli::load_config("../../.sandbox.yml", top / "project/a/b", top / "project").shell ==
        "/root");
  CHECK_THROWS_AS(cli::load_config("nowhere.yml", top / "project", top / "project"),
                  cli::UserError);
  CHECK_THROWS_AS(cli::load_config("a", top / "project", top / "project"), cli::UserError);
}

TEST_CASE("a second document is refused, since half of the file would count for nothing") {
  CHECK(
      complaint("env: {A: b}\n---\nsetup: [make]\n").find("/p/.sandbox.yml:3: a second document") ==
      0);
  CHECK(complaint("env: {A: b}\n---\n").find("a second document") != std::string::npos);
  CHECK(cli::parse_config("---\nsetup: make\n...\n", "/p/x").setup.size() == 1);
}

TEST_CASE("a file that cannot be read is told by what stands in its way") {
  test::TemporaryDirectory temporary;
  auto top = std::filesystem::canonical(temporary.path());
  std::filesystem::create_directories(top / "directory/.sandbox.yml");
  CHECK(next_step(top / "directory").find("Move it away") == 0);
  write(top / "large/.sandbox.yml", std::string(1024 * 1024 + 1, '#'));
  CHECK(next_step(top / "large").find("1 MiB at most") != std::string::npos);
}
