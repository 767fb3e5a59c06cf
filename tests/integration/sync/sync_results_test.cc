// Results on the box: which of them an origin has, and which it has not.

#include "protocol/sync/git.h"
#include "protocol/sync/object_store.h"
#include "tests/integration/sync/two_ends.h"

using namespace sync_test;

TEST_CASE("a merged result takes no other with it that grew from another snapshot") {
  Scratch scratch;
  TwoEnds one(scratch, "one"), two(scratch, "two");
  write_file(one.laptop() / "f", "one\n");
  write_file(two.laptop() / "f", "two\n");
  one.push();
  write_file(one.box() / "made", "by the first command\n");
  auto first = must(one.workspace().take_result(one.origin().id()));
  REQUIRE(first);
  two.push();
  // A command without a sync before it: it ran on what the other had sent.
  one.restart();
  write_file(one.box() / "later", "by the second command\n");
  auto second = must(one.workspace().take_result(one.origin().id()));
  REQUIRE(second);
  CHECK(second->base != first->base);
  one.workspace().merged(one.origin().id(), second->result);
  auto left = one.workspace().unmerged(one.origin().id(), second->result);
  REQUIRE(left);
  CHECK(left->result == first->result);
  one.workspace().merged(one.origin().id(), first->result);
  CHECK_FALSE(one.workspace().unmerged(one.origin().id(), first->result));
}

TEST_CASE("a merged result takes those with it that it contains") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "f", "f\n");
  ends.push();
  const std::string id = ends.origin().id();
  write_file(ends.box() / "a", "a\n");
  REQUIRE(must(ends.workspace().take_result(id)));
  write_file(ends.box() / "b", "b\n");
  auto second = must(ends.workspace().take_result(id));
  REQUIRE(second);
  ends.workspace().merged(id, second->result);
  CHECK_FALSE(ends.workspace().unmerged(id, second->result));
  CHECK_FALSE(ends.workspace().unmerged(id, ""));
}

// `rm -f out; make` twice, where make writes the same bytes: the second result had the first one's
// id (the same tree, parent and dates), and the laptop took it for merged.
TEST_CASE("what was brought back, deleted here and made again comes back again") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "f", "f\n");
  for (int round = 0; round < 3; ++round) {
    INFO(round);
    ends.push();
    CHECK_FALSE(fs::exists(ends.box() / "made"));
    write_file(ends.box() / "made", "the same each time\n");
    REQUIRE(ends.pull());
    CHECK(read_file(ends.laptop() / "made") == "the same each time\n");
    fs::remove(ends.laptop() / "made");
  }
}

TEST_CASE("a result that is taken twice is one result") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "f", "f\n");
  ends.push();
  const std::string id = ends.origin().id();
  write_file(ends.box() / "a", "a\n");
  auto first = must(ends.workspace().take_result(id));
  REQUIRE(first);
  CHECK_FALSE(must(ends.workspace().take_result(id)));
  auto kept = ends.workspace().unmerged(id, "");
  REQUIRE(kept);
  CHECK(kept->result == first->result);
}

TEST_CASE("a result tells of so many branches, and says how many more there are") {
  Scratch scratch;
  TwoEnds ends(scratch);
  git_out(ends.laptop(), {"init", "-q", "-b", "main"});
  write_file(ends.laptop() / "f", "f\n");
  git_out(ends.laptop(), {"add", "f"});
  git_out(ends.laptop(), {"commit", "-q", "-m", "one"});
  ends.push();
  git_out(ends.box(), {"commit", "-q", "--allow-empty", "-m", "two"});
  std::string commit = git_out(ends.box(), {"rev-parse", "HEAD"}), updates;
  for (int i = 0; i < 299; ++i)
    updates += "create refs/heads/b" + std::to_string(i) + " " + commit + "\n";
  REQUIRE(git(ends.box(), {"update-ref", "--stdin"}, updates).exit.ok());
  auto taken = must(ends.workspace().take_result(ends.origin().id()));
  REQUIRE(taken);
  CHECK(taken->commits.size() == 256);
  REQUIRE(taken->left_out.size() == 1);
  CHECK(taken->left_out[0].why.starts_with("44 more branches"));
}

