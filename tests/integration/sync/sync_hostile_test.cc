// What a hostile box may send, and what the laptop makes of it: nothing outside the work tree
// changes, and the error is clear.

#include <algorithm>
#include <functional>

#include "protocol/sync/git.h"
#include "protocol/sync/object_store.h"
#include "tests/integration/sync/two_ends.h"

using namespace sync_test;
using wire::Errc;

namespace {

std::string unhex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

// Makes objects that no git command would make.
class Forge {
 public:
  explicit Forge(fs::path git_dir) : directory_(std::move(git_dir)) {}

  std::string object(const std::string& type, const std::string& bytes) const {
    auto output =
        git(directory_, {"--git-dir=.", "hash-object", "-t", type, "-w", "--literally", "--stdin"},
            bytes);
    INFO(output.err);
    REQUIRE(output.exit.ok());
    return output.out.substr(0, 40);
  }
  struct Entry {
    std::string mode, name, oid;
  };
  std::string tree(const std::vector<Entry>& entries) const {
    std::string bytes;
    for (const Entry& entry : entries)
      bytes += entry.mode + " " + entry.name + std::string(1, '\0') + unhex(entry.oid);
    return object("tree", bytes);
  }
  std::string commit(const std::string& tree, const std::string& parent) const {
    std::string who = "sandbox <sandbox@localhost> 0 +0000";
    return object("commit", "tree " + tree + "\nparent " + parent + "\nauthor " + who +
                                "\ncommitter " + who + "\n\nresult\n");
  }
  // All that `tip` reaches, with `base` left out.
  std::string pack(const std::string& tip, const std::string& base) const {
    auto output = git(directory_, {"--git-dir=.", "pack-objects", "--revs", "--stdout", "-q"},
                      tip + "\n^" + base + "\n");
    INFO(output.err);
    REQUIRE(output.exit.ok());
    return output.out;
  }

 private:
  fs::path directory_;
};

result<void> give_pack(TwoEnds& ends, const std::string& bytes) {
  auto pipe = must(os::make_pipe());
  std::thread writer([&, out = std::move(pipe.write)]() mutable {
    sync::NoSigpipe no_sigpipe;
    (void)os::write_all(out.get(), bytes);
    out.reset();
  });
  auto read = ends.origin().read_pack(std::move(pipe.read), wire::kMaxPackBytes, {});
  writer.join();
  return read;
}

// All files of the test but the private stores'.
Tree everything(const Scratch& scratch) {
  Tree tree;
  for (const auto& entry : fs::recursive_directory_iterator(scratch.path())) {
    std::string path = fs::relative(entry.path(), scratch.path()).native();
    if (path.starts_with("laptop-store") || path.starts_with("box")) continue;
    if (entry.is_symlink()) {
      tree[path] = {Node::Kind::link, fs::read_symlink(entry.path()).native()};
    } else if (entry.is_regular_file()) {
      tree[path] = {Node::Kind::file, read_file(entry.path())};
    }
  }
  return tree;
}

struct Attack {
  std::string name;
  std::function<std::string(const Forge&, const Forge::Entry& evil)> tree;  // gives the root tree
  std::vector<std::string> refused;
};

Forge::Entry dir(const Forge& forge, const std::string& name, std::vector<Forge::Entry> entries) {
  return {"40000", name, forge.tree(entries)};
}

std::vector<Attack> attacks(const Scratch& scratch) {
  using Entry = Forge::Entry;
  std::string outside = (scratch / "outside").native();
  auto file = [](const Entry& evil, const std::string& name) {
    return Entry{evil.mode, name, evil.oid};
  };
  std::vector<Attack> all;
  all.push_back(
      {"../x",
       [=](const Forge& f, const Entry& e) { return f.tree({dir(f, "..", {file(e, "x")})}); },
       {"../x"}});
  all.push_back({"a name with ../ in it",
                 [=](const Forge& f, const Entry& e) { return f.tree({file(e, "a/../../x")}); },
                 {"a/../../x"}});
  all.push_back({"an absolute path",
                 [=](const Forge& f, const Entry& e) { return f.tree({file(e, outside + "/x")}); },
                 {outside + "/x"}});
  for (std::string spelled :
       {".git", ".GIT", ".g\xE2\x80\x8Cit", ".git ", "git~1", ".git::$INDEX_ALLOCATION"}) {
    all.push_back(
        {spelled,
         [=](const Forge& f, const Entry& e) {
           return f.tree(
               {dir(f, spelled, {file(e, "config"), dir(f, "hooks", {file(e, "post-checkout")})})});
         },
         {spelled + "/config", spelled + "/hooks/post-checkout"}});
  }
  all.push_back({"a link and then a path through it",
                 [=](const Forge& f, const Entry& e) {
                   std::string link = f.object("blob", outside);
                   return f.tree({{"120000", "link", link}, dir(f, "link", {file(e, "x")})});
                 },
                 {"link", "link/x"}});
  all.push_back({"two names that fold to one",
                 [=](const Forge& f, const Entry& e) {
                   return f.tree({file(e, "Evil"), file(e, "evil")});
                 },
                 {"Evil", "evil"}});
  return all;
}

}  // namespace

