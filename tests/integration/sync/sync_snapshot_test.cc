// The work tree's end: what a snapshot holds, whatever the repository looks like and whatever the
// user has configured; and that it costs nothing when nothing has changed.

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "protocol/sync/object_store.h"
#include "tests/integration/sync/two_ends.h"

using namespace sync_test;

namespace {

void make_repository(const fs::path& root) {
  fs::create_directories(root);
  git_out(root, {"init", "-q", "-b", "main"});
  write_file(root / "file", "one\n");
  write_file(root / "dir/inner", "inner\n");
  write_file(root / "program", "#!/bin/sh\n", true);
  write_file(root / ".gitignore", "*.o\n/build/\n");
  git_out(root, {"add", "-A"});
  git_out(root, {"commit", "-q", "-m", "one"});
}

void commit_all(const fs::path& root, const std::string& message) {
  git_out(root, {"add", "-A"});
  git_out(root, {"commit", "-q", "--allow-empty", "-m", message});
}

// A laptop alone: a work tree and the store beside it.
class Laptop {
 public:
  explicit Laptop(const Scratch& scratch, const std::string& name = "laptop")
      : root_(scratch / name), store_(scratch / (name + "-store")) {
    fs::create_directories(root_);
  }
  const fs::path& root() const { return root_; }
  const fs::path& store() const { return store_; }
  sync::OriginOptions options() const {
    sync::OriginOptions options;
    options.work_tree = root_;
    options.store = store_;
    options.includes = includes;
    options.depth = depth;
    options.git = program;
    return options;
  }
  // As a new program each time.
  sync::Snapshot snapshot() { return must(must(sync::Origin::open(options()))->snapshot()); }

  sync::ObjectStore objects(const sync::Snapshot& snapshot) const {
    auto git = must(sync::Git::find("git"));
    sync::ObjectStore::Options options;
    options.directory = store_ / "store.git";
    options.object_format = snapshot.sync.object_format;
    options.cache = true;
    auto alternates = read_file(options.directory / "objects/info/alternates");
    if (alternates.size() > 3) options.alternates = {alternates.substr(1, alternates.size() - 3)};
    return must(sync::ObjectStore::open(git, options));
  }
  // What a tree of the store holds.
  Tree held(const sync::Snapshot& snapshot, const std::string& tree) const {
    auto store = objects(snapshot);
    auto reader = store.blob_reader();
    Tree out;
    for (const sync::TreeEntry& entry : must(store.list_tree(tree))) {
      if (entry.mode == 0160000) continue;
      Node node;
      node.kind = entry.mode == 0120000   ? Node::Kind::link
                  : entry.mode == 0100755 ? Node::Kind::program
                                          : Node::Kind::file;
      node.bytes = must(reader.read_all(entry.oid, 1 << 30));
      out.emplace(entry.path, std::move(node));
    }
    return out;
  }
  Tree held(const sync::Snapshot& snapshot) const { return held(snapshot, snapshot.tree); }
  // A pack of the whole snapshot goes into a store that has nothing.
  void check_sendable(const Scratch& scratch, const sync::Snapshot& snapshot) {
    auto git = must(sync::Git::find("git"));
    sync::ObjectStore::Options options;
    static int count = 0;
    options.directory = scratch / ("receiver" + std::to_string(count++));
    options.object_format = snapshot.sync.object_format;
    auto receiver = must(sync::ObjectStore::open(git, options));
    auto pipe = must(os::make_pipe());
    auto origin = must(sync::Origin::open(this->options()));
    result<void> written;
    std::thread writer([&, out = std::move(pipe.write)]() mutable {
      written = origin->write_pack(snapshot, {}, std::move(out));
    });
    auto read = receiver.read_pack(std::move(pipe.read), snapshot.sync.shallow);
    writer.join();
    must(std::move(written));
    must(std::move(read));
    CHECK(receiver.is_complete(snapshot.sync.snapshot));
    for (const wire::Ref& ref : snapshot.sync.refs) CHECK(receiver.is_complete(ref.oid));
  }

  std::vector<std::string> includes;
  std::uint32_t depth = 50;
  std::string program = "git";

 private:
  fs::path root_, store_;
};

bool names(const sync::Snapshot& snapshot, const std::string& path, const std::string& why = {}) {
  return std::any_of(snapshot.left_out.begin(), snapshot.left_out.end(),
                     [&](const wire::LeftOut& left) {
                       return left.path == path && left.why.find(why) != std::string::npos;
                     });
}

// A git that writes down how it was called, and then does it.
class CountingGit {
 public:
  explicit CountingGit(const Scratch& scratch) : log_(scratch / "calls") {
    program_ = scratch / "counting-git";
    write_file(program_, "#!/bin/sh\necho \"$@\" >>'" + log_.native() + "'\nexec git \"$@\"\n",
               true);
  }
  std::string program() const { return program_.native(); }
  std::size_t take() {
    std::string text = read_file(log_);
    fs::remove(log_);
    return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  }

 private:
  fs::path log_, program_;
};

// Files that were just written may still change without looking different; after some snapshots
// they are older than that.
std::size_t calls_when_settled(Laptop& laptop, CountingGit& counting) {
  std::size_t calls = 1;
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (calls > 0 && std::chrono::steady_clock::now() < deadline) {
    counting.take();
    laptop.snapshot();
    calls = counting.take();
  }
  return calls;
}

class Environment {
 public:
  void set(const std::string& name, const std::string& value) {
    const char* before = std::getenv(name.c_str());
    before_.emplace_back(name, before ? std::optional<std::string>(before) : std::nullopt);
    ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (auto at = before_.rbegin(); at != before_.rend(); ++at) {
      if (at->second)
        ::setenv(at->first.c_str(), at->second->c_str(), 1);
      else
        ::unsetenv(at->first.c_str());
    }
  }