TEST_CASE("what a detached HEAD of the sandbox points at outlives the tidying of the store") {
  Scratch scratch;
  TwoEnds ends(scratch);
  git_out(ends.laptop(), {"init", "-q", "-b", "main"});
  write_file(ends.laptop() / "f", "f\n");
  git_out(ends.laptop(), {"add", "f"});
  git_out(ends.laptop(), {"commit", "-q", "-m", "one"});
  ends.push();
  std::string first = git_out(ends.box(), {"rev-parse", "HEAD"});
  git_out(ends.box(), {"checkout", "-q", "--detach"});
  // As after very many syncs.
  fs::path packs = ends.box_store() / "objects/pack";
  for (int i = 0; i < 2100; ++i) write_file(packs / ("pack-" + std::to_string(i) + ".pack"), "");
  ends.workspace().tidy();
  CHECK_FALSE(
      git_out(ends.box_store(), {"--git-dir=.", "for-each-ref", "refs/borrowed/" + first}).empty());
}

namespace {

// The user throws a commit away, and what only it reached is collected.
void amend_and_collect(const fs::path& repository) {
  git_out(repository, {"commit", "-q", "--amend", "-m", "amended"});
  git_out(repository, {"reflog", "expire", "--expire=now", "--expire-unreachable=now", "--all"});
  git_out(repository, {"gc", "-q", "--prune=now"});
}

void make_committed(const fs::path& repository) {
  git_out(repository, {"init", "-q", "-b", "main"});
  write_file(repository / "file", "one\n");
  write_file(repository / "dir/other", "other\n");
  git_out(repository, {"add", "-A"});
  git_out(repository, {"commit", "-q", "-m", "first"});
}

}  // namespace

TEST_CASE("a result whose base was collected here comes home in a whole pack") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_committed(ends.laptop());
  // A tree that nothing but the commit has: a clean work tree's snapshot borrows it.
  ends.push();
  std::string sent = git_out(ends.laptop(), {"rev-parse", "HEAD"});
  write_file(ends.box() / "file", "changed in the sandbox\n");
  write_file(ends.box() / "new", "made there\n");
  auto taken = must(ends.workspace().take_result(ends.origin().id()));
  REQUIRE(taken);

  write_file(ends.laptop() / "dir/other", "edited here\n");
  git_out(ends.laptop(), {"add", "-A"});
  amend_and_collect(ends.laptop());
  REQUIRE_FALSE(git(ends.laptop(), {"cat-file", "-e", sent}).exit.ok());
  ends.restart();

  auto thin = ends.receive(*taken);
  if (thin) {
    auto merged = ends.origin().merge(TwoEnds::kSandbox, *taken);
    REQUIRE_FALSE(merged);
    CHECK(merged.error().code == wire::Errc::not_found);
  } else {
    CHECK(thin.error().code == wire::Errc::not_found);
  }
  must(ends.receive_whole(*taken));
  auto report = must(ends.origin().merge(TwoEnds::kSandbox, *taken));
  CHECK(report.complete());
  CHECK(read_file(ends.laptop() / "file") == "changed in the sandbox\n");
  CHECK(read_file(ends.laptop() / "new") == "made there\n");
  CHECK(read_file(ends.laptop() / "dir/other") == "edited here\n");
  ends.workspace().merged(ends.origin().id(), taken->result);
  ends.push();
  CHECK(read_file(ends.box() / "dir/other") == "edited here\n");
  CHECK_FALSE(ends.pull());
}

TEST_CASE("what a merge could not write outlives the collection of what it was borrowed from") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_committed(ends.laptop());
  ends.push();
  // A name whose content is the user's own, which is borrowed, and one that is new.
  write_file(ends.box() / "file", "other\n");
  write_file(ends.box() / "dir/other", "new there\n");
  write_file(ends.laptop() / "file", "edited here\n");
  write_file(ends.laptop() / "dir/other", "edited here, too\n");
  auto report = ends.pull();
  REQUIRE(report);
  REQUIRE(report->conflicts.size() == 2);
  REQUIRE(report->kept.size() == 1);
  auto kept = report->kept.front();
  for (const char* saved : {"file", "dir/other"})
    fs::remove(ends.laptop() / (saved + std::string(sync::kConflictSuffix)));

  git_out(ends.laptop(), {"add", "-A"});
  amend_and_collect(ends.laptop());
  auto tools = must(sync::Git::find("git", scratch / "git-version"));
  auto store = must(sync::ObjectStore::open(
      tools, {ends.laptop_store(), "sha1", {ends.laptop() / ".git/objects"}, true}));
  must(store.tidy());
  must(store.tidy());
  CHECK(git_out(kept.store, {"--git-dir=.", "show", kept.commit + ":file"}) == "other");
  CHECK(git_out(kept.store, {"--git-dir=.", "show", kept.commit + ":dir/other"}) == "new there");
  CHECK(git_out(kept.store, {"--git-dir=.", "for-each-ref", "refs/kept/"}).find(kept.commit) !=
        std::string::npos);
}
