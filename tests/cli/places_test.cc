// Where things are: directories of the user, projects, boxes, the local agent.
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "cli/boxes.h"
#include "cli/error.h"
#include "cli/local_agent.h"
#include "cli/project.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

namespace {

namespace fs = std::filesystem;

void write(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

cli::Environment here(const fs::path& directory) {
  cli::Environment environment;
  environment.directory = directory;
  environment.variables["PATH"] = "/usr/bin:/bin";
  return environment;
}

}  // namespace

TEST_CASE("state and configuration are where the variables say") {
  cli::Environment environment;
  environment.variables = {{"HOME", "/h"}};
  CHECK(cli::find_paths(environment).state == "/h/.local/state/sandbox");
  CHECK(cli::find_paths(environment).config == "/h/.config/sandbox");
  environment.variables = {
      {"HOME", "/h"}, {"XDG_STATE_HOME", "/s"}, {"XDG_CONFIG_HOME", "relative"}};
  CHECK(cli::find_paths(environment).state == "/s/sandbox");
  CHECK(cli::find_paths(environment).config == "/h/.config/sandbox");
  environment.variables["SANDBOX_STATE_DIR"] = "/elsewhere";
  CHECK(cli::find_paths(environment).state == "/elsewhere");
  environment.variables["SANDBOX_STATE_DIR"] = "relative";
  CHECK_THROWS_AS(cli::find_paths(environment), cli::UserError);
}

TEST_CASE("a project is the nearest work tree above, else the directory itself") {
  test::TemporaryDirectory temporary;
  fs::path top = fs::canonical(temporary.path());
  fs::create_directories(top / "plain/sub");
  auto plain = cli::find_project(here(top / "plain/sub"), "");
  CHECK(plain.root == top / "plain/sub");
  CHECK_FALSE(plain.git);
  CHECK(plain.branch.empty());
  CHECK(plain.subdirectory().empty());

  write(top / "repo/.git/HEAD", "ref: refs/heads/feature/x\n");
  fs::create_directories(top / "repo/a/b");
  auto repo = cli::find_project(here(top / "repo/a/b"), "");
  CHECK(repo.root == top / "repo");
  CHECK(repo.git);
  CHECK(repo.branch == "feature/x");
  CHECK(repo.subdirectory() == "a/b");
  struct stat status {};
  REQUIRE(::stat((top / "repo").c_str(), &status) == 0);
  CHECK(repo.inode == status.st_ino);

  write(top / "repo/.git/HEAD", "0123456789abcdef0123456789abcdef01234567\n");
  CHECK(cli::find_project(here(top), "repo").branch == "detached@0123456789ab");
  CHECK(cli::detached_commit("detached@0123456789ab") == "0123456789ab");
  CHECK_FALSE(cli::detached_commit("main"));

  write(top / "trees/HEAD", "ref: refs/heads/tree\n");
  write(top / "worktree/.git", "gitdir: ../trees\n");
  CHECK(cli::find_project(here(top / "worktree"), "").branch == "tree");

  fs::create_directories(top / "repo/a/.git");  // no repository: it has no HEAD
  CHECK(cli::find_project(here(top / "repo/a/b"), "").root == top / "repo");
  write(top / "repo/a/b/.git", "nonsense");
  CHECK(cli::find_project(here(top / "repo/a/b"), "").root == top / "repo");
}

TEST_CASE("links are followed, so that one tree is one project") {
  test::TemporaryDirectory temporary;
  fs::path top = fs::canonical(temporary.path());
  write(top / "repo/.git/HEAD", "ref: refs/heads/main\n");
  fs::create_directory_symlink(top / "repo", top / "link");
  CHECK(cli::find_project(here(top / "link"), "").root == top / "repo");
}

TEST_CASE("a directory that is not there is named") {
  test::TemporaryDirectory temporary;
  CHECK_THROWS_WITH(cli::find_project(here(temporary.path()), "nowhere"),
                    Catch::Contains("nowhere"));
  cli::Environment deleted;
  CHECK_THROWS_WITH(cli::find_project(deleted, ""), Catch::Contains("no longer exists"));
  CHECK_NOTHROW(cli::find_project(deleted, temporary.path().string()));
}

TEST_CASE("addresses are HOST:PORT and nothing else") {
  CHECK(cli::parse_address("rig:22")->host == "rig");
  CHECK(cli::parse_address("rig:22")->port == 22);
  CHECK(cli::parse_address("[::1]:4711")->host == "::1");
  CHECK(cli::parse_address("[::1]:4711")->text() == "[::1]:4711");
  CHECK(cli::parse_address("10.0.0.1:65535")->text() == "10.0.0.1:65535");
  for (const char* text : {"", "rig", "rig:", ":22", "rig:0", "rig:65536", "rig:22x", "::1:22",
                           "-oProxy:22", "a b:22", "u@h:22", "h/x:1"}) {
    INFO(text);
    CHECK_FALSE(cli::parse_address(text));
  }
}

TEST_CASE("boxes are looked up by name, and pinned once") {
  test::TemporaryDirectory temporary;
  cli::Paths paths;
  paths.config = temporary / "config";
  CHECK_THROWS_AS(cli::find_box(paths, "rig"), cli::UserError);
  auto direct = cli::find_box(paths, "10.0.0.1:22");
  CHECK(direct.address.host == "10.0.0.1");
  CHECK(direct.host_key.empty());
  CHECK(cli::pin_host_key(paths, direct, "ssh-ed25519 AAAA") == "ssh-ed25519 AAAA");
  CHECK(cli::find_box(paths, "10.0.0.1:22").host_key == "ssh-ed25519 AAAA");
  CHECK(cli::pin_host_key(paths, direct, "ssh-ed25519 BBBB") == "ssh-ed25519 AAAA");
}

TEST_CASE("a boxes file that is damaged is named and left alone") {
  for (const char* text : {"", "[]", "{\"version\":2,\"boxes\":{}}", "{\"version\":1,\"boxes\":[]}",
                           "{\"version\":1,\"boxes\":{\"rig\":7}}",
                           "{\"version\":1,\"boxes\":{\"rig\":{\"address\":\"nowhere\"}}}"}) {
    INFO(text);
    test::TemporaryDirectory temporary;
    cli::Paths paths;
    paths.config = temporary / "config";
    write(paths.boxes(), text);
    CHECK_THROWS_WITH(cli::find_box(paths, "rig"), Catch::Contains("boxes.json"));
  }
}

TEST_CASE("agent.json counts while its process lives") {
  test::TemporaryDirectory temporary;
  auto say = [&](const std::string& pid, const std::string& address = "127.0.0.1:4711") {
    write(temporary / "agent.json", "{\"Address\":\"" + address +
                                        "\",\"HostKey\":\"ssh-ed25519 A\",\"PID\":" + pid +
                                        ",\"Agent\":\"id\"}");
    return cli::read_agent_address(temporary.path());
  };
  CHECK_FALSE(cli::read_agent_address(temporary.path()));
  auto alive = say(std::to_string(::getpid()));
  REQUIRE(alive);
  CHECK(alive->address.port == 4711);
  CHECK(alive->agent == "id");
  CHECK_FALSE(say("2000000000"));
  CHECK_FALSE(say("\"1\""));
  CHECK_FALSE(say("-1"));
  CHECK_FALSE(say(std::to_string(::getpid()), "nowhere"));
  write(temporary / "agent.json", "{");
  CHECK_FALSE(cli::read_agent_address(temporary.path()));
}

TEST_CASE("an agent that outlives us learns nothing secret") {
  cli::Environment environment;
  environment.variables = {{"PATH", "/bin"},
                           {"LC_ALL", "C"},
                           {"AWS_SECRET", "x"},
                           {"GIT_DIR", "/x"},
                           {"SANDBOX_LOCK_TTL", "5"}};
  auto kept = cli::agent_environment(environment);
  CHECK(kept.count("PATH") == 1);
  CHECK(kept.count("LC_ALL") == 1);
  CHECK(kept.count("SANDBOX_LOCK_TTL") == 1);
  CHECK(kept.count("AWS_SECRET") == 0);
  CHECK(kept.count("GIT_DIR") == 0);
}

TEST_CASE("the agent's program is looked for beside ours, in libexec and on PATH") {
  test::TemporaryDirectory temporary;
  cli::Environment environment;
  environment.program = temporary / "bin/sandbox";
  environment.variables["PATH"] = "relative:" + (temporary / "path").string();
  CHECK_THROWS_WITH(cli::find_agent_program(environment), Catch::Contains("libexec"));
  auto put = [&](const char* place) {
    write(temporary / place, "");
    fs::permissions(temporary / place, fs::perms::owner_all);
  };
  put("path/sandbox-agent");
  CHECK(cli::find_agent_program(environment) == temporary / "path/sandbox-agent");
  put("libexec/sandbox-agent");
  CHECK(cli::find_agent_program(environment) == temporary / "libexec/sandbox-agent");
  put("bin/sandbox-agent");
  CHECK(cli::find_agent_program(environment) == temporary / "bin/sandbox-agent");
}
