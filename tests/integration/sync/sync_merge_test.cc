// Results coming back to the laptop: merged, conflicting, late, lost and repeated.

#include <algorithm>

#include "tests/integration/sync/two_ends.h"
#include "tests/support/unprivileged.h"

using namespace sync_test;

namespace {

const std::string kText = "one\ntwo\nthree\nfour\nfive\nsix\nseven\n";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  text.replace(text.find(from), from.size(), to);
  return text;
}

}  // namespace

TEST_CASE("edits of one file on both sides are merged as text") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "f", kText);
  ends.push();
  write_file(ends.laptop() / "f", replaced(kText, "one", "ONE"), true);
  write_file(ends.box() / "f", replaced(kText, "seven", "SEVEN"));
  auto report = ends.pull();
  REQUIRE(report);
  CHECK(report->complete());
  CHECK(report->written == std::vector<std::string>{"f"});
  CHECK(read_file(ends.laptop() / "f") ==
        replaced(replaced(kText, "one", "ONE"), "seven", "SEVEN"));
  CHECK(read_tree(ends.laptop()).at("f").kind == Node::Kind::program);
  ends.push();
  CHECK(read_tree(ends.laptop()) == read_tree(ends.box()));
}

TEST_CASE("where text cannot be merged ours stays and theirs is saved beside it, once") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "d/f", kText);
  ends.push();
  write_file(ends.laptop() / "d/f", replaced(kText, "one", "ours"));
  write_file(ends.box() / "d/f", replaced(kText, "one", "theirs"));
  auto report = ends.pull();
  REQUIRE(report);
  REQUIRE(report->conflicts.size() == 1);
  CHECK_FALSE(report->complete());
  CHECK(report->conflicts[0].path == "d/f");
  CHECK(report->conflicts[0].saved == "d/f.sandbox-conflict");
  CHECK_FALSE(report->conflicts[0].why.empty());
  CHECK(read_file(ends.laptop() / "d/f") == replaced(kText, "one", "ours"));
  CHECK(read_file(ends.laptop() / "d/f.sandbox-conflict") == replaced(kText, "one", "theirs"));

  // It is never synced, and the conflict is over on the next push.
  ends.push();
  CHECK(read_file(ends.box() / "d/f") == replaced(kText, "one", "ours"));
  CHECK_FALSE(fs::exists(ends.box() / "d/f.sandbox-conflict"));
  CHECK_FALSE(ends.pull());

  // The next one leaves it where it is: nothing else has it. The same again is saved once.
  for (int round = 0; round < 2; ++round) {
    write_file(ends.laptop() / "d/f", "ours 2" + std::to_string(round) + "\n");
    write_file(ends.box() / "d/f", "theirs 2\n");
    CHECK(ends.pull()->conflicts[0].saved == "d/f.2.sandbox-conflict");
    ends.push();
  }
  write_file(ends.laptop() / "d/f.2.sandbox-conflict", "half resolved by hand\n");
  write_file(ends.laptop() / "d/f", "ours 3\n");
  write_file(ends.box() / "d/f", "theirs 3\n");
  CHECK(ends.pull()->conflicts[0].saved == "d/f.3.sandbox-conflict");
  CHECK(read_file(ends.laptop() / "d/f.sandbox-conflict") == replaced(kText, "one", "theirs"));
  CHECK(read_file(ends.laptop() / "d/f.2.sandbox-conflict") == "half resolved by hand\n");
  CHECK(read_file(ends.laptop() / "d/f.3.sandbox-conflict") == "theirs 3\n");

  // One that is gone makes room.
  fs::remove(ends.laptop() / "d/f.sandbox-conflict");
  ends.push();
  write_file(ends.laptop() / "d/f", "ours 4\n");
  write_file(ends.box() / "d/f", "theirs 4\n");
  CHECK(ends.pull()->conflicts[0].saved == "d/f.sandbox-conflict");
  CHECK(read_file(ends.laptop() / "d/f.sandbox-conflict") == "theirs 4\n");
}

