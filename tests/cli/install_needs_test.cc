// What another machine lacks to run the agent.
#include "cli/install_needs.h"

#include "tests/support/catch.h"

using Texts = std::vector<std::string>;

TEST_CASE("missing libraries are read from what the dynamic linker says, each once") {
  auto needs = cli::parse_needs({"\tlibssh.so.4 => not found", "\tlibfmt.so.9 => not found",
                                 "\tlibssh.so.4 => not found", "something else not found"});
  CHECK(needs.libraries == Texts{"libssh.so.4", "libfmt.so.9"});
  CHECK(needs.versions.empty());
}

TEST_CASE("a library that is too old is told from one that is missing") {
  auto needs = cli::parse_needs(
      {"/home/a/sandbox-agent: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found "
       "(required by /home/a/sandbox-agent)"});
  CHECK(needs.versions == Texts{"GLIBC_2.38"});
  CHECK(needs.libraries.empty());
}

TEST_CASE("a library's package is named as Debian names it") {
  CHECK(cli::package_of("libssh.so.4") == "libssh-4");
  CHECK(cli::package_of("libsqlite3.so.0") == "libsqlite3-0");
  CHECK(cli::package_of("libboost_json.so.1.81.0") == "libboost-json1.81.0");
  CHECK(cli::package_of("libspdlog.so.1.10") == "libspdlog1.10");
  CHECK(cli::package_of("libfmt.so.9") == "libfmt9");
  CHECK(cli::package_of("libstdc++.so.6") == "libstdc++6");
  CHECK(cli::package_of("libgcc_s.so.1") == "libgcc-s1");
  CHECK(cli::package_of("libodd.so") == "libodd");
}

TEST_CASE("git 2.39 and later will do") {
  CHECK(cli::git_will_do("git version 2.39.5"));
  CHECK(cli::git_will_do("git version 2.51.0.rc1"));
  CHECK(cli::git_will_do("git version 3.0"));
  CHECK_FALSE(cli::git_will_do("git version 2.38.1"));
  CHECK_FALSE(cli::git_will_do("git version 1.99"));
  CHECK_FALSE(cli::git_will_do("git version two"));
  CHECK_FALSE(cli::git_will_do(""));
}
