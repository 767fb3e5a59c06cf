// What a snapshot holds, whatever files there are.

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "tests/integration/sync/laptop.h"
#include "tests/support/unprivileged.h"

using namespace sync_test;

namespace {

Tree without_ignored(Tree tree) {
  std::erase_if(tree, [](const auto& entry) {
    return entry.first.ends_with(".o") || entry.first.starts_with("build/");
  });
  return tree;
}

}  // namespace

TEST_CASE("every kind of file is carried byte by byte") {
  Scratch scratch;
  Laptop laptop(scratch);
  bool with_git = GENERATE(true, false);
  if (with_git) make_repository(laptop.root());
  std::string binary;
  for (int i = 0; i < 70'000; ++i) binary += static_cast<char>(i * 7 + i / 256);
  Tree tree{
      {"empty", {Node::Kind::file, ""}},
      {"empty-program", {Node::Kind::program, ""}},
      {"binary", {Node::Kind::file, binary}},
      {"crlf.txt", {Node::Kind::file, "a\r\nb\r\n"}},
      {"no newline", {Node::Kind::file, "x"}},
      {"with space/and \"quotes\"", {Node::Kind::file, "q"}},
      {"new\nline", {Node::Kind::file, "n"}},
      {"back\\slash\ttab", {Node::Kind::file, "b"}},
      {"-dash", {Node::Kind::file, "d"}},
      {"#hash", {Node::Kind::file, "h"}},
      {"!bang", {Node::Kind::file, "!"}},
      {"not-utf8-\xff\xfe", {Node::Kind::file, "8"}},
      {"\xc3\xa9t\xc3\xa9", {Node::Kind::file, "e"}},
      {"*?[glob]", {Node::Kind::file, "g"}},
      {":(top)x", {Node::Kind::file, "m"}},
      {"link", {Node::Kind::link, "empty"}},
      {"dangling", {Node::Kind::link, "no/such\nthing"}},
      {"outside", {Node::Kind::link, "/etc/passwd"}},
      {"up", {Node::Kind::link, "../.."}},
      {"deep/a/b/c/d/e/f", {Node::Kind::file, "deep"}},
      {"a", {Node::Kind::file, "a"}},
      {"a.b", {Node::Kind::file, "a.b"}},
      {"a-/x", {Node::Kind::file, "a-"}},
  };
  for (const auto& [path, node] : tree) write_node(laptop.root(), path, node);
  auto snapshot = laptop.snapshot();
  CHECK(laptop.held(snapshot) == read_tree(laptop.root()));
  CHECK(snapshot.left_out.empty());
  CHECK(laptop.snapshot().sync.snapshot == snapshot.sync.snapshot);
  laptop.check_sendable(scratch, snapshot);
}

TEST_CASE("a large file is streamed") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  std::string bytes;
  bytes.reserve(20 << 20);
  for (unsigned state = 1; bytes.size() < (20u << 20);)
    bytes += static_cast<char>((state = state * 1103515245 + 12345) >> 16);
  write_file(laptop.root() / "large", bytes);
  CHECK(laptop.held(laptop.snapshot())["large"].bytes == bytes);
  bytes[bytes.size() / 2] ^= 1;
  write_file(laptop.root() / "large", bytes);
  auto snapshot = laptop.snapshot();
  CHECK(laptop.held(snapshot)["large"].bytes == bytes);
  laptop.check_sendable(scratch, snapshot);
}

TEST_CASE("somebody else's repository may be read") {
  if (::geteuid() != 0) {
    WARN("skipped: only root can give files to somebody else");
    return;
  }
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  auto before = laptop.snapshot();
  for (const auto& entry : fs::recursive_directory_iterator(laptop.root()))
    REQUIRE(::lchown(entry.path().c_str(), 12345, 12345) == 0);
  REQUIRE(::lchown(laptop.root().c_str(), 12345, 12345) == 0);
  CHECK_FALSE(git(laptop.root(), {"status"}).exit.ok());
  fs::remove_all(laptop.store());
  auto snapshot = laptop.snapshot();
  CHECK(snapshot.sync.snapshot == before.sync.snapshot);
  laptop.check_sendable(scratch, snapshot);
}

