// The box's end: what a workspace looks like after a sync, what drifted, and what hostile sandboxed
// code cannot reach.

#include <algorithm>

#include "tests/integration/sync/two_ends.h"
#include "tests/support/unprivileged.h"

using namespace sync_test;

namespace {

// A repository with staged, unstaged and untracked changes and an upstream.
void make_repository(const fs::path& root) {
  git_out(root, {"init", "-q", "-b", "main"});
  for (const char* name : {"clean", "staged", "unstaged", "both", "gone", "dir/a"})
    write_file(root / name, std::string(name) + "\n");
  write_file(root / ".gitignore", "*.o\n");
  git_out(root, {"add", "-A"});
  git_out(root, {"commit", "-q", "-m", "one"});
  git_out(root, {"update-ref", "refs/remotes/origin/main", "HEAD"});
  git_out(root, {"symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"});
  git_out(root, {"config", "remote.origin.url", "https://example.org/x.git"});
  git_out(root, {"config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"});
  git_out(root, {"config", "branch.main.remote", "origin"});
  git_out(root, {"config", "branch.main.merge", "refs/heads/main"});
  write_file(root / "clean2", "two\n");
  git_out(root, {"add", "-A"});
  git_out(root, {"commit", "-q", "-m", "two"});
  write_file(root / "staged", "changed\n");
  write_file(root / "both", "changed\n");
  git_out(root, {"add", "-A"});
  git_out(root, {"rm", "-q", "gone"});
  write_file(root / "both", "changed twice\n");
  write_file(root / "unstaged", "changed\n", true);
  write_file(root / "untracked", "new\n");
  write_file(root / "ignored.o", "object\n");
}

}  // namespace

TEST_CASE("git shows the same in the workspace as on the laptop") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  ends.push();
  for (std::vector<std::string> question :
       {std::vector<std::string>{"status", "--porcelain=v1", "-z"},
        {"status", "--branch", "--porcelain=v2"},
        {"rev-parse", "HEAD"},
        {"symbolic-ref", "HEAD"},
        {"rev-parse", "--abbrev-ref", "@{upstream}"},
        {"symbolic-ref", "refs/remotes/origin/HEAD"},
        {"log", "--format=%H %s"},
        {"diff"},
        {"diff", "--cached"},
        {"ls-files", "--stage"}}) {
    INFO(question[0]);
    CHECK(git(ends.box(), question).out == git(ends.laptop(), question).out);
  }
  CHECK(git(ends.box(), {"fsck", "--strict"}).exit.ok());
  CHECK_FALSE(fs::exists(ends.box() / "ignored.o"));

  // The index knows the files: only what differs is ever read.
  auto debug = git(ends.box(), {"ls-files", "--debug", "clean"}).out;
  CHECK(debug.find("size: 6") != std::string::npos);
  CHECK(debug.find("mtime: 0:0") == std::string::npos);

  SECTION("a detached HEAD") {
    git_out(ends.laptop(), {"checkout", "-q", "--detach"});
    ends.push();
    CHECK_FALSE(git(ends.box(), {"symbolic-ref", "-q", "HEAD"}).exit.ok());
    CHECK(git_out(ends.box(), {"rev-parse", "HEAD"}) ==
          git_out(ends.laptop(), {"rev-parse", "HEAD"}));
  }
  SECTION("a branch that went away and one that came") {
    git_out(ends.laptop(), {"checkout", "-q", "-b", "topic/deep"});
    ends.push();
    CHECK(git_out(ends.box(), {"symbolic-ref", "HEAD"}) == "refs/heads/topic/deep");
    git_out(ends.laptop(), {"checkout", "-q", "main"});
    git_out(ends.laptop(), {"branch", "-q", "-D", "topic/deep"});
    git_out(ends.laptop(), {"checkout", "-q", "-b", "topic"});
    ends.push();
    CHECK(git_out(ends.box(), {"symbolic-ref", "HEAD"}) == "refs/heads/topic");
    CHECK_FALSE(
        git(ends.box(), {"rev-parse", "-q", "--verify", "refs/heads/topic/deep"}).exit.ok());
  }
  SECTION("what a command staged in the sandbox is put back by the next sync, and named") {
    git_out(ends.box(), {"add", "-A"});
    auto applied = ends.push();
    CHECK(git(ends.box(), {"status", "--porcelain"}).out ==
          git(ends.laptop(), {"status", "--porcelain"}).out);
    REQUIRE(applied.left_out.size() == 1);
    CHECK(applied.left_out[0].path == ".git/index");
    CHECK(applied.left_out[0].why.find("both, unstaged, untracked") != std::string::npos);
    CHECK(ends.push().left_out.empty());
  }
  SECTION("nothing is named when a command only looked, or committed all that it staged") {
    write_file(ends.box() / "clean", "clean\n");
    git_out(ends.box(), {"status"});
    CHECK(ends.push().left_out.empty());
    git_out(ends.box(), {"add", "-A"});
    git_out(ends.box(), {"commit", "-q", "-m", "all"});
    auto applied = ends.push();
    CHECK(applied.left_out.empty());
    CHECK_FALSE(applied.drift.empty());
  }
  SECTION("an index that makes no sense is nobody's trouble") {
    std::string index = read_file(ends.box() / ".git/index");
    write_file(ends.box() / ".git/index", GENERATE(0, 1) ? "DIRC" + std::string(100, '\xff')
                                                         : index.substr(0, index.size() / 2));
    ends.push();
    CHECK(git(ends.box(), {"status", "--porcelain"}).out ==
          git(ends.laptop(), {"status", "--porcelain"}).out);
  }
}

