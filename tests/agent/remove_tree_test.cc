#include "agent/remove_tree.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/unprivileged.h"

using agent::remove_tree;

namespace {

void write(const std::filesystem::path& file) { std::ofstream(file) << "x"; }

}  // namespace

TEST_CASE("a tree is removed with its unwritable directories, links and sockets") {
  test::TemporaryDirectory directory;
  test::Unprivileged unprivileged;
  auto tree = directory / "tree";
  std::filesystem::create_directories(tree / "a" / "b");
  write(tree / "a" / "b" / "file");
  ::chmod((tree / "a" / "b").c_str(), 0);
  ::chmod((tree / "a").c_str(), 0500);
  ::mkfifo((tree / "fifo").c_str(), 0600);
  CHECK(remove_tree(tree));
  CHECK(!std::filesystem::exists(tree));
  CHECK(remove_tree(tree));
}

TEST_CASE("no link is followed, neither inside the tree nor in its place") {
  test::TemporaryDirectory directory;
  auto outside = directory / "outside";
  std::filesystem::create_directories(outside);
  write(outside / "file");
  ::chmod((outside / "file").c_str(), 0640);
  auto tree = directory / "tree";
  std::filesystem::create_directories(tree);
  std::filesystem::create_directory_symlink(outside, tree / "link");
  CHECK(remove_tree(tree));
  std::filesystem::create_directory_symlink(outside, tree);
  CHECK(remove_tree(tree));
  CHECK(std::filesystem::exists(outside / "file"));
  struct stat status {};
  REQUIRE(::stat((outside / "file").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0640);
}

TEST_CASE("a tree deeper than there are descriptors, and than a path may be long, is removed") {
  test::TemporaryDirectory directory;
  auto tree = directory / "tree";
  std::filesystem::create_directories(tree);
  int at = ::open(tree.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(at >= 0);
  for (int depth = 0; depth < 3000; ++depth) {
    REQUIRE(::mkdirat(at, "deeper", 0700) == 0);
    int next = ::openat(at, "deeper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(next >= 0);
    ::close(at);
    at = next;
  }
  ::close(at);
  struct rlimit old {};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &old) == 0);
  struct rlimit few = old;
  few.rlim_cur = 256;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
  auto removed = remove_tree(tree);
  ::setrlimit(RLIMIT_NOFILE, &old);
  CHECK(removed);
  CHECK(!std::filesystem::exists(tree));
}
