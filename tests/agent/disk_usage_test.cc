#include "agent/disk_usage.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

using agent::disk_usage;
namespace fs = std::filesystem;

namespace {

void write(const fs::path& file, std::size_t bytes) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << std::string(bytes, 'x') << std::flush;
  int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  ::fsync(fd);  // what is not yet written has no blocks on some file systems
  ::close(fd);
}

}  // namespace

TEST_CASE("a tree takes what its files take, wherever they are in it") {
  test::TemporaryDirectory directory;
  auto tree = directory / "tree";
  fs::create_directory(tree);
  auto empty = disk_usage(tree);
  write(tree / "a", 100'000);
  write(tree / "b/c/d/e", 200'000);
  auto full = disk_usage(tree);
  CHECK(full >= empty + 300'000);
  CHECK(full < empty + 400'000);
  CHECK(disk_usage(directory / "nothing") == 0);
}

TEST_CASE("a file with two names counts once, a link not for what it points to") {
  test::TemporaryDirectory directory;
  auto tree = directory / "tree";
  write(tree / "a", 100'000);
  write(directory / "outside", 500'000);
  auto before = disk_usage(tree);
  fs::create_hard_link(tree / "a", tree / "b");
  fs::create_symlink(directory / "outside", tree / "c");
  fs::create_directory_symlink(directory.path(), tree / "d");
  auto after = disk_usage(tree);
  CHECK(after >= before);
  CHECK(after < before + 50'000);
}

TEST_CASE("what a sandbox made too deep, or unreadable, keeps nobody from measuring the rest") {
  test::TemporaryDirectory directory;
  auto tree = directory / "tree";
  write(tree / "a", 100'000);
  fs::path deep = tree / "deep";
  fs::create_directory(deep);
  for (int level = 0; level < 400; ++level) {
    deep /= "d";
    REQUIRE(::mkdir(deep.c_str(), 0700) == 0);
  }
  fs::create_directory(tree / "closed");
  ::chmod((tree / "closed").c_str(), 0);
  CHECK(disk_usage(tree) >= 100'000);
  ::chmod((tree / "closed").c_str(), 0700);
}