TEST_CASE("a change outside a sparse checkout is written, and one that is gone stays gone here") {
  Scratch scratch;
  TwoEnds ends(scratch);
  git_out(ends.laptop(), {"init", "-q", "-b", "main"});
  for (const char* name : {"in/f", "out/f", "out/mode", "out/gone", "out/mine"})
    write_file(ends.laptop() / name, "1\n");
  git_out(ends.laptop(), {"add", "-A"});
  git_out(ends.laptop(), {"commit", "-q", "-m", "one"});
  git_out(ends.laptop(), {"sparse-checkout", "set", "--cone", "in"});
  REQUIRE_FALSE(fs::exists(ends.laptop() / "out"));
  ends.push();
  REQUIRE(read_file(ends.box() / "out/f") == "1\n");
  write_file(ends.box() / "out/f", "2\n");
  write_file(ends.box() / "out/mode", "1\n", true);
  fs::remove(ends.box() / "out/gone");
  write_file(ends.laptop() / "out/mine", "ours\n");
  write_file(ends.box() / "out/mine", "theirs\n");
  fs::remove(ends.laptop() / "in/f");
  write_file(ends.box() / "in/f", "3\n");
  auto report = ends.pull();
  REQUIRE(report);
  CHECK(report->written == std::vector<std::string>{"out/f", "out/mode"});
  CHECK(read_tree(ends.laptop()).at("out/mode").kind == Node::Kind::program);
  CHECK(read_file(ends.laptop() / "out/f") == "2\n");
  CHECK_FALSE(fs::exists(ends.laptop() / "out/gone"));
  CHECK(report->deleted.empty());
  // Edits on both sides are conflicts as anywhere, and inside the checkout gone means deleted.
  REQUIRE(report->conflicts.size() == 2);
  CHECK(report->conflicts[0].path == "in/f");
  CHECK(report->conflicts[1].path == "out/mine");
  CHECK(read_file(ends.laptop() / "out/mine") == "ours\n");

  ends.push();
  CHECK(read_file(ends.box() / "out/f") == "2\n");
}

TEST_CASE("a directory in the way of a file is a conflict and stays") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "x", "x\n");
  ends.push();
  write_file(ends.laptop() / "d/mine", "mine\n");
  write_file(ends.box() / "d", "a file\n");
  auto report = ends.pull();
  REQUIRE(report->conflicts.size() == 1);
  CHECK(report->conflicts[0].saved == "d.sandbox-conflict");
  CHECK(read_file(ends.laptop() / "d/mine") == "mine\n");
  CHECK(read_file(ends.laptop() / "d.sandbox-conflict") == "a file\n");
}

TEST_CASE("a result is kept until it is merged, and a client that died loses nothing") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "f", "1\n");
  ends.push();
  write_file(ends.box() / "made", "made\n");
  auto lost = must(ends.workspace().take_result(ends.origin().id()));
  REQUIRE(lost);
  ends.restart();

  // The next client of that origin is told; another origin is not.
  auto again =
      ends.workspace().unmerged(ends.origin().id(), ends.origin().merged(TwoEnds::kSandbox));
  REQUIRE(again);
  CHECK(again->result == lost->result);
  CHECK(again->base == lost->base);
  CHECK_FALSE(ends.workspace().unmerged("ffffffffffffffffffffffffffffffff", ""));
  CHECK_FALSE(must(ends.workspace().take_result(ends.origin().id())));
  REQUIRE(ends.pull());
  CHECK(read_file(ends.laptop() / "made") == "made\n");
  CHECK_FALSE(ends.workspace().unmerged(ends.origin().id(), lost->result));

  // The word that it was merged got lost: its name in the next sync says so as well.
  write_file(ends.box() / "made", "made again\n");
  auto taken = must(ends.workspace().take_result(ends.origin().id()));
  REQUIRE(taken);
  must(ends.receive(*taken));
  must(ends.origin().merge(TwoEnds::kSandbox, *taken));
  CHECK(ends.origin().merged(TwoEnds::kSandbox) == taken->result);
  CHECK_FALSE(ends.workspace().unmerged(ends.origin().id(), taken->result));
  CHECK(must(ends.origin().merge(TwoEnds::kSandbox, *taken)).already);
}

