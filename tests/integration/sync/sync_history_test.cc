// How much of the past goes along, and the refs that name it.

#include "tests/integration/sync/laptop.h"

using namespace sync_test;

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
