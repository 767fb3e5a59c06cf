// Locks, paths, clock, terminals: the small types around files.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "protocol/os/clock.h"
#include "protocol/os/flock.h"
#include "protocol/os/paths.h"
#include "protocol/os/process.h"
#include "protocol/os/pty.h"
#include "tests/support/catch.h"
#include "tests/support/loop.h"
#include "tests/support/temporary_directory.h"

using namespace protocol;
using namespace std::chrono_literals;
using os::FileLock;
using wire::Errc;
using Kind = os::FileLock::Kind;

namespace {
mode_t mode_of(const std::filesystem::path& path) {
  struct stat status = {};
  REQUIRE(::lstat(path.c_str(), &status) == 0);
  return status.st_mode & 07777;
}
}  // namespace

TEST_CASE("one holder at a time holds an exclusive lock, many a shared one") {
  test::TemporaryDirectory directory;
  auto file = directory / "lock";
  auto first = FileLock::try_lock(file, Kind::shared);
  REQUIRE(first);
  CHECK(FileLock::try_lock(file, Kind::shared));
  CHECK(FileLock::try_lock(file, Kind::exclusive).error().code == Errc::busy);
  first->release();
  auto alone = FileLock::try_lock(file, Kind::exclusive);
  REQUIRE(alone);
  CHECK(FileLock::try_lock(file, Kind::shared).error().code == Errc::busy);
  CHECK(mode_of(file) == 0600);
}

TEST_CASE("a lock file stays when its lock is given back") {
  test::TemporaryDirectory directory;
  { auto lock = FileLock::try_lock(directory / "lock", Kind::exclusive); }
  CHECK(std::filesystem::exists(directory / "lock"));
}

TEST_CASE("a lock is not taken through a link, nor where there is no directory") {
  test::TemporaryDirectory directory;
  std::filesystem::create_symlink(directory / "elsewhere", directory / "lock");
  CHECK(FileLock::try_lock(directory / "lock", Kind::exclusive).error().code == Errc::refused);
  CHECK_FALSE(std::filesystem::exists(directory / "elsewhere"));
  CHECK(FileLock::try_lock(directory / "no/lock", Kind::exclusive).error().code == Errc::not_found);
}

TEST_CASE("waiting for a lock ends at its deadline") {
  test::TemporaryDirectory directory;
  test::Loop loop;
  auto file = directory / "lock";
  auto held = FileLock::try_lock(file, Kind::exclusive);
  REQUIRE(held);
  auto soon = [] { return std::chrono::steady_clock::now() + 20ms; };
  CHECK(FileLock::lock(file, Kind::exclusive, soon()).error().code == Errc::timed_out);
  CHECK(
      loop.run(FileLock::lock_async(loop.executor(), file, Kind::exclusive, soon())).error().code ==
      Errc::timed_out);
  held->release();
  CHECK(FileLock::lock(file, Kind::exclusive, soon()));
  CHECK(FileLock::lock(file, Kind::exclusive));
  CHECK(loop.run(FileLock::lock_async(loop.executor(), file, Kind::exclusive)));
}

TEST_CASE("asking whether a lock is held leaves everything as it was") {
  test::TemporaryDirectory directory;
  auto file = directory / "lock";
  CHECK(*FileLock::is_held(file) == false);
  CHECK_FALSE(std::filesystem::exists(file));
  std::filesystem::create_symlink(directory / "elsewhere", directory / "link");
  CHECK(FileLock::is_held(directory / "link").error().code == Errc::refused);
  for (Kind kind : {Kind::shared, Kind::exclusive}) {
    auto held = FileLock::try_lock(file, kind);
    REQUIRE(held);
    CHECK(*FileLock::is_held(file) == true);
    held->release();
    CHECK(*FileLock::is_held(file) == false);
    CHECK(FileLock::try_lock(file, Kind::exclusive));
  }
}