 private:
  std::vector<std::pair<std::string, std::optional<std::string>>> before_;
};

Tree without_ignored(Tree tree) {
  std::erase_if(tree, [](const auto& entry) {
    return entry.first.ends_with(".o") || entry.first.starts_with("build/");
  });
  return tree;
}

}  // namespace

// ---- states of a repository ------------------------------------------------------------------

TEST_CASE("a snapshot of a repository without a commit has no HEAD") {
  Scratch scratch;
  Laptop laptop(scratch);
  git_out(laptop.root(), {"init", "-q", "-b", "trunk"});
  SECTION("nothing at all") {
    auto snapshot = laptop.snapshot();
    CHECK(snapshot.sync.head.empty());
    CHECK(snapshot.sync.branch == "refs/heads/trunk");
    CHECK(snapshot.sync.staged.empty());
    CHECK(laptop.held(snapshot).empty());
    laptop.check_sendable(scratch, snapshot);
  }
  SECTION("something staged, something not") {
    write_file(laptop.root() / "a", "a\n");
    git_out(laptop.root(), {"add", "a"});
    write_file(laptop.root() / "b", "b\n");
    auto snapshot = laptop.snapshot();
    CHECK(snapshot.sync.head.empty());
    REQUIRE(!snapshot.sync.staged.empty());
    auto store = laptop.objects(snapshot);
    auto staged = must(store.read_commit(snapshot.sync.staged));
    CHECK(staged.parents.empty());
    CHECK(staged.tree == git_out(laptop.root(), {"write-tree"}));
    CHECK(laptop.held(snapshot) == read_tree(laptop.root()));
    laptop.check_sendable(scratch, snapshot);
  }
}

TEST_CASE("a directory without git is carried, but for what its .gitignore files name") {
  Scratch scratch;
  Laptop laptop(scratch);
  write_file(laptop.root() / ".gitignore", "*.o\n");
  write_file(laptop.root() / "sub/.gitignore", "!keep.o\n");
  write_file(laptop.root() / "a.o", "x");
  write_file(laptop.root() / "sub/keep.o", "x");
  write_file(laptop.root() / "sub/b", "b");
  auto snapshot = laptop.snapshot();
  CHECK_FALSE(snapshot.sync.git);
  CHECK(snapshot.sync.head.empty());
  CHECK(snapshot.sync.branch.empty());
  Tree tree = read_tree(laptop.root());
  tree.erase("a.o");
  CHECK(laptop.held(snapshot) == tree);
  SECTION("and a .git that is no repository is named") {
    fs::create_directories(laptop.root() / ".git");
    auto again = laptop.snapshot();
    CHECK_FALSE(again.sync.git);
    CHECK(names(again, ".git"));
    CHECK(again.tree == snapshot.tree);
  }
}

TEST_CASE("git begins and ends in a directory that is synced already") {
  Scratch scratch;
  Laptop laptop(scratch);
  write_file(laptop.root() / "a", "a\n");
  auto before = laptop.snapshot();
  git_out(laptop.root(), {"init", "-q", "-b", "main"});
  commit_all(laptop.root(), "one");
  auto with = laptop.snapshot();
  CHECK(with.sync.git);
  CHECK(with.sync.head == git_out(laptop.root(), {"rev-parse", "HEAD"}));
  CHECK(with.tree == before.tree);
  SECTION("another repository at the same place") {
    fs::remove_all(laptop.root() / ".git");
    git_out(laptop.root(), {"init", "-q", "-b", "other", "--object-format=sha256"});
    commit_all(laptop.root(), "else");
    auto other = laptop.snapshot();
    CHECK(other.sync.object_format == "sha256");
    CHECK(other.sync.branch == "refs/heads/other");
    CHECK(other.sync.head == git_out(laptop.root(), {"rev-parse", "HEAD"}));
    CHECK(laptop.held(other) == read_tree(laptop.root()));
    laptop.check_sendable(scratch, other);
  }
  SECTION("none any more") {
    fs::remove_all(laptop.root() / ".git");
    auto none = laptop.snapshot();
    CHECK_FALSE(none.sync.git);
    CHECK(none.tree == before.tree);
    CHECK(none.sync.snapshot == before.sync.snapshot);
    laptop.check_sendable(scratch, none);
  }
}

TEST_CASE("a detached HEAD has no branch") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  git_out(laptop.root(), {"checkout", "-q", "--detach"});
  auto snapshot = laptop.snapshot();
  CHECK(snapshot.sync.branch.empty());
  CHECK(snapshot.sync.head == git_out(laptop.root(), {"rev-parse", "HEAD"}));
  CHECK(snapshot.sync.refs.empty());
  laptop.check_sendable(scratch, snapshot);
}