TEST_CASE("hostile paths change nothing outside the work tree and are named") {
  Scratch scratch;
  fs::create_directories(scratch / "outside");
  write_file(scratch / "outside/keep", "keep");
  TwoEnds ends(scratch);
  git_out(ends.laptop(), {"init", "-q", "-b", "main"});
  write_file(ends.laptop() / "a.txt", "a\n");
  ends.push();
  const std::string base = ends.last_snapshot->sync.snapshot;

  auto all = attacks(scratch);
  auto which = GENERATE(range(0, 11));
  REQUIRE(all.size() == 11);
  const Attack& attack = all[static_cast<std::size_t>(which)];
  INFO(attack.name);
  Tree before = everything(scratch);

  SECTION("as a pack") {
    Forge forge(ends.box_store());
    Forge::Entry evil{"100755", "", forge.object("blob", "#!/bin/sh\ntouch ran\n")};
    std::string commit = forge.commit(attack.tree(forge, evil), base);
    auto read = give_pack(ends, forge.pack(commit, base));
    if (read) {
      auto report = ends.origin().merge(TwoEnds::kSandbox, {commit, base, {}, {}});
      if (report) {
        CHECK_FALSE(report->refused.empty());
        for (const std::string& path : report->deleted) before.erase("laptop/" + path);
      } else {
        CHECK(report.error().code == Errc::bad_input);
        CHECK_FALSE(report.error().what.empty());
      }
    } else {
      CHECK(read.error().code == Errc::bad_input);
      CHECK_FALSE(read.error().what.empty());
    }
  }
  SECTION("past the pack's check") {
    Forge forge(ends.laptop_store());
    Forge::Entry evil{"100755", "", forge.object("blob", "#!/bin/sh\ntouch ran\n")};
    std::string commit = forge.commit(attack.tree(forge, evil), base);
    auto report = ends.origin().merge(TwoEnds::kSandbox, {commit, base, {}, {}});
    if (report) {
      std::vector<std::string> refused;
      for (const auto& path : report->refused) {
        CHECK_FALSE(path.why.empty());
        refused.push_back(path.path);
      }
      for (const std::string& path : attack.refused) {
        INFO(path);
        CHECK(std::find(refused.begin(), refused.end(), path) != refused.end());
      }
      CHECK(report->written.empty());
      // The tree lacks a.txt, and that is no attack.
      CHECK(report->deleted == std::vector<std::string>{"a.txt"});
      before.erase("laptop/a.txt");
    } else {
      CHECK(report.error().code == Errc::bad_input);
    }
  }
  CHECK(everything(scratch) == before);
}

TEST_CASE("a link of one result is not followed by the next") {
  Scratch scratch;
  fs::create_directories(scratch / "outside");
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "a.txt", "a\n");
  ends.push();
  fs::create_directory_symlink(scratch / "outside", ends.box() / "link");
  REQUIRE(ends.pull());
  CHECK(fs::is_symlink(ends.laptop() / "link"));
  fs::remove(ends.box() / "link");
  write_file(ends.box() / "link/x", "x\n");
  auto report = ends.pull();
  REQUIRE(report);
  CHECK(fs::is_empty(scratch / "outside"));
  CHECK_FALSE(fs::is_symlink(ends.laptop() / "link"));
  CHECK(read_file(ends.laptop() / "link/x") == "x\n");
}

TEST_CASE("a link that the user made is not written through") {
  Scratch scratch;
  fs::create_directories(scratch / "outside");
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "dir/a.txt", "a\n");
  ends.push();
  fs::remove_all(ends.laptop() / "dir");
  fs::create_directory_symlink(scratch / "outside", ends.laptop() / "dir");
  write_file(ends.box() / "dir/new.txt", "new\n");
  auto report = ends.pull();
  REQUIRE(report);
  REQUIRE(report->conflicts.size() == 1);
  CHECK(report->conflicts[0].path == "dir/new.txt");
  CHECK(report->conflicts[0].saved == "dir.sandbox-conflict/new.txt");
  CHECK(read_file(ends.laptop() / "dir.sandbox-conflict/new.txt") == "new\n");
  CHECK(fs::is_empty(scratch / "outside"));
}

TEST_CASE("a result that is none is refused") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "a.txt", "a\n");
  ends.push();
  const std::string base = ends.last_snapshot->sync.snapshot;
  const std::string none(40, '1');
  auto merge = [&](const std::string& commit, const std::string& from) {
    auto report = ends.origin().merge(TwoEnds::kSandbox, {commit, from, {}, {}});
    REQUIRE_FALSE(report);
    INFO(report.error().what);
    CHECK(report.error().code == Errc::bad_input);
  };
  merge(none, base);
  merge("--help", base);
  merge("", base);
  merge(base, base);
  merge(base, none);
  Forge forge(ends.laptop_store());
  merge(forge.object("blob", "x"), base);
  merge(forge.commit(std::string(40, '2'), base), base);
  CHECK(read_tree(ends.laptop()).size() == 1);
}

