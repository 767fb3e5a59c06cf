#include "protocol/os/beneath.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/catch.h"

using namespace protocol::os;
using protocol::wire::Errc;
namespace fs = std::filesystem;

namespace {

struct Directory {
  Directory() {
    std::string name = (fs::temp_directory_path() / "beneath-XXXXXX").native();
    REQUIRE(::mkdtemp(name.data()));
    path = name;
    fs::create_directory(path / "root");
    fs::create_directory(path / "outside");
    write(path / "outside/secret", "secret");
  }
  ~Directory() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  static void write(const fs::path& file, const std::string& bytes) {
    std::ofstream(file, std::ios::binary) << bytes;
  }
  static std::string read(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  fs::path root() const { return path / "root"; }
  fs::path path;
};

Beneath open(const fs::path& root, Beneath::Way way) {
  auto opened = Beneath::open(root, way);
  REQUIRE(opened);
  return std::move(*opened);
}

void put(const Beneath& root, const std::string& path, const std::string& bytes) {
  auto file = root.create(path, 0666);
  REQUIRE(file);
  REQUIRE(file->write(bytes));
  REQUIRE(root.place(std::move(*file), path));
}

std::size_t count(const fs::path& directory) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(directory), fs::directory_iterator{}));
}

}  // namespace

TEST_CASE("no call follows a link or leaves the root") {
  auto way = GENERATE(Beneath::Way::best, Beneath::Way::portable);
  Directory d;
  fs::create_directory_symlink(d.path / "outside", d.root() / "out");
  fs::create_directory_symlink("../outside", d.root() / "up");
  fs::create_symlink(d.path / "outside/secret", d.root() / "file");
  fs::create_directory(d.root() / "real");
  fs::create_directory_symlink("real", d.root() / "inner");
  Beneath root = open(d.root(), way);

  for (std::string through : {"out", "up", "inner"}) {
    CAPTURE(through);
    CHECK(root.open_file(through + "/secret").error().code == Errc::refused);
    CHECK(root.open_directory(through).error().code == Errc::refused);
    CHECK(root.list(through).error().code == Errc::refused);
    CHECK(root.create(through + "/new").error().code == Errc::refused);
    CHECK(root.create_link(through + "/new", "x").error().code == Errc::refused);
    CHECK(root.make_directories(through + "/new").error().code == Errc::refused);
    CHECK(root.make_directories(through).error().code == Errc::refused);
    CHECK(root.remove_file(through + "/secret").error().code == Errc::refused);
    CHECK(root.set_mode(through + "/secret", 0777).error().code == Errc::refused);
    CHECK_FALSE(*root.info(through + "/secret"));
    CHECK((*root.info(through))->kind == FileInfo::Kind::link);
  }
  CHECK(root.open_file("file").error().code == Errc::refused);
  CHECK_FALSE(root.set_mode("file", 0777));
  for (std::string path : {"../outside/secret", "/etc/passwd", "real/../../outside/secret",
                           "real//x", "./real", "real/.", "real/"}) {
    CAPTURE(path);
    CHECK(root.open_file(path).error().code == Errc::bad_input);
    CHECK(root.create(path).error().code == Errc::bad_input);
    CHECK(root.make_directories(path).error().code == Errc::bad_input);
    CHECK(root.remove_file(path).error().code == Errc::bad_input);
  }
  CHECK(root.open_file(std::string("a\0b", 3)).error().code == Errc::bad_input);
  REQUIRE(root.remove_all("out"));
  CHECK(count(d.path / "outside") == 1);
  CHECK(Directory::read(d.path / "outside/secret") == "secret");
}

TEST_CASE("a file is whole in its place or not there at all") {
  auto way = GENERATE(Beneath::Way::best, Beneath::Way::portable);
  Directory d;
  Beneath root = open(d.root(), way);
  REQUIRE(root.make_directories("a/b"));
  {
    auto file = root.create("a/b/c");
    REQUIRE(file);
    REQUIRE(file->write("half"));
    CHECK_FALSE(*root.info("a/b/c"));
  }
  CHECK(count(d.root() / "a/b") == 0);
  put(root, "a/b/c", "whole");
  CHECK(*root.read_file("a/b/c", 100) == "whole");
  CHECK(root.read_file("a/b/c", 4).error().code == Errc::too_large);
  CHECK(count(d.root() / "a/b") == 1);
}

TEST_CASE("what is not expected is neither replaced nor removed") {
  Directory d;
  Beneath root = open(d.root(), Beneath::Way::best);
  put(root, "f", "one");
  auto before = *root.info("f");
  REQUIRE(before);

  auto late = root.create("f");
  REQUIRE(late->write("ours"));
  CHECK_FALSE(*root.place(std::move(*late), "f", std::nullopt));
  CHECK(Directory::read(d.root() / "f") == "one");

  Directory::write(d.root() / "f", "another length");
  auto stale = root.create("f");
  CHECK_FALSE(*root.place(std::move(*stale), "f", before));
  CHECK_FALSE(*root.remove_file("f", *before));
  CHECK(Directory::read(d.root() / "f") == "another length");

  auto now = *root.info("f");
  auto right = root.create("f");
  REQUIRE(right->write("new"));
  CHECK(*root.place(std::move(*right), "f", now));
  CHECK(Directory::read(d.root() / "f") == "new");
  CHECK(count(d.root()) == 1);
  now = *root.info("f");
  CHECK(*root.remove_file("f", *now));
  CHECK(count(d.root()) == 0);

  auto fresh = root.create_link("l", "target");
  CHECK(*root.place(std::move(*fresh), "l", std::nullopt));
  CHECK(*root.read_link("l") == "target");
}

TEST_CASE("only regular files are opened") {
  Directory d;
  REQUIRE(::mkfifo((d.root() / "fifo").c_str(), 0600) == 0);
  fs::create_directory(d.root() / "dir");
  Beneath root = open(d.root(), Beneath::Way::best);
  CHECK(root.open_file("fifo").error().code == Errc::refused);
  CHECK(root.open_file("dir").error().code == Errc::refused);
  CHECK(root.open_file("none").error().code == Errc::not_found);
}

TEST_CASE("directories go only when they are empty") {
  Directory d;
  Beneath root = open(d.root(), Beneath::Way::best);
  REQUIRE(root.make_directories("a/b"));
  put(root, "a/f", "x");
  CHECK_FALSE(*root.remove_directory("a"));
  CHECK(*root.remove_directory("a/b"));
  CHECK(*root.remove_directory("a/b"));
  REQUIRE(root.remove_all("a"));
  CHECK(count(d.root()) == 0);
}