TEST_CASE("results in a row without a push in between each bring only what is new") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "f", "1\n");
  ends.push();
  for (int acknowledged = 0; acknowledged < 2; ++acknowledged) {
    for (int i = 2; i < 5; ++i) {
      std::string text = std::to_string(i + 10 * acknowledged) + "\n";
      write_file(ends.box() / "f", text);
      auto taken = must(ends.workspace().take_result(ends.origin().id()));
      REQUIRE(taken);
      must(ends.receive(*taken));
      auto report = must(ends.origin().merge(TwoEnds::kSandbox, *taken));
      CHECK(report.complete());
      CHECK(read_file(ends.laptop() / "f") == text);
      if (acknowledged == 1) ends.workspace().merged(ends.origin().id(), taken->result);
    }
  }
}

TEST_CASE("a file that went back to what was sent is brought back as well") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "f", "1\n");
  ends.push();
  write_file(ends.box() / "f", "2\n");
  REQUIRE(must(ends.workspace().take_result(ends.origin().id())));
  write_file(ends.box() / "f", "1\n");
  REQUIRE(must(ends.workspace().take_result(ends.origin().id())));
  ends.pull();
  CHECK(read_file(ends.laptop() / "f") == "1\n");
  CHECK_FALSE(
      ends.workspace().unmerged(ends.origin().id(), ends.origin().merged(TwoEnds::kSandbox)));

  write_file(ends.box() / "f", "3\n");
  ends.pull();
  write_file(ends.box() / "f", "1\n");
  ends.pull();
  CHECK(read_file(ends.laptop() / "f") == "1\n");
}

TEST_CASE("an ignored file here is not overwritten by a result that brings one of that name") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / ".gitignore", "secret\n");
  write_file(ends.laptop() / "secret", "mine\n");
  ends.push();
  CHECK_FALSE(fs::exists(ends.box() / "secret"));
  write_file(ends.box() / ".gitignore", "");
  write_file(ends.box() / "secret", "theirs\n");
  auto report = ends.pull();
  REQUIRE(report->conflicts.size() == 1);
  CHECK(read_file(ends.laptop() / "secret") == "mine\n");
  CHECK(read_file(ends.laptop() / "secret.sandbox-conflict") == "theirs\n");
}

TEST_CASE("two laptops of one sandbox each get their own results") {
  Scratch scratch;
  TwoEnds one(scratch, "one"), two(scratch, "two");
  write_file(one.laptop() / "f", "one\n");
  one.push();
  write_file(one.box() / "made", "for one\n");
  auto kept = must(one.workspace().take_result(one.origin().id()));
  REQUIRE(kept);
  one.restart();

  write_file(two.laptop() / "f", "two\n");
  auto applied = two.push();
  CHECK(read_tree(two.box()) == read_tree(two.laptop()));
  // What was there was in a result already; still nobody may say that it vanished.
  CHECK(applied.snapshot == two.last_snapshot->sync.snapshot);
  write_file(two.box() / "made", "for two\n");
  REQUIRE(two.pull());
  CHECK(read_file(two.laptop() / "made") == "for two\n");
  two.restart();

  auto mine = one.workspace().unmerged(one.origin().id(), "");
  REQUIRE(mine);
  CHECK(mine->result == kept->result);
  must(one.receive(*mine));
  must(one.origin().merge(TwoEnds::kSandbox, *mine));
  CHECK(read_file(one.laptop() / "made") == "for one\n");
}