TEST_CASE("commits, amends, rebases and branch switches are followed") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  auto check = [&] {
    auto snapshot = laptop.snapshot();
    auto store = laptop.objects(snapshot);
    auto commit = must(store.read_commit(snapshot.sync.snapshot));
    CHECK(commit.parents.front() == git_out(laptop.root(), {"rev-parse", "HEAD"}));
    CHECK(commit.message == snapshot.sync.branch);
    CHECK(laptop.held(snapshot) == read_tree(laptop.root()));
    laptop.check_sendable(scratch, snapshot);
    return snapshot;
  };
  check();
  write_file(laptop.root() / "file", "two\n");
  commit_all(laptop.root(), "two");
  check();
  git_out(laptop.root(), {"commit", "-q", "--amend", "-m", "deux"});
  check();
  git_out(laptop.root(), {"checkout", "-q", "-b", "side", "HEAD~1"});
  write_file(laptop.root() / "other", "side\n");
  commit_all(laptop.root(), "side");
  CHECK(check().sync.branch == "refs/heads/side");
  git_out(laptop.root(), {"rebase", "-q", "main"});
  check();
  git_out(laptop.root(), {"reset", "-q", "--hard", "HEAD~2"});
  check();
  git_out(laptop.root(), {"pack-refs", "--all"});
  check();
  git_out(laptop.root(), {"gc", "-q", "--prune=now"});
  check();
}

TEST_CASE("staged and unstaged changes are kept apart") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  auto clean = laptop.snapshot();
  CHECK(clean.sync.staged.empty());
  write_file(laptop.root() / "file", "staged\n");
  write_file(laptop.root() / "added", "staged\n");
  git_out(laptop.root(), {"add", "file", "added"});
  git_out(laptop.root(), {"rm", "-q", "--cached", "program"});
  git_out(laptop.root(), {"mv", "dir/inner", "dir/moved"});
  write_file(laptop.root() / "file", "unstaged\n");
  auto snapshot = laptop.snapshot();
  REQUIRE(!snapshot.sync.staged.empty());
  auto store = laptop.objects(snapshot);
  auto staged = must(store.read_commit(snapshot.sync.staged));
  CHECK(staged.tree == git_out(laptop.root(), {"write-tree"}));
  CHECK(staged.parents == std::vector<std::string>{snapshot.sync.head});
  auto commit = must(store.read_commit(snapshot.sync.snapshot));
  CHECK(commit.parents == std::vector<std::string>{snapshot.sync.head, snapshot.sync.staged});
  CHECK(laptop.held(snapshot) == read_tree(laptop.root()));
  laptop.check_sendable(scratch, snapshot);
  SECTION("staging alone makes another snapshot of the same tree") {
    git_out(laptop.root(), {"reset", "-q"});
    auto unstaged = laptop.snapshot();
    CHECK(unstaged.tree == snapshot.tree);
    CHECK(unstaged.sync.staged.empty());
    CHECK(unstaged.sync.snapshot != snapshot.sync.snapshot);
  }
}

TEST_CASE("an index with a conflict is carried by its files, and named") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  git_out(laptop.root(), {"checkout", "-q", "-b", "side"});
  write_file(laptop.root() / "file", "side\n");
  commit_all(laptop.root(), "side");
  git_out(laptop.root(), {"checkout", "-q", "main"});
  write_file(laptop.root() / "file", "main\n");
  write_file(laptop.root() / "file2", "main\n");
  commit_all(laptop.root(), "main");
  CHECK_FALSE(git(laptop.root(), {"merge", "-q", "side"}).exit.ok());
  auto snapshot = laptop.snapshot();
  CHECK(names(snapshot, "file", "unmerged"));
  CHECK(laptop.held(snapshot)["file"].bytes.find("<<<<<<<") != std::string::npos);
  CHECK(snapshot.sync.staged.empty());
}

TEST_CASE("a path that was only announced to the index is an untracked file") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  write_file(laptop.root() / "announced", "text\n");
  write_file(laptop.root() / "announced-empty", "");
  git_out(laptop.root(), {"add", "-N", "announced", "announced-empty"});
  auto snapshot = laptop.snapshot();
  CHECK(snapshot.sync.staged.empty());
  CHECK(laptop.held(snapshot) == read_tree(laptop.root()));
  laptop.check_sendable(scratch, snapshot);
}

TEST_CASE("a linked worktree is a work tree") {
  Scratch scratch;
  make_repository(scratch / "main");
  git_out(scratch / "main",
          {"worktree", "add", "-q", "-b", "linked", (scratch / "laptop").native()});
  Laptop laptop(scratch);
  write_file(laptop.root() / "file", "changed\n");
  git_out(laptop.root(), {"add", "file"});
  write_file(scratch / "main/.git/info/exclude", "excluded\n");
  write_file(laptop.root() / "excluded", "x");
  auto snapshot = laptop.snapshot();
  CHECK(snapshot.sync.git);
  CHECK(snapshot.sync.branch == "refs/heads/linked");
  CHECK(snapshot.sync.excludes.find("excluded") != std::string::npos);
  Tree tree = read_tree(laptop.root());
  tree.erase("excluded");
  CHECK(laptop.held(snapshot) == tree);
  CHECK(must(laptop.objects(snapshot).read_commit(snapshot.sync.staged)).tree ==
        git_out(laptop.root(), {"write-tree"}));
  laptop.check_sendable(scratch, snapshot);
}