TEST_CASE("each change is in the next snapshot") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  const fs::path& root = laptop.root();
  auto check = [&](const char* what) {
    INFO(what);
    auto snapshot = laptop.snapshot();
    CHECK(laptop.held(snapshot) == without_ignored(read_tree(root)));
  };
  check("as it is");
  write_file(root / "file", "two\n");
  check("changed");
  write_file(root / "file", "TWO\n");
  check("changed to the same size");
  ::chmod((root / "file").c_str(), 0755);
  check("made executable");
  ::chmod((root / "program").c_str(), 0644);
  check("made not executable");
  write_file(root / "new/er", "n");
  check("a new directory");
  fs::rename(root / "new", root / "newer");
  check("a directory renamed");
  fs::remove(root / "file");
  check("deleted");
  write_file(root / "file/inside", "x");
  check("a file became a directory");
  fs::remove_all(root / "dir");
  write_file(root / "dir", "x");
  check("a directory became a file");
  fs::remove(root / "dir");
  fs::create_symlink("file", root / "dir");
  check("a file became a link to a directory");
  fs::remove_all(root / "newer");
  fs::create_symlink(".", root / "newer");
  check("a directory became a link");
  write_file(root / "x.o", "ignored");
  write_file(root / "build/out", "ignored");
  check("ignored files");
  write_file(root / ".gitignore", "/build/\n");
  {
    INFO("an ignore rule is gone");
    CHECK(laptop.held(laptop.snapshot()).contains("x.o"));
  }
  write_file(root / ".gitignore", "*.o\n/build/\n");
  check("and is back");
  fs::remove_all(root / "file");
  fs::rename(root / "program", root / "file");
  check("one file moved over another");
}

TEST_CASE("a change right after a snapshot is never missed") {
  // The clock of a file system is coarse: a file may be written twice at one time, and be as long.
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  for (int i = 0; i < 40; ++i) {
    std::string text = std::to_string(100 + i);
    {
      std::ofstream out(laptop.root() / "file", std::ios::in | std::ios::out);
      out << text;
    }
    auto snapshot = laptop.snapshot();
    REQUIRE(laptop.held(snapshot)["file"].bytes.starts_with(text));
    write_file(laptop.root() / ("n" + std::to_string(i)), "x");
    REQUIRE(laptop.held(laptop.snapshot()).contains("n" + std::to_string(i)));
  }
}

TEST_CASE("what cannot be carried is named") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  const fs::path& root = laptop.root();
  REQUIRE(::mkfifo((root / "pipe").c_str(), 0600) == 0);
  REQUIRE(::mkfifo((root / "pipe.o").c_str(), 0600) == 0);
  fs::create_directories(root / "only/special");
  REQUIRE(::mkfifo((root / "only/special/pipe").c_str(), 0600) == 0);
  os::Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::string path = (root / "sock").native();
  if (path.size() < sizeof address.sun_path) {
    std::copy(path.begin(), path.end(), address.sun_path);
    REQUIRE(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  }
  fs::remove(root / "file");
  REQUIRE(::mkfifo((root / "file").c_str(), 0600) == 0);
  write_file(root / ".GIT/config", "x");
  write_file(root / "sub/git~1/x", "x");
  write_file(root / "note.txt.sandbox-conflict", "theirs");
  write_file(root / "tracked.sandbox-conflict", "the user's");
  git_out(root, {"add", "tracked.sandbox-conflict"});
  fs::create_directories(root / "empty/directory");
  for (int i = 0; i < 2; ++i) {
    auto snapshot = laptop.snapshot();
    CHECK(names(snapshot, "pipe", "pipe"));
    CHECK(names(snapshot, "only/special/pipe", "pipe"));
    CHECK(names(snapshot, "file"));
    CHECK(names(snapshot, "tracked.sandbox-conflict"));
    CHECK(names(snapshot, "sock", "socket"));
    CHECK(names(snapshot, ".GIT/config", ".git"));
    CHECK(names(snapshot, "sub/git~1/x", ".git"));
    CHECK_FALSE(names(snapshot, "pipe.o"));
    Tree held = laptop.held(snapshot);
    CHECK_FALSE(held.contains("file"));
    CHECK_FALSE(held.contains(".GIT/config"));
    CHECK_FALSE(held.contains("note.txt.sandbox-conflict"));
    laptop.check_sendable(scratch, snapshot);
  }
}