TEST_CASE("a repository whose object ids are SHA-256") {
  Scratch scratch;
  TwoEnds ends(scratch);
  git_out(ends.laptop(), {"init", "-q", "-b", "main", "--object-format=sha256"});
  write_file(ends.laptop() / "f", "f\n");
  git_out(ends.laptop(), {"add", "f"});
  git_out(ends.laptop(), {"commit", "-q", "-m", "one"});
  write_file(ends.laptop() / "g", "g\n");
  ends.push();
  CHECK(git_out(ends.box(), {"rev-parse", "HEAD"}) ==
        git_out(ends.laptop(), {"rev-parse", "HEAD"}));
  CHECK(git(ends.box(), {"status", "--porcelain"}).out == "?? g\n");
  CHECK(git(ends.box(), {"fsck", "--strict"}).exit.ok());
  write_file(ends.box() / "h", "h\n");
  ends.restart();
  REQUIRE(ends.pull());
  CHECK(read_file(ends.laptop() / "h") == "h\n");
}

TEST_CASE("an unborn branch and a work tree without git") {
  Scratch scratch;
  TwoEnds ends(scratch);
  bool with_git = GENERATE(true, false);
  if (with_git) git_out(ends.laptop(), {"init", "-q", "-b", "fresh"});
  write_file(ends.laptop() / "f", "f\n");
  if (with_git) git_out(ends.laptop(), {"add", "f"});
  write_file(ends.laptop() / "g", "g\n");
  ends.push();
  CHECK(read_tree(ends.box()) == read_tree(ends.laptop()));
  CHECK(fs::exists(ends.box() / ".git") == with_git);
  if (with_git) {
    CHECK(git(ends.box(), {"status", "--porcelain"}).out == "A  f\n?? g\n");
    CHECK(git_out(ends.box(), {"symbolic-ref", "HEAD"}) == "refs/heads/fresh");
  }
}

TEST_CASE("a sync that changes nothing touches nothing") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  ends.push();
  std::map<std::string, std::int64_t> before, after;
  read_tree(ends.box(), &before);
  auto index = fs::last_write_time(ends.box() / ".git/index");
  auto applied = ends.push();
  CHECK(applied.drift.empty());
  CHECK(applied.left_out.empty());
  read_tree(ends.box(), &after);
  CHECK(before == after);
  CHECK(fs::last_write_time(ends.box() / ".git/index") == index);
}

TEST_CASE("ignored files stay in the sandbox, and what drifted is kept and named") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  ends.push();
  write_file(ends.box() / "build.o", "object\n");
  write_file(ends.box() / "dir/cache.o", "object\n");
  write_file(ends.box() / "clean", "edited by a shell\n");
  write_file(ends.box() / "notes", "from a shell\n");
  fs::remove(ends.box() / "dir/a");
  auto applied = ends.push();
  CHECK(read_file(ends.box() / "build.o") == "object\n");
  CHECK(read_file(ends.box() / "dir/cache.o") == "object\n");
  CHECK(read_file(ends.box() / "clean") == "clean\n");
  CHECK(read_file(ends.box() / "dir/a") == "dir/a\n");
  CHECK_FALSE(fs::exists(ends.box() / "notes"));
  CHECK(applied.drifted == std::vector<std::string>{"clean", "dir/a", "notes"});
  REQUIRE_FALSE(applied.drift.empty());
  auto show = [&](const std::string& path) {
    return git_out(ends.box_store(), {"--git-dir=.", "show", applied.drift + ":" + path});
  };
  CHECK(show("clean") == "edited by a shell");
  CHECK(show("notes") == "from a shell");
  CHECK(ends.push().drift.empty());
}