TEST_CASE("sparse paths are carried as the index has them") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  Tree whole = read_tree(laptop.root());
  git_out(laptop.root(), {"sparse-checkout", "set", "--no-cone", "/file", "/.gitignore"});
  REQUIRE_FALSE(fs::exists(laptop.root() / "dir"));
  auto snapshot = laptop.snapshot();
  CHECK(laptop.held(snapshot) == whole);
  SECTION("and one that is there all the same as it is there") {
    write_file(laptop.root() / "program", "changed\n", true);
    auto changed = laptop.snapshot();
    CHECK(laptop.held(changed)["program"].bytes == "changed\n");
  }
  SECTION("a sparse index too") {
    git_out(laptop.root(), {"sparse-checkout", "set", "--cone", "--sparse-index"});
    CHECK(laptop.held(laptop.snapshot()) == whole);
  }
}

TEST_CASE("a shallow clone is sent as far as it goes") {
  Scratch scratch;
  make_repository(scratch / "remote");
  for (int i = 0; i < 5; ++i) {
    write_file(scratch / "remote/file", std::to_string(i));
    commit_all(scratch / "remote", std::to_string(i));
  }
  git_out(scratch.path(), {"clone", "-q", "--depth=2", "file://" + (scratch / "remote").native(),
                           (scratch / "laptop").native()});
  Laptop laptop(scratch);
  for (std::uint32_t depth : {50u, 1u, 0u}) {
    laptop.depth = depth;
    auto snapshot = laptop.snapshot();
    CHECK(snapshot.sync.shallow.size() == 1);
    laptop.check_sendable(scratch, snapshot);
  }
}

TEST_CASE("a partial clone sends what it has and names what it lacks") {
  Scratch scratch;
  make_repository(scratch / "remote");
  git_out(scratch / "remote", {"config", "uploadpack.allowFilter", "true"});
  for (int i = 0; i < 3; ++i) {
    write_file(scratch / "remote/file", std::to_string(i));
    commit_all(scratch / "remote", std::to_string(i));
  }
  std::string remote = "file://" + (scratch / "remote").native();
  SECTION("its past") {
    git_out(scratch.path(),
            {"clone", "-q", "--filter=blob:none", remote, (scratch / "laptop").native()});
    Laptop laptop(scratch);
    auto snapshot = laptop.snapshot();
    CHECK(snapshot.sync.head == git_out(laptop.root(), {"rev-parse", "HEAD"}));
    CHECK(names(snapshot, ".git", "history"));
    CHECK(laptop.held(snapshot) == read_tree(laptop.root()));
    laptop.check_sendable(scratch, snapshot);
  }
  SECTION("sparse paths") {
    git_out(scratch.path(), {"clone", "-q", "--filter=blob:none", "--sparse", remote,
                             (scratch / "laptop").native()});
    Laptop laptop(scratch);
    REQUIRE_FALSE(fs::exists(laptop.root() / "dir"));
    auto snapshot = laptop.snapshot();
    CHECK(names(snapshot, "dir", "sparse"));
    CHECK(laptop.held(snapshot) == read_tree(laptop.root()));
    laptop.check_sendable(scratch, snapshot);
  }
  // Nothing was fetched behind the user's back.
  CHECK(git(scratch / "laptop",
            {"-c", "protocol.allow=never", "rev-list", "--objects", "--missing=print", "HEAD"})
            .out.find("?") != std::string::npos);
}

TEST_CASE("submodules and nested repositories are named, not entered") {
  Scratch scratch;
  make_repository(scratch / "library");
  Laptop laptop(scratch);
  make_repository(laptop.root());
  git_out(laptop.root(), {"-c", "protocol.file.allow=always", "submodule", "--quiet", "add",
                          (scratch / "library").native(), "sub"});
  git_out(laptop.root(), {"commit", "-q", "-m", "sub"});
  make_repository(laptop.root() / "nested");
  make_repository(laptop.root() / "deep/er/nested");
  git_out(laptop.root(), {"init", "-q", "empty-nested"});
  make_repository(laptop.root() / "build/ignored");
  write_file(laptop.root() / "sub/file", "changed\n");
  auto snapshot = laptop.snapshot();
  CHECK(names(snapshot, "sub", "submodule"));
  CHECK(names(snapshot, "nested", "nested repository"));
  CHECK(names(snapshot, "deep/er/nested", "nested repository"));
  CHECK(names(snapshot, "empty-nested", "nested repository"));
  CHECK(snapshot.left_out.size() == 4);
  auto entries = must(laptop.objects(snapshot).list_tree(snapshot.tree));
  auto sub = std::find_if(entries.begin(), entries.end(),
                          [](const auto& entry) { return entry.path == "sub"; });
  REQUIRE(sub != entries.end());
  CHECK(sub->mode == 0160000);
  CHECK(sub->oid == git_out(scratch / "library", {"rev-parse", "HEAD"}));
  for (const auto& entry : entries) {
    CHECK_FALSE(entry.path.starts_with("sub/"));
    CHECK(entry.path.find("nested") == std::string::npos);
  }
  laptop.check_sendable(scratch, snapshot);
  SECTION("they are still named when nothing has changed") {
    CHECK(laptop.snapshot().left_out.size() == 4);
  }
  SECTION("one that is no repository any more is carried") {
    fs::remove_all(laptop.root() / "nested/.git");
    auto again = laptop.snapshot();
    CHECK_FALSE(names(again, "nested"));
    CHECK(laptop.held(again)["nested/file"].bytes == "one\n");
  }
}