TEST_CASE("whoever waited for a lock whose directory was moved away gets the new one, or none") {
  // Both had the file open: the first removes the tree, the second must not work on what is left.
  test::TemporaryDirectory directory;
  test::Loop loop;
  auto place = directory / "sandbox";
  std::filesystem::create_directory(place);
  auto ready = os::make_pipe();
  auto go = os::make_pipe();
  REQUIRE(ready);
  REQUIRE(go);
  // Forked first: a child that had the remover's file open would hold the lock, too.
  pid_t waiter = ::fork();
  if (waiter == 0) {
    char byte = 0;
    (void)!::read(go->read.get(), &byte, 1);
    (void)!::write(ready->write.get(), "r", 1);
    auto lock = FileLock::lock(place / ".lock", Kind::shared);
    ::_exit(!lock && lock.error().code == Errc::not_found ? 0 : 1);
  }
  auto remover = FileLock::try_lock(place / ".lock", Kind::exclusive);
  REQUIRE(remover);
  REQUIRE(::write(go->write.get(), "g", 1) == 1);
  char byte = 0;
  REQUIRE(::read(ready->read.get(), &byte, 1) == 1);
  // It sleeps in flock() by now, or opens the file too late: both have to end the same way.
  std::filesystem::rename(place, directory / "removing");
  remover->release();
  int status = -1;
  REQUIRE(::waitpid(waiter, &status, 0) == waiter);
  CHECK(status == 0);

  std::filesystem::create_directory(place);
  auto old = FileLock::try_lock(place / ".lock", Kind::exclusive);
  REQUIRE(old);
  std::filesystem::rename(place, directory / "removing too");
  std::filesystem::create_directory(place);
  CHECK(FileLock::try_lock(place / ".lock", Kind::exclusive));
}

TEST_CASE("a lock is freed when its holder is killed, and no child inherited it") {
  test::TemporaryDirectory directory;
  auto file = directory / "lock";
  auto ready = os::make_pipe();
  REQUIRE(ready);
  // A holder in a process of its own, which has a child that outlives it.
  pid_t holder = ::fork();
  if (holder == 0) {
    auto lock = FileLock::try_lock(file, Kind::exclusive);
    os::Spawn child;
    child.argv = {"sleep", "30"};
    auto started = os::Process::start(child);
    pid_t pid = started ? started->pid() : -1;
    (void)!::write(ready->write.get(), &pid, sizeof pid);
    for (;;) ::pause();
  }
  pid_t child = 0;
  REQUIRE(::read(ready->read.get(), &child, sizeof child) == sizeof child);
  REQUIRE(child > 0);
  CHECK(FileLock::try_lock(file, Kind::exclusive).error().code == Errc::busy);
  ::kill(holder, SIGKILL);
  ::waitpid(holder, nullptr, 0);
  CHECK(::kill(child, 0) == 0);
  CHECK(FileLock::try_lock(file, Kind::exclusive));
  ::kill(child, SIGKILL);
}

TEST_CASE(
    "a file is replaced as a whole: whichever call fails, the old or the new content stands") {
  test::TemporaryDirectory directory;
  auto file = directory / "file";
  std::string before(5000, 'a'), after(7000, 'b');
  int failures = 0;
  for (int nth = 0;; ++nth) {
    REQUIRE(os::write_file(file, before));
    int count = 0;
    bool failed = false;
    os::set_write_fault([&](std::string_view) {
      if (count++ != nth) return 0;
      failed = true;
      return ENOSPC;
    });
    auto written = os::write_file(file, after);
    os::set_write_fault(nullptr);
    auto content = os::read_file(file, 1 << 20);
    REQUIRE(content);
    CHECK((*content == before || *content == after));
    // Nothing is left beside it.
    CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 1);
    if (!failed) {
      CHECK(written);
      CHECK(*content == after);
      break;
    }
    ++failures;
    REQUIRE_FALSE(written);
    CHECK(written.error().code == Errc::no_space);
  }
  CHECK(failures == 5);
}

