// What would be lost with a workspace, asked of the box's end.
#include <set>

#include "tests/integration/sync/two_ends.h"

using namespace sync_test;

namespace {

void make_repository(const fs::path& root) {
  git_out(root, {"init", "-q", "-b", "main"});
  write_file(root / "file", "one\n");
  git_out(root, {"add", "-A"});
  git_out(root, {"commit", "-q", "-m", "one"});
}

}  // namespace

TEST_CASE("what was synced, and what was pulled, would not be lost") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  ends.push();
  auto nothing = [&] {
    auto lost = must(ends.workspace().unpulled());
    return lost.results == 0 && lost.files.empty() && lost.commits.empty() && lost.drifts == 0;
  };
  CHECK(nothing());
  write_file(ends.box() / "made", "in the sandbox\n");
  must(ends.workspace().take_result(ends.origin().id()));
  ends.restart();
  auto lost = must(ends.workspace().unpulled());
  CHECK(lost.results == 1);
  CHECK(lost.files == std::vector<std::string>{"made"});
  ends.pull();
  CHECK(nothing());
  ends.push();
  CHECK(nothing());
}

TEST_CASE("what changed since the last result counts, and can be pulled from then on") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  ends.push();
  write_file(ends.box() / "file", "changed by nobody's command\n");
  write_file(ends.box() / "new", "and this\n");
  CHECK(must(ends.workspace().unpulled()).files == std::vector<std::string>{"file", "new"});
  CHECK(must(ends.workspace().unpulled()).results == 1);
  auto report = ends.pull();
  REQUIRE(report);
  CHECK(read_file(ends.laptop() / "new") == "and this\n");
  CHECK(must(ends.workspace().unpulled()).files.empty());
}

TEST_CASE("commits that were made in the sandbox count, though they change no file") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  ends.push();
  git_out(ends.box(), {"commit", "-q", "--allow-empty", "-m", "in the sandbox"});
  auto lost = must(ends.workspace().unpulled());
  CHECK(lost.results == 1);
  CHECK(lost.files.empty());
  CHECK(lost.commits == std::vector<std::string>{"refs/heads/main"});
}

TEST_CASE("drift that a sync replaced counts, and so do files that nothing was ever synced over") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  write_file(ends.box() / "by hand", "before any sync\n");
  CHECK(must(ends.workspace().unpulled()).files == std::vector<std::string>{"by hand"});
  fs::remove(ends.box() / "by hand");
  CHECK(must(ends.workspace().unpulled()).files.empty());
  ends.push();
  write_file(ends.box() / "file", "drifted\n");
  write_file(ends.laptop() / "file", "two\n");
  ends.push();
  CHECK(must(ends.workspace().unpulled()).drifts == 1);
}

TEST_CASE("stashes and tags that were made in a sandbox count, and come home") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  write_file(ends.laptop() / "file", "hours of work\n");
  ends.push();
  git_out(ends.box(), {"stash"});
  write_file(ends.box() / "file", "another try\n");
  git_out(ends.box(), {"stash"});
  git_out(ends.box(), {"tag", "-a", "-m", "annotated", "noted"});
  git_out(ends.box(), {"tag", "light"});
  std::string note = git_out(ends.box(), {"rev-parse", "noted"});
  std::string older = git_out(ends.box(), {"rev-parse", "stash@{1}"});
  std::string newer = git_out(ends.box(), {"rev-parse", "stash@{0}"});
  CHECK(must(ends.workspace().unpulled()).commits ==
        std::vector<std::string>{"refs/stash/" + std::min(older, newer),
                                 "refs/stash/" + std::max(older, newer), "refs/tags/light",
                                 "refs/tags/noted"});

  auto report = ends.pull();
  REQUIRE(report);
  CHECK(report->refused.empty());
  CHECK(report->commits.size() == 4);
  auto show = [&](const std::string& oid) {
    return git_out(ends.laptop(), {"show", "refs/sandbox/stash/" + oid.substr(0, 12) + ":file"});
  };
  CHECK(show(older) == "hours of work");
  CHECK(show(newer) == "another try");
  CHECK(git_out(ends.laptop(), {"rev-parse", "refs/sandbox/tags/noted"}) == note);
  CHECK(git_out(ends.laptop(), {"cat-file", "-t", note}) == "tag");
  git_out(ends.laptop(), {"rev-parse", "--verify", "refs/sandbox/tags/light"});
  git_out(ends.laptop(), {"fsck", "--strict"});

  // Once, and not again after the next sync.
  auto lost = must(ends.workspace().unpulled());
  CHECK(lost.commits.empty());
  CHECK(lost.results == 0);
  ends.push();
  CHECK_FALSE(ends.pull());
}

TEST_CASE("a stash that no result has shown is not forgotten by the next sync") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  ends.push();
  write_file(ends.box() / "file", "only in the stash\n");
  git_out(ends.box(), {"stash"});
  std::string stash = git_out(ends.box(), {"rev-parse", "stash"});
  write_file(ends.laptop() / "file", "two\n");
  CHECK(ends.push().drift.empty());
  CHECK(must(ends.workspace().unpulled()).commits ==
        std::vector<std::string>{"refs/stash/" + stash});
  REQUIRE(ends.pull());
  CHECK(git_out(ends.laptop(), {"show", "refs/sandbox/stash/" + stash.substr(0, 12) + ":file"}) ==
        "only in the stash");
  CHECK(read_file(ends.laptop() / "file") == "two\n");
}

TEST_CASE("drift comes home with a pull, and counts no more") {
  Scratch scratch;
  TwoEnds ends(scratch);
  bool with_git = GENERATE(true, false);
  if (with_git) make_repository(ends.laptop());
  write_file(ends.laptop() / "file", "one\n");
  ends.push();
  // More than are kept of what nobody needs.
  constexpr int kTimes = 22;
  for (int i = 0; i < kTimes; ++i) {
    write_file(ends.box() / "file", "drifted " + std::to_string(i) + "\n");
    write_file(ends.laptop() / "file", "edit " + std::to_string(i) + "\n");
    REQUIRE_FALSE(ends.push().drift.empty());
  }
  ends.workspace().tidy();
  must(ends.workspace().offer_drift(ends.origin().id()));
  auto offered = ends.workspace().unmerged(ends.origin().id(), "");
  REQUIRE(offered);
  CHECK(offered->commits.size() == kTimes);
  CHECK(must(ends.workspace().unpulled()).drifts == kTimes);

  auto report = ends.pull();
  REQUIRE(report);
  CHECK(report->complete());
  CHECK(report->written.empty());
  std::vector<std::string> where = report->commits;
  fs::path repository = ends.laptop() / ".git";
  if (!with_git) {
    CHECK(report->commits.empty());
    for (const auto& kept : report->drift) where.push_back(kept.commit);
    repository = ends.laptop_store();
  }
  REQUIRE(where.size() == kTimes);
  std::set<std::string> contents;
  for (const std::string& at : where)
    contents.insert(
        git_out(scratch.path(), {"--git-dir", repository.string(), "show", at + ":file"}));
  CHECK(contents.size() == kTimes);
  CHECK(contents.contains("drifted 0"));
  CHECK(read_file(ends.laptop() / "file") == "edit 21\n");

  auto lost = must(ends.workspace().unpulled());
  CHECK(lost.drifts == 0);
  CHECK(lost.results == 0);
  ends.push();
  CHECK_FALSE(ends.pull());
}
