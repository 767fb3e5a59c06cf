// Every file operation of an apply and of a merge fails once, by an error and by a kill: nothing is
// lost, and doing it again comes to the same end.

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cerrno>

#include "tests/integration/sync/two_ends.h"

using namespace sync_test;

namespace {

// Lets `at` operations pass and then does `then` at the next.
struct Fault {
  explicit Fault(int at, int error) {
    os::Beneath::set_fault([this, at, error](std::string_view) {
      if (++count_ <= at) return 0;
      if (error == 0) ::_exit(77);
      return error;
    });
  }
  ~Fault() { os::Beneath::set_fault(nullptr); }
  int count_ = 0;
};

// Nothing that we or our children write grows beyond so many bytes.
struct SmallFiles {
  explicit SmallFiles(rlim_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    rlimit small = before;
    small.rlim_cur = bytes;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  }
  ~SmallFiles() { ::setrlimit(RLIMIT_FSIZE, &before); }
  rlimit before;
};

void edit_laptop(const fs::path& root) {
  write_file(root / "changed", "ours\n");
  write_file(root / "dir", "a file now\n");
  write_file(root / "new/deep/file", "new\n", true);
  fs::remove(root / "gone");
}

void make_tree(const fs::path& root) {
  write_file(root / "kept", "kept\n");
  write_file(root / "changed", "1\n");
  write_file(root / "gone", "gone\n");
  write_file(root / "becomes/dir", "x\n");
}

// Runs `step` in a child that dies at its `at`th file operation. True: it died there.
template <class F>
bool killed(int at, F step) {
  pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    Fault fault(at, 0);
    step();
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  REQUIRE(WIFEXITED(status));
  REQUIRE((WEXITSTATUS(status) == 77 || WEXITSTATUS(status) == 0));
  return WEXITSTATUS(status) == 77;
}

std::vector<std::string> temporary_files(const fs::path& root) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    std::string name = entry.path().filename().native();
    if (name.starts_with(os::kTemporaryPrefix)) names.push_back(name);
  }
  return names;
}

}  // namespace

TEST_CASE(
    "an apply that is killed at any point is put right by the next, and nothing is called drift") {
  int at = 0;
  for (bool died = true; died; ++at) {
    INFO("operation " << at);
    Scratch scratch;
    TwoEnds ends(scratch);
    make_tree(ends.laptop());
    ends.push();
    write_file(ends.laptop() / "becomes", "a file\n");
    edit_laptop((fs::remove_all(ends.laptop() / "becomes/dir"), ends.laptop()));
    sync::Snapshot snapshot = must(ends.origin().snapshot());
    ends.send(snapshot);
    std::string id = ends.origin().id();
    ends.restart();
    died = killed(at, [&] {
      auto applied = ends.workspace().apply(id, snapshot.sync);
      if (!applied) ::_exit(1);
    });
    ends.restart();
    auto applied = ends.push();
    CHECK(applied.drift.empty());
    CHECK(read_tree(ends.box()) == read_tree(ends.laptop()));
    CHECK(temporary_files(ends.box()).empty());
    REQUIRE(at < 500);
  }
  CHECK(at > 10);
}

TEST_CASE("a full disk during an apply is an error that loses nothing") {
  int at = 0;
  for (bool failed = true; failed; ++at) {
    INFO("operation " << at);
    Scratch scratch;
    TwoEnds ends(scratch);
    make_tree(ends.laptop());
    ends.push();
    write_file(ends.box() / "notes", "from a shell\n");
    edit_laptop(ends.laptop());
    sync::Snapshot snapshot = must(ends.origin().snapshot());
    ends.send(snapshot);
    {
      Fault fault(at, ENOSPC);
      auto applied = ends.workspace().apply(ends.origin().id(), snapshot.sync);
      failed = fault.count_ > at;
      if (!applied) {
        INFO(applied.error().what);
        CHECK(applied.error().code == wire::Errc::no_space);
      }
    }
    auto drift = git_out(ends.box_store(), {"--git-dir=.", "for-each-ref", "refs/drift/"});
    CHECK((fs::exists(ends.box() / "notes") || !drift.empty()));
    ends.push();
    CHECK(read_tree(ends.box()) == read_tree(ends.laptop()));
    CHECK(temporary_files(ends.box()).empty());
    REQUIRE(at < 500);
  }
}

TEST_CASE("a result that the box could not store is taken whole once it can") {
  Scratch scratch;
  TwoEnds ends(scratch);
  make_tree(ends.laptop());
  ends.push();
  std::string made;
  for (std::uint32_t seed = 1; made.size() < 6000; seed = seed * 1664525 + 1013904223)
    made += static_cast<char>(seed >> 24);
  write_file(ends.box() / "made", made);
  {
    SmallFiles limit(4096);  // as on a full disk, git finds out when it writes what it gathered
    for (int round = 0; round < 2; ++round) {
      auto taken = ends.workspace().take_result(ends.origin().id());
      CHECK_FALSE(taken);
    }
  }
  REQUIRE(ends.pull());
  CHECK((read_file(ends.laptop() / "made") == made));
}

// Killed, out of space, denied: apart, so that ctest runs them beside each other.
TEMPLATE_TEST_CASE_SIG("a merge that is stopped at any point is finished by the next", "",
                       ((int error), error), 0, ENOSPC, EACCES) {
  int at = 0;
  for (bool hit = true; hit; ++at) {
    INFO("operation " << at);
    Scratch scratch;
    TwoEnds ends(scratch);
    make_tree(ends.laptop());
    ends.push();
    edit_laptop(ends.box());
    write_file(ends.laptop() / "kept", "mine\n");
    write_file(ends.box() / "kept", "theirs\n");
    auto taken = must(ends.workspace().take_result(ends.origin().id()));
    REQUIRE(taken);
    must(ends.receive(*taken));
    Tree before = read_tree(ends.laptop());
    if (error == 0) {
      ends.restart();
      hit = killed(at, [&] {
        auto report = ends.origin().merge(TwoEnds::kSandbox, *taken);
        if (!report) ::_exit(1);
      });
      ends.restart();
    } else {
      Fault fault(at, error);
      auto report = ends.origin().merge(TwoEnds::kSandbox, *taken);
      hit = fault.count_ > at;
      if (report && hit) CHECK_FALSE(report->complete());
      if (!report) {
        INFO(report.error().what);
        auto code = report.error().code;
        CHECK((code == wire::Errc::no_space || code == wire::Errc::denied));
      }
    }
    // Every file is either what it was or what it is to become.
    Tree half = read_tree(ends.laptop());
    Tree theirs = read_tree(ends.box());
    for (const auto& [path, node] : half) {
      INFO(path);
      bool old = before.contains(path) && before.at(path) == node;
      bool fresh = theirs.contains(path) && theirs.at(path) == node;
      bool temporary = fs::path(path).filename().native().starts_with(os::kTemporaryPrefix);
      CHECK((old || fresh || temporary));
    }
    if (ends.origin().merged(TwoEnds::kSandbox) != taken->result) {
      auto report = must(ends.origin().merge(TwoEnds::kSandbox, *taken));
      CHECK(report.conflicts.size() == 1);
      theirs["kept"] = before["kept"];
      CHECK(read_tree(ends.laptop()) == theirs);
      CHECK(read_file(ends.laptop() / "kept.sandbox-conflict") == "theirs\n");
      CHECK(temporary_files(ends.laptop()).empty());
    }
    REQUIRE(at < 500);
  }
  CHECK(at > 10);
}