TEST_CASE("commits made in the sandbox arrive as refs/sandbox and leave branches alone") {
  Scratch scratch;
  TwoEnds ends(scratch);
  git_out(ends.laptop(), {"init", "-q", "-b", "main"});
  write_file(ends.laptop() / "f", "1\n");
  git_out(ends.laptop(), {"add", "f"});
  git_out(ends.laptop(), {"commit", "-q", "-m", "one"});
  std::string head = git_out(ends.laptop(), {"rev-parse", "HEAD"});
  ends.push();
  CHECK(git_out(ends.box(), {"rev-parse", "HEAD"}) == head);

  write_file(ends.box() / "f", "2\n");
  git_out(ends.box(), {"commit", "-q", "-a", "-m", "made in the sandbox"});
  git_out(ends.box(), {"branch", "topic/x"});
  std::string made = git_out(ends.box(), {"rev-parse", "HEAD"});
  if (GENERATE(false, true)) git_out(ends.box(), {"gc", "-q"});
  auto report = ends.pull();
  REQUIRE(report);
  CHECK(report->refused.empty());
  std::sort(report->commits.begin(), report->commits.end());
  CHECK(report->commits == std::vector<std::string>{"refs/sandbox/main", "refs/sandbox/topic/x"});
  CHECK(git_out(ends.laptop(), {"rev-parse", "refs/sandbox/main"}) == made);
  CHECK(git_out(ends.laptop(), {"show", "refs/sandbox/main:f"}) == "2");
  CHECK(git_out(ends.laptop(), {"rev-parse", "main"}) == head);
  CHECK(read_file(ends.laptop() / "f") == "2\n");
  CHECK(git(ends.laptop(), {"fsck", "--strict"}).exit.ok());

  // The branch here has not moved: the next push puts the sandbox's back, and the commit is safe.
  auto applied = ends.push();
  CHECK(applied.drift.empty());
  CHECK(git_out(ends.box(), {"rev-parse", "HEAD"}) == head);
  CHECK_FALSE(ends.pull());

  // Nothing of it is said twice.
  write_file(ends.box() / "f", "3\n");
  report = ends.pull();
  REQUIRE(report);
  CHECK(report->commits.empty());
}

TEST_CASE("a commit that no result has shown is kept as drift before its branch is put back") {
  Scratch scratch;
  TwoEnds ends(scratch);
  git_out(ends.laptop(), {"init", "-q", "-b", "main"});
  write_file(ends.laptop() / "f", "1\n");
  git_out(ends.laptop(), {"add", "f"});
  git_out(ends.laptop(), {"commit", "-q", "-m", "one"});
  ends.push();
  git_out(ends.box(), {"commit", "-q", "--allow-empty", "-m", "from a shell"});
  std::string made = git_out(ends.box(), {"rev-parse", "HEAD"});
  auto applied = ends.push();
  REQUIRE_FALSE(applied.drift.empty());
  CHECK(applied.drifted == std::vector<std::string>{"refs/heads/main"});
  CHECK(
      git_out(ends.box_store(), {"--git-dir=.", "log", "--format=%H", applied.drift}).find(made) !=
      std::string::npos);
}

TEST_CASE("an edit made while a result is being written is not lost") {
  Scratch scratch;
  TwoEnds ends(scratch);
  for (const char* name : {"changed", "deleted", "text"}) write_file(ends.laptop() / name, kText);
  ends.push();
  write_file(ends.box() / "changed", "theirs\n");
  write_file(ends.box() / "text", replaced(kText, "seven", "SEVEN"));
  write_file(ends.box() / "new", "theirs\n");
  fs::remove(ends.box() / "deleted");
  auto taken = must(ends.workspace().take_result(ends.origin().id()));
  REQUIRE(taken);
  must(ends.receive(*taken));
  // An editor saves at the last moment: after every file was compared.
  bool edited = false;
  os::Beneath::set_fault([&](std::string_view operation) {
    if (!edited && (operation == "unlink" || operation == "rename")) {
      edited = true;
      write_file(ends.laptop() / "changed", "mine, and longer\n");
      write_file(ends.laptop() / "deleted", "mine, and longer\n");
      write_file(ends.laptop() / "new", "mine, and longer\n");
      write_file(ends.laptop() / "text", replaced(kText, "one", "ONE, and longer"));
    }
    return 0;
  });
  auto report = ends.origin().merge(TwoEnds::kSandbox, *taken);
  os::Beneath::set_fault(nullptr);
  must(std::move(report));
  CHECK(edited);
  CHECK(read_file(ends.laptop() / "changed") == "mine, and longer\n");
  CHECK(read_file(ends.laptop() / "deleted") == "mine, and longer\n");
  CHECK(read_file(ends.laptop() / "new") == "mine, and longer\n");
  CHECK(read_file(ends.laptop() / "text") ==
        replaced(replaced(kText, "one", "ONE, and longer"), "seven", "SEVEN"));
  CHECK(read_file(ends.laptop() / "changed.sandbox-conflict") == "theirs\n");
  CHECK(read_file(ends.laptop() / "new.sandbox-conflict") == "theirs\n");
}

