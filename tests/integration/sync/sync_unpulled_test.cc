// What would be lost with a workspace, asked of the box's end.
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