TEST_CASE("an ignored file that a snapshot brings is kept before it is overwritten") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  ends.push();
  write_file(ends.box() / "tool.o", "made there\n");
  git_out(ends.laptop(), {"add", "-f", "ignored.o"});
  fs::rename(ends.laptop() / "ignored.o", ends.laptop() / "tool.o");
  git_out(ends.laptop(), {"add", "-f", "-A", "tool.o"});
  auto applied = ends.push();
  CHECK(read_file(ends.box() / "tool.o") == "object\n");
  CHECK(applied.drifted == std::vector<std::string>{"tool.o"});
  CHECK(git_out(ends.box_store(), {"--git-dir=.", "show", applied.drift + ":tool.o"}) ==
        "made there");
}

TEST_CASE("a directory of ignored files in the way of a file is moved aside and named") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  ends.push();
  write_file(ends.box() / "out/x.o", "object\n");
  write_file(ends.laptop() / "out", "a file now\n");
  auto applied = ends.push();
  CHECK(read_file(ends.box() / "out") == "a file now\n");
  CHECK(read_file(ends.box() / "out.sandbox-conflict/x.o") == "object\n");
  CHECK(std::any_of(applied.left_out.begin(), applied.left_out.end(),
                    [](const wire::LeftOut& left) { return left.path == "out"; }));
}

TEST_CASE("read-only files and directories in the sandbox do not stop a sync") {
  Scratch scratch;
  test::Unprivileged unprivileged;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "ro/f", "1\n");
  write_file(ends.laptop() / "ro/g", "1\n");
  ends.push();
  REQUIRE(::chmod((ends.box() / "ro/f").c_str(), 0444) == 0);
  REQUIRE(::chmod((ends.box() / "ro").c_str(), 0555) == 0);
  write_file(ends.laptop() / "ro/f", "2\n");
  fs::remove(ends.laptop() / "ro/g");
  ends.push();
  CHECK(read_tree(ends.box()) == read_tree(ends.laptop()));
  struct stat status;
  REQUIRE(::stat((ends.box() / "ro/f").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0444);
  REQUIRE(::stat((ends.box() / "ro").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0555);
}

TEST_CASE("what a command shut in the sandbox is brought back, and takes what is sent") {
  Scratch scratch;
  test::Unprivileged unprivileged;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "d/x", "1\n");
  write_file(ends.laptop() / "d/y", "1\n");
  write_file(ends.laptop() / "d/gone", "1\n");
  ends.push();
  write_file(ends.box() / "d/y", "2\n");
  write_file(ends.box() / "d/e/new", "new\n");
  fs::remove(ends.box() / "d/gone");
  for (const char* name : {"d/x", "d/e", "d", ""})
    REQUIRE(::chmod((ends.box() / name).c_str(), 0) == 0);
  auto report = ends.pull();
  REQUIRE(report);
  CHECK(report->written == std::vector<std::string>{"d/e/new", "d/y"});
  CHECK(report->deleted == std::vector<std::string>{"d/gone"});
  CHECK(read_file(ends.laptop() / "d/x") == "1\n");
  CHECK(ends.last_result->left_out.empty());
  struct stat status;
  REQUIRE(::stat((ends.box() / "d").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0);

  write_file(ends.laptop() / "d/x", "3\n");
  fs::remove(ends.laptop() / "d/y");
  auto applied = ends.push();
  CHECK(applied.left_out.empty());
  CHECK(applied.drift.empty());
  REQUIRE(::stat((ends.box() / "d").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0);
  REQUIRE(::chmod((ends.box() / "d").c_str(), 0755) == 0);
  REQUIRE(::chmod((ends.box() / "d/e").c_str(), 0755) == 0);
  REQUIRE(::chmod((ends.box() / "d/x").c_str(), 0644) == 0);
  CHECK(read_tree(ends.box()) == read_tree(ends.laptop()));
}

TEST_CASE("what nobody can read in the sandbox is neither deleted here nor replaced there") {
  Scratch scratch;
  test::Unprivileged unprivileged;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "d/x", "1\n");
  write_file(ends.laptop() / "d/y", "1\n");
  write_file(ends.laptop() / "f", "1\n");
  ends.push();
  // Sent last, and in no scan yet.
  write_file(ends.laptop() / "f", "2\n");
  ends.push();
  write_file(ends.box() / "made", "made\n");
  for (const char* name : {"d", "f"}) REQUIRE(::chmod((ends.box() / name).c_str(), 0) == 0);
  // It is somebody else's.
  os::Beneath::set_fault([](std::string_view call) { return call == "chmod" ? EPERM : 0; });
  auto report = ends.pull();
  write_file(ends.laptop() / "f", "3\n");
  auto refused = ends.try_push();
  write_file(ends.laptop() / "f", "2\n");
  fs::remove(ends.laptop() / "d/y");
  auto refused_too = ends.try_push();
  write_file(ends.laptop() / "d/y", "1\n");
  auto applied = ends.try_push();
  os::Beneath::set_fault(nullptr);

  REQUIRE(report);
  CHECK(report->complete());
  CHECK(report->written == std::vector<std::string>{"made"});
  CHECK(report->deleted.empty());
  CHECK(read_file(ends.laptop() / "d/x") == "1\n");
  CHECK(read_file(ends.laptop() / "f") == "2\n");
  auto named = [](const std::vector<wire::LeftOut>& all, const std::string& path) {
    return std::any_of(all.begin(), all.end(), [&](const wire::LeftOut& left) {
      return left.path == path && left.why.find("unreadable in the sandbox") == 0;
    });
  };
  CHECK(named(ends.last_result->left_out, "d"));
  CHECK(named(ends.last_result->left_out, "f"));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == wire::Errc::denied);
  CHECK(refused.error().what.find("f: ") == 0);
  REQUIRE_FALSE(refused_too);
  CHECK(refused_too.error().what.find("d/y: ") == 0);
  must(applied);
  CHECK(named(applied->left_out, "d"));

  // And when it can be read again, all goes on.
  for (const char* name : {"d", "f"}) REQUIRE(::chmod((ends.box() / name).c_str(), 0755) == 0);
  write_file(ends.laptop() / "f", "4\n");
  ends.push();
  CHECK(read_tree(ends.box()) == read_tree(ends.laptop()));
}