// ---- kinds of files --------------------------------------------------------------------------

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
  if (::geteuid() != 0) return;  // only root can make one
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
  fs::create_directories(root / "empty/directory");
  for (int i = 0; i < 2; ++i) {
    auto snapshot = laptop.snapshot();
    CHECK(names(snapshot, "pipe", "pipe"));
    CHECK(names(snapshot, "only/special/pipe", "pipe"));
    CHECK(names(snapshot, "file"));
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
  if (::geteuid() == 0) return;  // root may read everything
  Scratch scratch;
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

// ---- what the user has configured ------------------------------------------------------------

TEST_CASE("line endings and filters of the user change nothing") {
  Scratch scratch;
  Laptop laptop(scratch);
  const fs::path& root = laptop.root();
  git_out(root, {"init", "-q", "-b", "main"});
  fs::path marker = scratch / "filter-ran";
  for (const char* end : {"clean", "smudge", "process"})
    git_out(root, {"config", std::string("filter.lfs.") + end, "touch " + marker.native()});
  git_out(root, {"config", "filter.lfs.required", "true"});
  git_out(root, {"config", "core.autocrlf", "true"});
  write_file(root / ".gitattributes",
             "*.bin filter=lfs diff=lfs merge=lfs -text\n*.txt text eol=lf\n*.id ident\n"
             "*.u16 working-tree-encoding=UTF-16\n");
  write_file(root / "crlf.txt", "a\r\nb\r\n");
  write_file(root / "lf.txt", "a\nb\n");
  write_file(root / "mixed", "a\r\nb\n");
  write_file(root / "x.id", "$Id: something $\n");
  write_file(root / "x.u16", std::string("\xff\xfe"
                                         "a\0\n\0",
                                         6));
  git_out(root, {"add", "-A"});
  git_out(root, {"-c", "core.safecrlf=false", "commit", "-q", "-m", "one"});
  write_file(root / "large.bin", "content that git-lfs would replace\r\n");
  fs::remove(marker);
  auto snapshot = laptop.snapshot();
  CHECK(laptop.held(snapshot) == read_tree(root));
  write_file(root / "large.bin", "changed\r\n");
  CHECK(laptop.held(laptop.snapshot()) == read_tree(root));
  CHECK_FALSE(fs::exists(marker));
}

TEST_CASE("nothing that the user has configured is run, and nothing changes by it") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  write_file(laptop.root() / "file", "staged\n");
  git_out(laptop.root(), {"add", "file"});
  write_file(laptop.root() / "untracked", "u\n");
  auto plain = laptop.snapshot();
  fs::path marker = scratch / "ran";
  fs::path home = scratch / "home";
  write_file(home / "run", "#!/bin/sh\ntouch '" + marker.native() + "'\n", true);
  for (const char* hook : {"pre-commit", "post-index-change", "reference-transaction",
                           "post-checkout", "fsmonitor-watchman"})
    write_file(home / "hooks" / hook, "#!/bin/sh\ntouch '" + marker.native() + "'\n", true);
  std::string run = (home / "run").native();
  std::string settings = "[color]\n\tui = always\n\tdiff = always\n[diff]\n\texternal = " + run +
                         "\n\tnoprefix = true\n\trenames = copies\n\torderFile = /nonexistent\n"
                         "[commit]\n\tgpgsign = true\n[gpg]\n\tprogram = " +
                         run + "\n[core]\n\tfsmonitor = " + run +
                         "\n\thooksPath = " + (home / "hooks").native() + "\n\tpager = " + run +
                         "\n\teditor = " + run +
                         "\n\tquotePath = true\n\tuntrackedCache = true\n\tsplitIndex = true\n"
                         "[status]\n\tshowUntrackedFiles = no\n[alias]\n\tls-files = !" +
                         run +
                         "\n[pack]\n\tpackSizeLimit = 1m\n[i18n]\n\tcommitEncoding = latin1\n"
                         "[log]\n\tshowSignature = true\n[user]\n\tuseConfigOnly = true\n"
                         "[index]\n\tversion = 4\n[transfer]\n\tfsckObjects = true\n"
                         "[apply]\n\twhitespace = fix\n[extensions]\n";
  Environment environment;
  environment.set("HOME", home.native());
  SECTION("for all repositories") { write_file(home / ".gitconfig", settings); }
  SECTION("for this one") {
    std::ofstream(laptop.root() / ".git/config", std::ios::app) << settings;
  }
  SECTION("by the environment") {
    write_file(home / "settings", settings);
    environment.set("GIT_CONFIG_GLOBAL", (home / "settings").native());
    environment.set("GIT_EXTERNAL_DIFF", run);
    environment.set("GIT_PAGER", run);
    environment.set("GIT_TRACE", (scratch / "trace").native());
    environment.set("GIT_CONFIG_COUNT", "1");
    environment.set("GIT_CONFIG_KEY_0", "core.fsmonitor");
    environment.set("GIT_CONFIG_VALUE_0", run);
    environment.set("LC_ALL", "de_DE.UTF-8");
    environment.set("LANGUAGE", "de");
  }
  Laptop fresh(scratch, "laptop");
  auto again = laptop.snapshot();
  CHECK(again.sync.snapshot == plain.sync.snapshot);
  fs::remove_all(laptop.store());
  again = laptop.snapshot();
  CHECK(again.sync.snapshot == plain.sync.snapshot);
  CHECK(again.sync.staged == plain.sync.staged);
  laptop.check_sendable(scratch, again);
  CHECK_FALSE(fs::exists(marker));
  CHECK_FALSE(fs::exists(scratch / "trace"));
}

