// What the user has configured, and the repository itself: read, never run, never changed.

#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <utility>

#include "tests/integration/sync/laptop.h"

using namespace sync_test;

namespace {

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

}  // namespace

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