TEST_CASE("hostile repositories in the workspace run nothing and read nothing") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  ends.push();
  const std::string ran = (scratch / "ran").native();
  const std::string program = (scratch / "evil.sh").native();
  write_file(program, "#!/bin/sh\necho \"$0 $*\" >>'" + ran + "'\ncat\n", true);
  // A secret repository outside, whose objects must not turn up in a result.
  git_out((fs::create_directories(scratch / "secret"), scratch / "secret"),
          {"init", "-q", "-b", "main"});
  write_file(scratch / "secret/key", "top secret\n");
  git_out(scratch / "secret", {"add", "key"});
  git_out(scratch / "secret", {"commit", "-q", "-m", "secret"});
  std::string secret = git_out(scratch / "secret", {"rev-parse", "HEAD"});

  auto poison = [&](const fs::path& git_dir) {
    write_file(git_dir / "config",
               "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = " + program +
                   "\n\thooksPath = " + (scratch / "hooks").native() +
                   "\n\tsshCommand = " + program + "\n\tpager = " + program +
                   "\n[filter \"evil\"]\n\tclean = " + program + "\n\tsmudge = " + program +
                   "\n\tprocess = " + program + "\n[diff]\n\texternal = " + program +
                   "\n[gpg]\n\tprogram = " + program +
                   "\n[commit]\n\tgpgsign = true\n[include]\n\tpath = " +
                   (scratch / "secret/.git/config").native() + "\n");
    for (const char* hook : {"post-checkout", "reference-transaction", "post-index-change"}) {
      write_file(git_dir / "hooks" / hook, read_file(program), true);
      write_file(scratch / "hooks" / hook, read_file(program), true);
    }
  };
  write_file(ends.box() / ".gitattributes", "* filter=evil diff=evil\n");
  std::string swap = GENERATE("config", "nested", "linked", "file", "alternates", "gone",
                              "refs linked", "objects linked", "fifo");
  INFO(swap);
  if (swap == "config") {
    poison(ends.box() / ".git");
  } else if (swap == "nested") {
    for (const char* name : {"nested", "clean.d/nested"}) {
      fs::create_directories(ends.box() / name);
      git_out(ends.box() / name, {"init", "-q"});
      write_file(ends.box() / name / "f", "f\n");
      poison(ends.box() / name / ".git");
    }
  } else if (swap == "linked") {
    fs::remove_all(ends.box() / ".git");
    fs::create_directory_symlink(scratch / "secret/.git", ends.box() / ".git");
  } else if (swap == "file") {
    fs::remove_all(ends.box() / ".git");
    write_file(ends.box() / ".git", "gitdir: " + (scratch / "secret/.git").native() + "\n");
  } else if (swap == "alternates") {
    write_file(ends.box() / ".git/objects/info/alternates",
               (scratch / "secret/.git/objects").native() + "\n");
    write_file(ends.box() / ".git/refs/heads/main", secret + "\n");
  } else if (swap == "gone") {
    fs::remove_all(ends.box() / ".git");
  } else if (swap == "refs linked") {
    fs::remove_all(ends.box() / ".git/refs");
    fs::create_directory_symlink(scratch / "secret/.git/refs", ends.box() / ".git/refs");
  } else if (swap == "objects linked") {
    fs::remove_all(ends.box() / ".git/objects");
    fs::create_directory_symlink(scratch / "secret/.git/objects", ends.box() / ".git/objects");
    write_file(ends.box() / ".git/refs/heads/main", secret + "\n");
  } else if (swap == "fifo") {
    fs::remove(ends.box() / ".git/HEAD");
    REQUIRE(::mkfifo((ends.box() / ".git/HEAD").c_str(), 0600) == 0);
    REQUIRE(::mkfifo((ends.box() / "pipe").c_str(), 0600) == 0);
  }
  std::map<std::string, std::int64_t> secret_before, secret_after;
  collect(scratch / "secret/.git", "", *std::make_unique<Tree>(), &secret_before, nullptr);

  auto taken = must(ends.workspace().take_result(ends.origin().id()));
  REQUIRE(taken);
  for (const wire::Ref& ref : taken->commits) CHECK(ref.oid != secret);
  must(ends.receive(*taken));
  auto report = must(ends.origin().merge(TwoEnds::kSandbox, *taken));
  CHECK_FALSE(git(ends.laptop(), {"cat-file", "-e", secret}).exit.ok());
  CHECK_FALSE(git(ends.box_store(), {"--git-dir=.", "cat-file", "-e", secret}).exit.ok());
  CHECK_FALSE(fs::exists(ends.laptop() / "nested"));

  // The next sync works, and the workspace's repository is one again.
  fs::remove(ends.laptop() / ".gitattributes");
  write_file(ends.laptop() / "clean", "clean again\n");
  ends.push();
  CHECK(read_file(ends.box() / "clean") == "clean again\n");
  CHECK_FALSE(fs::is_symlink(ends.box() / ".git"));
  if (swap != "config") {
    CHECK(git(ends.box(), {"status", "--porcelain", "--ignore-submodules=all"}).exit.ok());
    CHECK(git_out(ends.box(), {"rev-parse", "HEAD"}) ==
          git_out(ends.laptop(), {"rev-parse", "HEAD"}));
  }
  collect(scratch / "secret/.git", "", *std::make_unique<Tree>(), &secret_after, nullptr);
  CHECK(secret_before == secret_after);
  CHECK(read_file(ran) == "");
}