TEST_CASE("written files have the mode asked for whatever the umask") {
  test::TemporaryDirectory directory;
  mode_t before = ::umask(0777);
  auto written = os::write_file(directory / "a", "x");
  auto wider = os::write_file(directory / "b", "x", 0644);
  ::umask(before);
  REQUIRE(written);
  REQUIRE(wider);
  CHECK(mode_of(directory / "a") == 0600);
  CHECK(mode_of(directory / "b") == 0644);
}

TEST_CASE("a link is replaced, not written through") {
  test::TemporaryDirectory directory;
  std::ofstream(directory / "target") << "old";
  std::filesystem::create_symlink("target", directory / "link");
  REQUIRE(os::write_file(directory / "link", "new"));
  CHECK(*os::read_file(directory / "target", 100) == "old");
  CHECK(*os::read_file(directory / "link", 100) == "new");
}

TEST_CASE("reading is bounded and only of regular files") {
  test::TemporaryDirectory directory;
  REQUIRE(os::write_file(directory / "file", std::string(100, 'x')));
  CHECK(os::read_file(directory / "file", 100)->size() == 100);
  CHECK(os::read_file(directory / "file", 99).error().code == Errc::too_large);
  CHECK(os::read_file(directory / "none", 99).error().code == Errc::not_found);
  CHECK(os::read_file(directory.path(), 99).error().code == Errc::refused);
  REQUIRE(::mkfifo((directory / "fifo").c_str(), 0600) == 0);
  CHECK(os::read_file(directory / "fifo", 99).error().code == Errc::refused);  // and does not wait
}

TEST_CASE("a private directory is ours alone, or refused") {
  test::TemporaryDirectory directory;
  mode_t before = ::umask(0);
  auto made = os::make_private_directory(directory / "a/b/c");
  ::umask(before);
  REQUIRE(made);
  for (const char* part : {"a", "a/b", "a/b/c"}) CHECK(mode_of(directory / part) == 0700);
  CHECK(os::make_private_directory(directory / "a/b/c/"));

  ::chmod((directory / "a").c_str(), 0755);
  REQUIRE(os::make_private_directory(directory / "a"));
  CHECK(mode_of(directory / "a") == 0700);
  ::chmod((directory / "a").c_str(), 0770);
  CHECK(os::make_private_directory(directory / "a").error().code == Errc::denied);

  std::ofstream(directory / "file") << "x";
  CHECK(os::make_private_directory(directory / "file").error().code == Errc::denied);
  std::filesystem::create_directory(directory / "real");
  std::filesystem::create_directory_symlink("real", directory / "link");
  CHECK(os::make_private_directory(directory / "link").error().code == Errc::denied);
  CHECK(os::make_private_directory(directory / "link/").error().code == Errc::denied);
}

TEST_CASE("XDG directories: absolute values count, others do not") {
  using os::Environment;
  Environment env = {{"HOME", "/h"}};
  CHECK(*os::state_home(env) == "/h/.local/state");
  CHECK(*os::config_home(env) == "/h/.config");
  env["XDG_STATE_HOME"] = "/s";
  env["XDG_CONFIG_HOME"] = "relative";
  CHECK(*os::state_home(env) == "/s");
  CHECK(*os::config_home(env) == "/h/.config");
  env["XDG_CONFIG_HOME"] = "";
  CHECK(*os::config_home(env) == "/h/.config");
}

TEST_CASE("random ids have the length asked for and differ") {
  CHECK(os::random_hex(32).size() == 32);
  CHECK(os::random_hex(7).size() == 7);
  CHECK(os::random_hex(0).empty());
  CHECK(os::random_hex(32) != os::random_hex(32));
  CHECK(os::random_hex(64).find_first_not_of("0123456789abcdef") == std::string::npos);
}

TEST_CASE("the system has names for itself") {
  CHECK_FALSE(os::host_name().empty());
  CHECK_FALSE(os::user_name().empty());
  CHECK(os::login_shell().starts_with("/"));
  CHECK(os::boot_id().size() == 36);
}