TEST_CASE("a pack that expands without bound is refused before a file is written") {
  Scratch scratch;
  auto git_program = must(sync::Git::find("git"));
  auto store = must(sync::ObjectStore::open(git_program, {scratch / "store", "sha1", {}, true}));
  Forge forge([&] {
    fs::create_directories(scratch / "forge");
    git_out(scratch / "forge", {"init", "-q", "--bare", "."});
    return scratch / "forge";
  }());
  std::string bomb = forge.object("blob", std::string(64 << 20, '\0'));
  std::string tree = forge.tree({{"100644", "bomb", bomb}});
  auto output = git(scratch / "forge", {"--git-dir=.", "pack-objects", "--stdout", "-q"},
                    bomb + "\n" + tree + "\n");
  REQUIRE(output.exit.ok());
  CHECK(output.out.size() < (1 << 20));
  auto read = [&](sync::ImportLimits limits) {
    auto pipe = must(os::make_pipe());
    std::thread writer([&, out = std::move(pipe.write)]() mutable {
      sync::NoSigpipe no_sigpipe;
      (void)os::write_all(out.get(), output.out);
      out.reset();
    });
    auto outcome = store.read_pack(std::move(pipe.read), {}, limits);
    writer.join();
    return outcome;
  };
  sync::ImportLimits small;
  small.expanded_bytes = 1 << 20;
  auto expanded = read(small);
  REQUIRE_FALSE(expanded);
  CHECK(expanded.error().code == Errc::too_large);
  sync::ImportLimits object;
  object.object_bytes = 1 << 20;
  auto large = read(object);
  REQUIRE_FALSE(large);
  CHECK(large.error().code == Errc::too_large);
  sync::ImportLimits bytes;
  bytes.bytes = 1000;
  auto long_pack = read(bytes);
  REQUIRE_FALSE(long_pack);
  CHECK(long_pack.error().code == Errc::too_large);
  CHECK_FALSE(store.has(bomb));
  CHECK(read({}));
  CHECK(store.has(bomb));
}

TEST_CASE("refs that a hostile box names stay beneath refs/sandbox") {
  Scratch scratch;
  TwoEnds ends(scratch);
  git_out(ends.laptop(), {"init", "-q", "-b", "main"});
  write_file(ends.laptop() / "f", "1\n");
  git_out(ends.laptop(), {"add", "f"});
  git_out(ends.laptop(), {"commit", "-q", "-m", "one"});
  ends.push();
  write_file(ends.box() / "f", "2\n");
  git_out(ends.box(), {"commit", "-q", "-a", "-m", "made there"});
  auto taken = must(ends.workspace().take_result(ends.origin().id()));
  REQUIRE(taken);
  REQUIRE(taken->commits.size() == 1);
  const std::string made = taken->commits[0].oid;
  must(ends.receive(*taken));
  std::string before = git_out(ends.laptop(), {"for-each-ref"});

  wire::Result hostile = *taken;
  hostile.commits = {{"refs/heads/../../../x", made},
                     {"refs/heads/main/../../../HEAD", made},
                     {"refs/remotes/origin/main", made},
                     {"--stdin", made},
                     {"refs/heads/a b", made},
                     {"refs/heads/x.lock", made},
                     {"refs/heads/elsewhere", std::string(40, '1')},
                     {"refs/heads/option", "--all"}};
  auto report = must(ends.origin().merge(TwoEnds::kSandbox, hostile));
  CHECK(report.commits.empty());
  CHECK(report.refused.size() == hostile.commits.size());
  CHECK(git_out(ends.laptop(), {"for-each-ref"}) == before);
}

TEST_CASE("a hook in the user's repository does not run for what a sandbox made") {
  Scratch scratch;
  TwoEnds ends(scratch);
  git_out(ends.laptop(), {"init", "-q", "-b", "main"});
  write_file(ends.laptop() / "f", "1\n");
  git_out(ends.laptop(), {"add", "f"});
  git_out(ends.laptop(), {"commit", "-q", "-m", "one"});
  for (const char* hook : {"reference-transaction", "post-index-change", "post-checkout"}) {
    write_file(ends.laptop() / ".git/hooks" / hook,
               "#!/bin/sh\ntouch '" + (scratch / "ran").native() + "'\n", true);
  }
  std::string index = read_file(ends.laptop() / ".git/index");
  std::string config = read_file(ends.laptop() / ".git/config");
  ends.push();
  git_out(ends.box(), {"checkout", "-q", "--detach"});
  git_out(ends.box(), {"commit", "-q", "--allow-empty", "-m", "on no branch"});
  auto report = ends.pull();
  REQUIRE(report);
  CHECK(report->commits == std::vector<std::string>{"refs/sandbox/HEAD"});
  CHECK_FALSE(fs::exists(scratch / "ran"));
  CHECK(read_file(ends.laptop() / ".git/index") == index);
  CHECK(read_file(ends.laptop() / ".git/config") == config);
}
