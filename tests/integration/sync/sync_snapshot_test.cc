// That a snapshot is the same for the same content, costs nothing when nothing has changed, and
// needs nothing that was kept of earlier ones.

#include <algorithm>
#include <chrono>
#include <fstream>
#include <set>
#include <thread>

#include "tests/integration/sync/laptop.h"

using namespace sync_test;

namespace {

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

}  // namespace

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