TEST_CASE("a git hook's environment points at nothing of ours") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  write_file(laptop.root() / "untracked", "u\n");
  auto plain = laptop.snapshot();
  make_repository(scratch / "other");
  write_file(scratch / "other/file", "other\n");
  Environment environment;
  environment.set("GIT_DIR", (scratch / "other/.git").native());
  environment.set("GIT_WORK_TREE", (scratch / "other").native());
  environment.set("GIT_INDEX_FILE", (scratch / "other/.git/index.lock").native());
  environment.set("GIT_OBJECT_DIRECTORY", (scratch / "other/.git/objects").native());
  environment.set("GIT_PREFIX", "sub/");
  environment.set("GIT_CONFIG_PARAMETERS", "'core.bare=true'");
  environment.set("GIT_QUARANTINE_PATH", (scratch / "q").native());
  environment.set("GIT_SHALLOW_FILE", (scratch / "q").native());
  CHECK(laptop.snapshot().sync.snapshot == plain.sync.snapshot);
  fs::remove_all(laptop.store());
  auto again = laptop.snapshot();
  CHECK(again.sync.snapshot == plain.sync.snapshot);
  laptop.check_sendable(scratch, again);
}

TEST_CASE("the user's own ignore rules hold, and go along") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  fs::path home = scratch / "home";
  Environment environment;
  environment.set("HOME", home.native());
  ::unsetenv("XDG_CONFIG_HOME");
  write_file(laptop.root() / "mine", "m");
  write_file(laptop.root() / "private", "p");
  CHECK(laptop.held(laptop.snapshot()).contains("mine"));
  SECTION("where git looks by itself") {
    write_file(home / ".config/git/ignore", "mine\nprivate\n");
  }
  SECTION("where core.excludesFile says") {
    write_file(home / "rules", "mine\nprivate\n");
    write_file(home / ".gitconfig", "[core]\n\texcludesFile = ~/rules\n");
  }
  write_file(laptop.root() / ".git/info/exclude", "!private\n");
  auto snapshot = laptop.snapshot();
  Tree held = laptop.held(snapshot);
  CHECK_FALSE(held.contains("mine"));
  CHECK(held.contains("private"));  // info/exclude wins
  CHECK(snapshot.sync.excludes == "mine\nprivate\n!private\n");
}

TEST_CASE("the user's repository is only read") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  write_file(laptop.root() / "file", "staged\n");
  git_out(laptop.root(), {"add", "file"});
  write_file(laptop.root() / "dir/inner", "touched\n");
  write_file(laptop.root() / "untracked", "u\n");
  std::map<std::string, std::int64_t> times, after;
  Tree before = read_tree(laptop.root() / ".git", &times);
  auto snapshot = laptop.snapshot();
  laptop.snapshot();
  laptop.check_sendable(scratch, snapshot);
  CHECK(read_tree(laptop.root() / ".git", &after) == before);
  CHECK(after == times);
}

TEST_CASE("HEAD or the index moving during the scan makes it begin again") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  laptop.snapshot();
  // A git that commits while it lists the names for the first time.
  fs::path once = scratch / "once", program = scratch / "moving-git";
  write_file(program,
             "#!/bin/sh\ngit \"$@\"; status=$?\ncase \"$*\" in *ls-files*) if [ -e '" +
                 once.native() + "' ]; then rm '" + once.native() +
                 "'; unset GIT_DIR "
                 "GIT_INDEX_FILE; cd '" +
                 laptop.root().native() +
                 "' && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m moved; fi;; "
                 "esac\nexit $status\n",
             true);
  write_file(once, "");
  write_file(laptop.root() / "new", "n");
  laptop.program = program.native();
  auto snapshot = laptop.snapshot();
  CHECK_FALSE(fs::exists(once));
  CHECK(git_out(laptop.root(), {"log", "-1", "--format=%s"}) == "moved");
  CHECK(snapshot.sync.head == git_out(laptop.root(), {"rev-parse", "HEAD"}));
}

// ---- identity, cost and damage ---------------------------------------------------------------

TEST_CASE("equal content has an equal id") {
  Scratch scratch;
  Laptop one(scratch, "one");
  make_repository(one.root());
  write_file(one.root() / "file", "staged\n");
  git_out(one.root(), {"add", "file"});
  write_file(one.root() / "new", "n\n");
  git_out(scratch.path(), {"clone", "-q", one.root().native(), (scratch / "two").native()});
  Laptop two(scratch, "two");
  write_file(two.root() / "new", "n\n");
  write_file(two.root() / "file", "staged\n");
  git_out(two.root(), {"add", "file"});
  auto first = one.snapshot();
  CHECK(two.snapshot().sync.snapshot == first.sync.snapshot);
  write_file(one.root() / "new", "other\n");
  CHECK(one.snapshot().sync.snapshot != first.sync.snapshot);
  write_file(one.root() / "new", "n\n");
  CHECK(one.snapshot().sync.snapshot == first.sync.snapshot);
}

TEST_CASE("a snapshot of an unchanged tree starts no git") {
  Scratch scratch;
  CountingGit counting(scratch);
  Laptop laptop(scratch);
  laptop.program = counting.program();
  SECTION("in a repository") {
    make_repository(laptop.root());
    write_file(laptop.root() / "file", "staged\n");
    git_out(laptop.root(), {"add", "file"});
    write_file(laptop.root() / "untracked", "u\n");
    fs::create_directories(laptop.root() / "empty");
    make_repository(laptop.root() / "nested");
    write_file(laptop.root() / "build/x", "x");
  }
  SECTION("without git") { write_file(laptop.root() / "a", "a\n"); }
  CHECK(calls_when_settled(laptop, counting) == 0);
  SECTION("not for a touched file either, nor for ignored ones") {
    write_file(laptop.root() / "a", "a\n");
    laptop.snapshot();
    calls_when_settled(laptop, counting);
    fs::last_write_time(laptop.root() / "a", fs::file_time_type::clock::now());
    laptop.snapshot();
    CHECK(counting.take() == 0);
  }
}