TEST_CASE("a workspace that is a link now is refused") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "f", "1\n");
  ends.push();
  fs::create_directories(scratch / "outside");
  fs::remove_all(ends.box());
  fs::create_directory_symlink(scratch / "outside", ends.box());
  write_file(ends.laptop() / "f", "2\n");
  CHECK_FALSE(ends.try_push());
  CHECK(fs::is_empty(scratch / "outside"));
  fs::remove(ends.box());
  CHECK(ends.try_push());
  CHECK(read_file(ends.box() / "f") == "2\n");
}

TEST_CASE("what a process writes in the workspace during a sync is kept as drift") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "f", "1\n");
  write_file(ends.laptop() / "g", "1\n");
  ends.push();
  write_file(ends.laptop() / "f", "2\n");
  write_file(ends.laptop() / "g", "2\n");
  bool wrote = false;
  os::Beneath::set_fault([&](std::string_view operation) {
    if (!wrote && operation == "write" && read_file(ends.box() / "f") == "1\n" &&
        fs::exists(ends.box_store() / "workspace-writing")) {
      wrote = true;
      write_file(ends.box() / "f", "written meanwhile\n");
    }
    return 0;
  });
  auto applied = ends.try_push();
  os::Beneath::set_fault(nullptr);
  REQUIRE(applied);
  CHECK(wrote);
  CHECK(read_tree(ends.box()) == read_tree(ends.laptop()));
  CHECK(applied->drifted == std::vector<std::string>{"f"});
  REQUIRE_FALSE(applied->drift.empty());
  CHECK(git_out(ends.box_store(), {"--git-dir=.", "show", applied->drift + ":f"}) ==
        "written meanwhile");
}