TEST_CASE("what could not be written here is tried and named again, until it is here") {
  Scratch scratch;
  test::Unprivileged unprivileged;
  TwoEnds ends(scratch);
  auto id = TwoEnds::kSandbox;
  write_file(ends.laptop() / "closed/old", "old\n");
  write_file(ends.laptop() / "open", "1\n");
  ends.push();
  write_file(ends.box() / "closed/new", "new\n");
  fs::remove(ends.box() / "closed/old");
  write_file(ends.box() / "open", "2\n");
  ::chmod((ends.laptop() / "closed").c_str(), 0555);
  auto first = ends.pull();
  REQUIRE(first);
  CHECK(first->written == std::vector<std::string>{"open"});
  CHECK(first->refused.size() == 2);
  CHECK_FALSE(ends.pull());  // the box has told it all

  for (int round = 0; round < 2; ++round) {
    ends.restart();
    auto again = must(ends.origin().merge_unwritten(id));
    CHECK_FALSE(again.complete());
    CHECK(again.written.empty());
    REQUIRE(again.refused.size() == 2);
    CHECK(again.refused[0].path.starts_with("closed/"));
    REQUIRE(again.kept.size() == 1);
    CHECK(git_out(again.kept[0].store,
                  {"--git-dir=.", "show", again.kept[0].commit + ":closed/new"}) == "new");
  }

  // What was written is not looked at again: it may have been edited since.
  write_file(ends.laptop() / "open", "edited\n");
  ::chmod((ends.laptop() / "closed").c_str(), 0755);
  auto home = must(ends.origin().merge_unwritten(id));
  CHECK(home.complete());
  CHECK(home.written == std::vector<std::string>{"closed/new"});
  CHECK(home.deleted == std::vector<std::string>{"closed/old"});
  CHECK(read_file(ends.laptop() / "closed/new") == "new\n");
  CHECK_FALSE(fs::exists(ends.laptop() / "closed/old"));
  CHECK(read_file(ends.laptop() / "open") == "edited\n");
  auto nothing = must(ends.origin().merge_unwritten(id));
  CHECK(nothing.complete());
  CHECK(nothing.written.empty());
}

TEST_CASE("a later result takes the place of what of an earlier one could not be written") {
  Scratch scratch;
  test::Unprivileged unprivileged;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "closed/file", "1\n");
  ends.push();
  ::chmod((ends.laptop() / "closed").c_str(), 0555);
  write_file(ends.box() / "closed/file", "2\n");
  write_file(ends.box() / "closed/more", "a\n");
  CHECK(ends.pull()->refused.size() == 2);
  write_file(ends.box() / "closed/file", "3\n");
  CHECK(ends.pull()->refused.size() == 1);
  ::chmod((ends.laptop() / "closed").c_str(), 0755);
  write_file(ends.box() / "closed/file", "4\n");
  auto report = ends.pull();
  REQUIRE(report);
  CHECK(report->complete());
  CHECK(read_file(ends.laptop() / "closed/file") == "4\n");
  auto rest = must(ends.origin().merge_unwritten(TwoEnds::kSandbox));
  CHECK(rest.written == std::vector<std::string>{"closed/more"});
  CHECK(read_file(ends.laptop() / "closed/file") == "4\n");
}