TEST_CASE("a damaged or missing cache is made anew") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  write_file(laptop.root() / "file", "staged\n");
  git_out(laptop.root(), {"add", "file"});
  write_file(laptop.root() / "untracked", "u\n");
  auto before = laptop.snapshot();
  for (const char* name : {"scan", "repository", "snapshot", "history", "git-version"}) {
    for (const char* content : {"", "garbage\n", "sandbox scan 1\n", "sandbox repository 1\n"}) {
      INFO(name << ": " << content);
      REQUIRE(fs::exists(laptop.store() / name));
      write_file(laptop.store() / name, content);
      auto again = laptop.snapshot();
      CHECK(again.sync.snapshot == before.sync.snapshot);
      CHECK(again.sync.staged == before.sync.staged);
      CHECK(again.sync.shallow == before.sync.shallow);
    }
    fs::remove(laptop.store() / name);
    CHECK(laptop.snapshot().sync.snapshot == before.sync.snapshot);
  }
  laptop.check_sendable(scratch, laptop.snapshot());
}

TEST_CASE("a store that lost objects is filled again") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  write_file(laptop.root() / "file", "staged\n");
  git_out(laptop.root(), {"add", "file"});
  write_file(laptop.root() / "untracked", "u\n");
  auto before = laptop.snapshot();
  fs::path objects = laptop.store() / "store.git/objects";
  SECTION("all of them") {
    for (const auto& entry : fs::directory_iterator(objects))
      if (entry.path().filename() != "info") fs::remove_all(entry.path());
  }
  SECTION("empty files, as a crash leaves them") {
    for (const auto& entry : fs::recursive_directory_iterator(objects))
      if (entry.is_regular_file() && entry.path().filename() != "alternates") {
        fs::permissions(entry.path(), fs::perms::owner_all);
        fs::resize_file(entry.path(), 0);
      }
  }
  SECTION("everything") { fs::remove_all(laptop.store() / "store.git"); }
  SECTION("its mark") { fs::remove(laptop.store() / "store.git/sandbox-store"); }
  SECTION("with something changed meanwhile") {
    for (const auto& entry : fs::directory_iterator(objects))
      if (entry.path().filename() != "info") fs::remove_all(entry.path());
    write_file(laptop.root() / "another", "a\n");
    auto changed = laptop.snapshot();
    laptop.check_sendable(scratch, changed);
    fs::remove(laptop.root() / "another");
  }
  auto snapshot = laptop.snapshot();
  CHECK(snapshot.sync.snapshot == before.sync.snapshot);
  laptop.check_sendable(scratch, snapshot);
}

TEST_CASE("objects that the user's repository has pruned are stored again") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  write_file(laptop.root() / "file", "was staged\n");
  git_out(laptop.root(), {"add", "file"});
  auto first = laptop.snapshot();  // the blob is the repository's
  git_out(laptop.root(), {"reset", "-q"});
  git_out(laptop.root(), {"-c", "gc.pruneExpire=now", "prune", "--expire=now"});
  auto snapshot = laptop.snapshot();
  CHECK(snapshot.tree == first.tree);
  laptop.check_sendable(scratch, snapshot);
  write_file(laptop.root() / "other", "o\n");
  laptop.check_sendable(scratch, laptop.snapshot());
}

TEST_CASE("two programs may take a snapshot of one tree at the same time") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  for (int i = 0; i < 50; ++i) write_file(laptop.root() / ("n" + std::to_string(i)), "x");
  std::vector<std::thread> threads;
  std::vector<std::string> ids(6), origins(6);
  for (std::size_t i = 0; i < ids.size(); ++i)
    threads.emplace_back([&, i] {
      auto origin = sync::Origin::open(laptop.options());
      if (!origin) return;
      origins[i] = (*origin)->id();
      if (auto snapshot = (*origin)->snapshot()) ids[i] = snapshot->sync.snapshot;
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(!ids[0].empty());
  CHECK(std::set<std::string>(ids.begin(), ids.end()).size() == 1);
  CHECK(std::set<std::string>(origins.begin(), origins.end()).size() == 1);
  CHECK(origins[0].size() == 32);
}

TEST_CASE("a git that is missing or too old is refused by name") {
  Scratch scratch;
  Laptop laptop(scratch);
  laptop.program = "no-such-git";
  auto missing = sync::Origin::open(laptop.options());
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == wire::Errc::unsupported);
  CHECK(missing.error().what.find("no-such-git") != std::string::npos);
  write_file(scratch / "old", "#!/bin/sh\necho git version 2.38.9\n", true);
  laptop.program = (scratch / "old").native();
  auto old = sync::Origin::open(laptop.options());
  REQUIRE_FALSE(old);
  CHECK(old.error().code == wire::Errc::unsupported);
  CHECK(old.error().what.find("2.38.9") != std::string::npos);
}