TEST_CASE("a shallow clone and a submodule look the same in the workspace") {
  Scratch scratch;
  TwoEnds ends(scratch);
  fs::create_directories(scratch / "upstream");
  make_repository(scratch / "upstream");
  git_out(scratch / "upstream", {"commit", "-q", "-m", "three"});
  fs::remove(ends.laptop());
  git_out(scratch.path(), {"clone", "-q", "--depth", "2",
                           "file://" + (scratch / "upstream").native(), ends.laptop().native()});
  git_out(ends.laptop(), {"-c", "protocol.file.allow=always", "submodule", "--quiet", "add",
                          (scratch / "upstream").native(), "sub"});
  git_out(ends.laptop(), {"commit", "-q", "-m", "a submodule"});
  auto applied = ends.push();
  for (std::vector<std::string> question : {std::vector<std::string>{"log", "--format=%H %s"},
                                            {"rev-parse", "--is-shallow-repository"},
                                            {"ls-files", "--stage"}}) {
    INFO(question[0]);
    CHECK(git(ends.box(), question).out == git(ends.laptop(), question).out);
  }
  CHECK(git(ends.box(), {"status", "--porcelain"}).out == "");
  CHECK(git(ends.box(), {"fsck"}).exit.ok());
  CHECK(fs::is_directory(ends.box() / "sub"));
  CHECK_FALSE(ends.pull());
  write_file(ends.box() / "made", "made\n");
  auto report = ends.pull();
  REQUIRE(report);
  CHECK(report->complete());
  CHECK(read_file(ends.laptop() / "sub/clean") == "clean\n");

  // What is made in the submodule's directory stays there and is named; the submodule stays one.
  ends.push();
  write_file(ends.box() / "sub/out", "made\n");
  write_file(ends.box() / "sub/deep/out", "made\n");
  fs::remove(ends.box() / "made");
  report = ends.pull();
  REQUIRE(report);
  CHECK(report->complete());
  CHECK(report->written.empty());
  CHECK(report->deleted == std::vector<std::string>{"made"});
  CHECK(std::any_of(
      ends.last_result->left_out.begin(), ends.last_result->left_out.end(),
      [](const wire::LeftOut& left) { return left.path == "sub" && left.why.find("2 new") == 0; }));
  CHECK_FALSE(fs::exists(ends.laptop() / "sub/out"));
  write_file(ends.laptop() / "made", "again\n");
  applied = ends.push();
  CHECK(applied.drift.empty());
  CHECK(read_file(ends.box() / "sub/out") == "made\n");
  CHECK_FALSE(ends.pull());
}

TEST_CASE("an idle store is tidied down to what is needed") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_repository(ends.laptop());
  for (int i = 0; i < 25; ++i) {
    write_file(ends.laptop() / "clean", std::to_string(i) + "\n");
    ends.push();
  }
  CHECK(ends.workspace().have().size() == 20);
  write_file(ends.box() / "made", "made\n");
  auto taken = must(ends.workspace().take_result(ends.origin().id()));
  REQUIRE(taken);
  ends.workspace().tidy();
  CHECK(ends.workspace().have().size() == 20);
  CHECK(git_out(ends.box_store(),
                {"--git-dir=.", "for-each-ref", "--format=%(refname)", "refs/snapshots/"})
            .find("000000000001-") == std::string::npos);
  ends.restart();
  REQUIRE(ends.pull());
  CHECK(read_file(ends.laptop() / "made") == "made\n");
  CHECK(git(ends.box(), {"fsck"}).exit.ok());
}