TEST_CASE("what may not be read is named and left out") {
  Scratch scratch;
  test::Unprivileged unprivileged;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  write_file(laptop.root() / "secret", "s");
  write_file(laptop.root() / "closed/inside", "s");
  ::chmod((laptop.root() / "secret").c_str(), 0);
  ::chmod((laptop.root() / "closed").c_str(), 0);
  auto snapshot = laptop.snapshot();
  CHECK(names(snapshot, "secret", "unreadable"));
  CHECK(names(snapshot, "closed", "unreadable"));
  CHECK_FALSE(laptop.held(snapshot).contains("secret"));
  ::chmod((laptop.root() / "secret").c_str(), 0644);
  ::chmod((laptop.root() / "closed").c_str(), 0755);
  CHECK(laptop.held(laptop.snapshot()) == read_tree(laptop.root()));
}

TEST_CASE("what was sent and may not be read any more stays as it was sent, and is named") {
  Scratch scratch;
  test::Unprivileged unprivileged;
  Laptop laptop(scratch);
  bool repository = GENERATE(true, false);
  if (repository) make_repository(laptop.root());
  write_file(laptop.root() / "secret", "s");
  write_file(laptop.root() / "closed/inside", "s");
  write_file(laptop.root() / "closed/deep/inside", "s");
  if (repository) write_file(laptop.root() / "dir/inner", "edited");
  Tree whole = laptop.held(laptop.snapshot());
  ::chmod((laptop.root() / "secret").c_str(), 0);
  ::chmod((laptop.root() / "dir").c_str(), 0);
  for (int mode : {0, 0400, 0100}) {
    ::chmod((laptop.root() / "closed").c_str(), static_cast<mode_t>(mode));
    for (int i = 0; i < 2; ++i) {
      auto snapshot = laptop.snapshot();
      INFO(mode);
      CHECK(laptop.held(snapshot) == whole);
      CHECK(names(snapshot, "secret", "unreadable here"));
      CHECK(names(snapshot, "closed", "unreadable here"));
      CHECK_FALSE(names(snapshot, "closed/inside"));
      if (repository) CHECK(names(snapshot, "dir", "unreadable here"));
    }
  }
  for (const char* name : {"closed", "dir"}) ::chmod((laptop.root() / name).c_str(), 0755);
  fs::remove_all(laptop.root() / "closed");
  ::chmod((laptop.root() / "secret").c_str(), 0644);
  auto snapshot = laptop.snapshot();
  CHECK(laptop.held(snapshot) == read_tree(laptop.root()));
  CHECK(snapshot.left_out.empty());
}

TEST_CASE("ignored paths that sync.include names are carried") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  write_file(laptop.root() / "build/out/a", "a");
  write_file(laptop.root() / "build/other", "o");
  write_file(laptop.root() / "x.o", "x");
  write_file(laptop.root() / "dir/y.o", "y");
  write_file(laptop.root() / "z[1].o", "z");
  laptop.includes = {"build/out/", "x.o", "z[1].o", "../outside", "/etc/passwd", ".git/config"};
  auto snapshot = laptop.snapshot();
  Tree held = laptop.held(snapshot);
  CHECK(held.contains("build/out/a"));
  CHECK(held.contains("x.o"));
  CHECK(held.contains("z[1].o"));
  CHECK_FALSE(held.contains("dir/y.o"));
  CHECK_FALSE(held.contains("build/other"));
  CHECK(names(snapshot, "../outside", "sync.include"));
  CHECK(names(snapshot, "/etc/passwd", "sync.include"));
  CHECK(names(snapshot, ".git/config", "sync.include"));
  CHECK(snapshot.sync.includes == laptop.includes);
  write_file(laptop.root() / "build/out/sub/b", "b");
  write_file(laptop.root() / "x.o", "changed");
  held = laptop.held(laptop.snapshot());
  CHECK(held.contains("build/out/sub/b"));
  CHECK(held["x.o"].bytes == "changed");
  laptop.includes = {"*.o"};
  held = laptop.held(laptop.snapshot());
  CHECK(held.contains("dir/y.o"));
  CHECK_FALSE(held.contains("build/out/a"));
  write_file(laptop.root() / "w.o", "w");
  CHECK(laptop.held(laptop.snapshot()).contains("w.o"));
  laptop.includes = {};
  held = laptop.held(laptop.snapshot());
  CHECK_FALSE(held.contains("x.o"));
}
