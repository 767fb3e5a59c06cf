// What a snapshot holds, whatever state the repository is in.

#include <algorithm>

#include "tests/integration/sync/laptop.h"

using namespace sync_test;

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

TEST_CASE("what a sandbox commits comes back to a linked worktree, under refs/sandbox alone") {
  Scratch scratch;
  make_repository(scratch / "main");
  git_out(scratch / "main",
          {"worktree", "add", "-q", "-b", "linked", (scratch / "laptop").native()});
  TwoEnds ends(scratch);
  const std::string head = git_out(ends.laptop(), {"rev-parse", "HEAD"});
  const std::string main = git_out(scratch / "main", {"rev-parse", "HEAD"});
  ends.push();
  write_file(ends.box() / "made", "there\n");
  git_out(ends.box(), {"add", "made"});
  git_out(ends.box(), {"commit", "-q", "-m", "in the sandbox"});
  const std::string made = git_out(ends.box(), {"rev-parse", "HEAD"});
  auto report = ends.pull();
  REQUIRE(report);
  CHECK(report->complete());
  CHECK(report->commits == std::vector<std::string>{"refs/sandbox/linked"});
  CHECK(read_file(ends.laptop() / "made") == "there\n");
  CHECK(git_out(ends.laptop(), {"rev-parse", "refs/sandbox/linked"}) == made);
  CHECK(git_out(ends.laptop(), {"rev-parse", "HEAD"}) == head);
  CHECK(git_out(scratch / "main", {"rev-parse", "HEAD"}) == main);
  CHECK(git_out(scratch / "main", {"status", "--porcelain"}).empty());
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
            .out.find('?') != std::string::npos);
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