TEST_CASE("20,000 files are scanned once and then looked at") {
  Scratch scratch;
  CountingGit counting(scratch);
  Laptop laptop(scratch);
  laptop.program = counting.program();
  git_out(laptop.root(), {"init", "-q", "-b", "main"});
  for (int i = 0; i < 20'000; ++i) {
    fs::path directory = laptop.root() / std::to_string(i / 100);
    if (i % 100 == 0) fs::create_directories(directory);
    std::ofstream(directory / ("f" + std::to_string(i))) << "file " << i << "\n";
  }
  auto first = laptop.snapshot();
  CHECK(must(laptop.objects(first).list_tree(first.tree)).size() == 20'000);
  CHECK(calls_when_settled(laptop, counting) == 0);
  write_file(laptop.root() / "7/f700", "changed\n");
  auto second = laptop.snapshot();
  auto store = laptop.objects(second);
  auto differences = must(store.diff_trees(first.tree, second.tree));
  REQUIRE(differences.size() == 1);
  CHECK(differences[0].path == "7/f700");
}

// ---- history ---------------------------------------------------------------------------------

TEST_CASE("history goes down to where HEAD and its upstream meet, and some beyond") {
  Scratch scratch;
  Laptop laptop(scratch);
  make_repository(laptop.root());
  const fs::path& root = laptop.root();
  for (int i = 0; i < 10; ++i) commit_all(root, "old" + std::to_string(i));
  git_out(root, {"update-ref", "refs/remotes/origin/main", "HEAD"});
  git_out(root, {"symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"});
  git_out(root, {"config", "remote.origin.url", "nowhere"});
  git_out(root, {"config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"});
  git_out(root, {"config", "branch.main.remote", "origin"});
  git_out(root, {"config", "branch.main.merge", "refs/heads/main"});
  for (int i = 0; i < 4; ++i) commit_all(root, "mine" + std::to_string(i));
  laptop.depth = 3;
  auto snapshot = laptop.snapshot();
  CHECK(snapshot.sync.upstream == "refs/remotes/origin/main");
  CHECK(snapshot.sync.remote_head == "refs/remotes/origin/main");
  CHECK(snapshot.sync.refs.size() == 2);
  // four of mine, then origin/main and two before it
  CHECK(snapshot.sync.shallow == std::vector<std::string>{git_out(root, {"rev-parse", "HEAD~6"})});
  laptop.check_sendable(scratch, snapshot);
  SECTION("an upstream that has gone on") {
    git_out(root, {"checkout", "-q", "-b", "theirs", "origin/main"});
    for (int i = 0; i < 5; ++i) commit_all(root, "theirs" + std::to_string(i));
    git_out(root, {"update-ref", "refs/remotes/origin/main", "HEAD"});
    git_out(root, {"checkout", "-q", "main"});
    auto ahead = laptop.snapshot();
    CHECK(ahead.sync.snapshot == snapshot.sync.snapshot);
    CHECK(ahead.sync.shallow == snapshot.sync.shallow);
    laptop.check_sendable(scratch, ahead);
  }
  SECTION("a merge of something older") {
    git_out(root, {"checkout", "-q", "-b", "old", "HEAD~12"});
    write_file(root / "from-old", "o");
    commit_all(root, "side");
    git_out(root, {"checkout", "-q", "main"});
    git_out(root, {"merge", "-q", "--no-edit", "old"});
    laptop.check_sendable(scratch, laptop.snapshot());
  }
  SECTION("everything, when the depth is 0") {
    laptop.depth = 0;
    auto all = laptop.snapshot();
    CHECK(all.sync.shallow.empty());
    laptop.check_sendable(scratch, all);
  }
  SECTION("nothing in common with the upstream") {
    git_out(root, {"checkout", "-q", "--orphan", "alone"});
    commit_all(root, "alone");
    laptop.check_sendable(scratch, laptop.snapshot());
  }
}

TEST_CASE("a ref that moved is sent although the snapshot is the same") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  git_out(ends.laptop(), {"update-ref", "refs/remotes/origin/main", "HEAD"});
  ends.push();
  auto before = ends.last_snapshot->sync.snapshot;
  git_out(ends.laptop(), {"checkout", "-q", "-b", "theirs"});
  write_file(ends.laptop() / "theirs", "t\n");
  commit_all(ends.laptop(), "theirs");
  git_out(ends.laptop(), {"update-ref", "refs/remotes/origin/main", "HEAD"});
  git_out(ends.laptop(), {"checkout", "-q", "main"});
  ends.push();
  CHECK(ends.last_snapshot->sync.snapshot == before);
  CHECK(git_out(ends.box(), {"rev-parse", "origin/main"}) ==
        git_out(ends.laptop(), {"rev-parse", "origin/main"}));
  CHECK(git(ends.box(), {"fsck", "--strict"}).exit.ok());
}

TEST_CASE("history may move up and down between two syncs") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  for (int i = 0; i < 120; ++i)
    git_out(ends.laptop(), {"commit", "-q", "--allow-empty", "-m", std::to_string(i)});
  ends.push();
  git_out(ends.laptop(), {"reset", "-q", "--hard", "HEAD~60"});
  ends.push();
  CHECK(git_out(ends.box(), {"rev-parse", "HEAD"}) ==
        git_out(ends.laptop(), {"rev-parse", "HEAD"}));
  git_out(ends.laptop(), {"reset", "-q", "--hard", "HEAD@{1}"});
  ends.push();
  CHECK(git(ends.box(), {"fsck"}).exit.ok());
  CHECK(git_out(ends.box(), {"status", "--porcelain"}).empty());
}