TEST_CASE("times are written and read as RFC 3339") {
  auto text = "2026-01-31T23:59:58Z";
  auto time = os::parse_utc(text);
  REQUIRE(time);
  CHECK(os::format_utc(*time) == text);
  CHECK(os::format_utc(*time + 999ms) == text);
  CHECK(os::format_utc(os::Clock::system{}) == "1970-01-01T00:00:00Z");
  CHECK(os::format_utc(os::Clock::system{} - 1s) == "1969-12-31T23:59:59Z");
  CHECK(os::format_utc(*os::parse_utc("2024-02-29T00:00:00.123456Z")) == "2024-02-29T00:00:00Z");
  CHECK(os::format_utc(*os::parse_utc("2024-03-01T01:30:00+01:30")) == "2024-03-01T00:00:00Z");
  CHECK(os::format_utc(*os::parse_utc("2024-02-29T23:00:00-01:00")) == "2024-03-01T00:00:00Z");
}

TEST_CASE("what is no time is bad input") {
  for (const char* text :
       {"", "now", "2026-01-31", "2026-01-31T23:59:58", "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T23:60:00Z",
        "2026-01-31T23:59:58Zx", "2026-01-31T23:59:58.Z", "2026-01-31T23:59:58.123",
        "2026-01-31T23:59:58+1:00", "2026-01-31T23:59:58*01:00", " 2026-01-31T23:59:58Z",
        "26-1-31T23:59:58ZZZZZZ"}) {
    INFO(text);
    auto time = os::parse_utc(text);
    REQUIRE_FALSE(time);
    CHECK(time.error().code == Errc::bad_input);
  }
}

TEST_CASE("a terminal is raw while the guard lives, and as before after it") {
  auto pty = os::open_pty({0, 0});
  REQUIRE(pty);
  termios before = {}, within = {}, after = {};
  REQUIRE(::tcgetattr(pty->slave.get(), &before) == 0);
  {
    auto raw = os::RawTerminal::enter(pty->slave.get());
    REQUIRE(raw);
    auto moved = std::move(*raw);
    REQUIRE(::tcgetattr(pty->slave.get(), &within) == 0);
    CHECK((within.c_lflag & (ICANON | ECHO | ISIG)) == 0);
  }
  REQUIRE(::tcgetattr(pty->slave.get(), &after) == 0);
  CHECK(after.c_lflag == before.c_lflag);
  CHECK(after.c_iflag == before.c_iflag);
  auto pipe = os::make_pipe();
  CHECK(os::RawTerminal::enter(pipe->read.get()).error().code == Errc::unsupported);
}

TEST_CASE("a terminal of no size has 80 columns and 24 rows") {
  auto pty = os::open_pty({0, 0});
  REQUIRE(pty);
  auto size = os::window(pty->master.get());
  REQUIRE(size);
  CHECK(size->rows == 24);
  CHECK(size->columns == 80);
  os::set_window(pty->master.get(), {50, 132});
  CHECK(os::window(pty->slave.get())->columns == 132);
  auto pipe = os::make_pipe();
  CHECK_FALSE(os::window(pipe->read.get()));
}

TEST_CASE("errno values become what the caller can act on") {
  CHECK(os::errno_failure(ENOSPC, "x").code == Errc::no_space);
  CHECK(os::errno_failure(EDQUOT, "x").code == Errc::no_space);
  CHECK(os::errno_failure(EACCES, "x").code == Errc::denied);
  CHECK(os::errno_failure(EROFS, "x").code == Errc::denied);
  CHECK(os::errno_failure(ENOENT, "x").code == Errc::not_found);
  CHECK(os::errno_failure(EEXIST, "x").code == Errc::exists);
  CHECK(os::errno_failure(EPIPE, "x").code == Errc::gone);
  CHECK(os::errno_failure(EIO, "the file").code == Errc::io);
  CHECK(os::errno_failure(EIO, "the file").what.starts_with("the file: "));
}
