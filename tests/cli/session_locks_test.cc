#include "cli/session_locks.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <fstream>

#include "cli/error.h"
#include "tests/support/catch.h"
#include "tests/support/loop.h"
#include "tests/support/temporary_directory.h"

using cli::LocalSession;
using cli::SessionLocks;
namespace fs = std::filesystem;

namespace {

struct World {
  test::TemporaryDirectory directory;
  test::Loop loop;
  cli::Output output{cli::OutputOptions{.json = true}};
  SessionLocks locks{directory / "sessions"};

  std::unique_ptr<cli::SessionLock> hold(const std::string& id, const std::string& verb = "exec",
                                         const std::string& since = "2026-01-01T00:00:00Z") {
    LocalSession session{id, "rig", verb, "make test", since, 7};
    return loop.run(locks.hold(loop.executor(), output, session));
  }
  bool can_take(const std::string& id) {
    return loop.run(locks.take(loop.executor(), id)).has_value();
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory / "sessions")) {
      names.push_back(entry.path().filename());
    }
    return names;
  }
};

}  // namespace

TEST_CASE("a sandbox is in use as long as one of the commands on it lives") {
  World world;
  CHECK_FALSE(world.locks.in_use("a"));
  CHECK_FALSE(fs::exists(world.directory / "sessions"));  // asking makes nothing
  auto one = world.hold("a");
  auto two = world.hold("a");
  CHECK(world.locks.in_use("a"));
  CHECK_FALSE(world.locks.in_use("b"));
  CHECK_FALSE(world.can_take("a"));
  one.reset();
  CHECK(world.locks.in_use("a"));
  CHECK_FALSE(world.can_take("a"));
  two.reset();
  CHECK_FALSE(world.locks.in_use("a"));
  CHECK(world.can_take("a"));
}

TEST_CASE("sessions are named, oldest first, and a dead one's record goes") {
  World world;
  auto one = world.hold("a", "push", "2026-01-02T00:00:00Z");
  auto two = world.hold("b", "exec", "2026-01-01T00:00:00Z");
  // As a process that was killed leaves it: nobody holds it.
  std::ofstream(world.directory / "sessions/c.0123456789abcdef.session")
      << R"({"sandbox":"c","verb":"exec","pid":9})" << std::flush;
  std::ofstream(world.directory / "sessions/c.0123456789abcdef.session.new") << "" << std::flush;
  auto all = world.locks.sessions();
  REQUIRE(all.size() == 2);
  CHECK(all[0].sandbox == "b");
  CHECK(all[0].box == "rig");
  CHECK(all[0].command == "make test");
  CHECK(all[0].pid == 7);
  CHECK(all[1].verb == "push");
  CHECK(world.files().size() == 4);  // two locks, two records
  one.reset();
  two.reset();
  CHECK(world.locks.sessions().empty());
  CHECK(world.files().size() == 2);  // locks stay
}

TEST_CASE("session locks are for their owner alone, follow no link and reach no child") {
  World world;
  auto held = world.hold("a");
  struct stat status {};
  REQUIRE(::stat((world.directory / "sessions/a.lock").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  fs::create_symlink(world.directory / "elsewhere", world.directory / "sessions/b.lock");
  CHECK_THROWS_AS(world.hold("b"), cli::UserError);
  CHECK_FALSE(fs::exists(world.directory / "elsewhere"));
  int kept = 0;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    if (fs::read_symlink(entry.path(), error).string().find("/sessions/a") != std::string::npos) {
      ++kept;
      CHECK((::fcntl(std::stoi(entry.path().filename()), F_GETFD) & FD_CLOEXEC) != 0);
    }
  }
  CHECK(kept == 2);  // the lock and the record
}

TEST_CASE("what cannot be locked is refused, naming the session lock, and an id is no path") {
  World world;
  fs::create_directories(world.directory / "sessions/a.lock");
  ::chmod((world.directory / "sessions").c_str(), 0700);
  try {
    world.hold("a");
    FAIL("it was locked");
  } catch (const cli::UserError& error) {
    CHECK(std::string(error.what()).find("session lock") != std::string::npos);
  }
  for (const char* id : {"", "../x", "a/b", "A", "a.b"}) {
    INFO(id);
    CHECK_THROWS_AS(world.hold(id), cli::UserError);
    CHECK_FALSE(world.locks.in_use(id));
  }
}
