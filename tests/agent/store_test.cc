#include "agent/store.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <csignal>
#include <fstream>
#include <future>

#include "agent/database.h"
#include "agent/schema.h"
#include "protocol/wire/limits.h"
#include "tests/support/catch.h"
#include "tests/support/loop.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/unprivileged.h"

using namespace agent;
using protocol::wire::Errc;
namespace fs = std::filesystem;

namespace {

struct Directory : test::TemporaryDirectory {
  fs::path file() const { return path() / "agent.db"; }
};

// One for all: a store's thread may touch it until the store is gone.
test::Loop& loop() {
  static test::Loop instance;
  return instance;
}

template <class T>
T wait(awaitable<T> work) {
  return loop().run(std::move(work));
}

std::unique_ptr<Store> open(const Directory& directory) {
  auto store = Store::open(directory.file());
  REQUIRE(store);
  return std::move(*store);
}

SandboxRecord sandbox(const std::string& id, std::int64_t created_at = 1) {
  return {.id = id,
          .user = "alice",
          .project = "/home/alice/it's a \"tree\"\n\xff",
          .branch = "main",
          .config = "",
          .isolation = "none",
          .network = "none",
          .limits = {.memory = 1ll << 40, .millicpus = 1500, .pids = 3, .seconds = 60},
          .ready = false,
          .synced = true,
          .created_at = created_at,
          .used_at = 5'000'000'000};
}

JobRecord job(const std::string& id, const std::string& of) {
  return {.id = id,
          .sandbox = of,
          .user = "alice",
          .scope = "ci:generic:host",
          .verb = "exec",
          .command = "make test",
          .fence = "3.14",
          .started_at = 77};
}

std::string read(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
}

}  // namespace

TEST_CASE("a new store has an id and an epoch, and keeps the id and counts the epoch up") {
  const Directory directory;
  std::string id;
  std::uint64_t epoch = 0;
  {
    const auto store = open(directory);
    id = store->agent_id();
    CHECK(id.size() == 32);
    CHECK(id.find_first_not_of("0123456789abcdef") == id.npos);
    epoch = store->epoch();
  }
  const auto store = open(directory);
  CHECK(store->agent_id() == id);
  CHECK(store->epoch() > epoch);
  const Directory other;
  CHECK(open(other)->agent_id() != id);
}

TEST_CASE("a commit is on the disk when it returns, also where the power fails") {
  Directory directory;
  auto database = Database::open(directory.file(), Database::Mode::make);
  REQUIRE(database);
  auto rows = database->query("PRAGMA synchronous");
  REQUIRE(rows);
  CHECK(number(rows->at(0).at(0)) == 2);  // FULL
}

TEST_CASE("only its user may read the store") {
  const Directory directory;
  const auto old = ::umask(0);
  auto store = open(directory);
  REQUIRE(wait(store->put_sandbox(sandbox("a"))));
  for (const auto& entry : fs::directory_iterator(directory.path())) {
    INFO(entry.path());
    CHECK((entry.status().permissions() & fs::perms::all) ==
          (fs::perms::owner_read | fs::perms::owner_write));
  }
  store.reset();
  ::umask(old);
}

TEST_CASE("what was written is there after a reopen, byte for byte") {
  const Directory directory;
  {
    const auto store = open(directory);
    REQUIRE(wait(store->put_sandbox(sandbox("b", 2))));
    REQUIRE(wait(store->put_sandbox(sandbox("a", 1))));
    auto changed = sandbox("b", 2);
    changed.ready = true;
    REQUIRE(wait(store->put_sandbox(changed)));
    REQUIRE(wait(store->put_job(job("j", "a"))));
    auto ended = job("k", "a");
    ended.state = "exited";
    ended.ended_at = 80;
    ended.status = 0;
    REQUIRE(wait(store->put_job(ended)));
    const std::optional<UserLockRecord> lock =
        UserLockRecord{"alice", "2026-01-02T03:04:05Z", std::string("a\0b", 3), "job 1"};
    REQUIRE(wait(store->set_user_lock(lock)));
    store->audit({9, "bob", "unlock --force", "", "of alice"});
  }
  const auto store = open(directory);
  const auto sandboxes = wait(store->sandboxes());
  REQUIRE(sandboxes);
  REQUIRE(sandboxes->size() == 2);
  CHECK((*sandboxes)[0].id == "a");
  CHECK((*sandboxes)[0].project == sandbox("a").project);
  CHECK_FALSE((*sandboxes)[0].ready);
  CHECK((*sandboxes)[0].synced);
  CHECK((*sandboxes)[0].isolation == "none");
  CHECK((*sandboxes)[0].network == "none");
  CHECK((*sandboxes)[0].limits == sandbox("x").limits);
  CHECK((*sandboxes)[0].used_at == 5'000'000'000);
  CHECK((*sandboxes)[1].id == "b");
  CHECK((*sandboxes)[1].ready);
  const auto jobs = wait(store->jobs());
  REQUIRE(jobs);
  REQUIRE(jobs->size() == 2);
  CHECK((*jobs)[0].id == "j");
  CHECK((*jobs)[0].sandbox == "a");
  CHECK((*jobs)[0].verb == "exec");
  CHECK((*jobs)[0].command == "make test");
  CHECK((*jobs)[0].fence == "3.14");
  CHECK((*jobs)[0].scope == "ci:generic:host");
  CHECK((*jobs)[0].started_at == 77);
  CHECK((*jobs)[0].state == "running");
  CHECK_FALSE((*jobs)[0].status);
  CHECK((*jobs)[1].state == "exited");
  CHECK((*jobs)[1].ended_at == 80);
  CHECK((*jobs)[1].status == 0);
  const auto lock = wait(store->user_lock());
  REQUIRE(lock);
  REQUIRE(lock->has_value());
  CHECK((*lock)->user == "alice");
  CHECK((*lock)->since == "2026-01-02T03:04:05Z");
  CHECK((*lock)->reason == std::string("a\0b", 3));
  CHECK((*lock)->scope == "job 1");
  const auto trail = wait(store->audit_trail(10));
  REQUIRE(trail);
  REQUIRE(trail->size() == 1);
  CHECK((*trail)[0].action == "unlock --force");
  CHECK((*trail)[0].at == 9);
}

TEST_CASE("removing a sandbox removes its jobs and no others, and is no error twice") {
  const Directory directory;
  const auto store = open(directory);
  REQUIRE(wait(store->put_sandbox(sandbox("a"))));
  REQUIRE(wait(store->put_sandbox(sandbox("b"))));
  REQUIRE(wait(store->put_job(job("of-a", "a"))));
  REQUIRE(wait(store->put_job(job("of-b", "b"))));
  REQUIRE(wait(store->remove_sandbox("a")));
  REQUIRE(wait(store->remove_sandbox("a")));
  CHECK(wait(store->sandboxes())->size() == 1);
  REQUIRE(wait(store->jobs())->size() == 1);
  CHECK((*wait(store->jobs()))[0].id == "of-b");
  REQUIRE(wait(store->remove_job("of-b")));
  CHECK(wait(store->jobs())->empty());
}

TEST_CASE("a box has one user lock, and unlocking leaves none") {
  const Directory directory;
  const auto store = open(directory);
  CHECK_FALSE(wait(store->user_lock())->has_value());
  REQUIRE(wait(store->set_user_lock(UserLockRecord{"alice", "then", ""})));
  REQUIRE(wait(store->set_user_lock(UserLockRecord{"bob", "now", ""})));
  CHECK((*wait(store->user_lock()))->user == "bob");
  REQUIRE(wait(store->set_user_lock(std::nullopt)));
  CHECK_FALSE(wait(store->user_lock())->has_value());
}

TEST_CASE("the audit trail keeps the newest and cuts what is too long") {
  const Directory directory;
  auto store = open(directory);
  constexpr std::size_t kBatch = 500;  // fewer than may wait
  const std::size_t written = Store::kMaxAudit + 2 * kBatch;
  for (std::size_t i = 0; i < written; ++i) {
    store->audit({static_cast<std::int64_t>(i), "u", "a", "s", "d"});
    if (i % kBatch == 0) (void)wait(store->audit_trail(1));  // until what waits is written
  }
  store->audit({0, "u", "a", "s", std::string(5000, 'x')});
  const auto trail = wait(store->audit_trail(Store::kMaxAudit * 2));
  REQUIRE(trail);
  REQUIRE(trail->size() == Store::kMaxAudit);
  CHECK((*trail)[1].at == static_cast<std::int64_t>(written - 1));
  CHECK(trail->back().at == static_cast<std::int64_t>(written - Store::kMaxAudit + 1));
  CHECK(trail->front().detail.size() == protocol::wire::kMaxTextBytes);
}

TEST_CASE("a flood of audit records neither waits nor grows without bound") {
  const Directory directory;
  const auto store = open(directory);
  for (int i = 0; i < 200'000; ++i) store->audit({i, "u", "a", "s", "d"});
  CHECK_FALSE(wait(store->audit_trail(1))->empty());
}

TEST_CASE("a notice stays until it is removed, and comes with the change that it tells of") {
  const Directory directory;
  std::int64_t first = 0;
  {
    const auto store = open(directory);
    first = *wait(store->add_notice({.user = "alice", .text = "one"}));
    CHECK(first > 0);
    CHECK(*wait(store->set_user_lock(UserLockRecord{"bob", "now", ""})) == 0);
    CHECK(*wait(store->set_user_lock(std::nullopt, NoticeRecord{.user = "bob", .text = "two"})) >
          first);
  }
  const auto store = open(directory);
  REQUIRE(wait(store->notices())->size() == 2);
  CHECK((*wait(store->notices()))[1].text == "two");
  REQUIRE(wait(store->remove_notice(first)));
  REQUIRE(wait(store->notices())->size() == 1);
  CHECK((*wait(store->notices()))[0].user == "bob");
}

TEST_CASE("of one user's notices the newest are kept, and no others go") {
  const Directory directory;
  const auto store = open(directory);
  REQUIRE(wait(store->add_notice({.user = "alice", .text = "hers"})));
  for (std::size_t i = 0; i < Store::kMaxNotices + 5; ++i) {
    REQUIRE(wait(store->add_notice({.user = "bob", .text = std::to_string(i)})));
  }
  const auto notices = wait(store->notices());
  REQUIRE(notices->size() == Store::kMaxNotices + 1);
  CHECK((*notices)[0].user == "alice");
  CHECK((*notices)[1].text == "5");
}

// A box is updated while people have locked it: tables as the first version had them.
TEST_CASE("a store of the first version keeps its user lock and its sandboxes") {
  const Directory directory;
  {
    auto database = open_with_schema(directory.file(), schema_steps().first(1));
    REQUIRE(database);
    REQUIRE(
        database->execute("INSERT INTO user_locks VALUES (0, 'alice', 'then', 'demo');"
                          "INSERT INTO sandboxes VALUES"
                          " ('a', 'alice', 'p', 'b', '', 'none', 1, 1, 2, 3);"));
  }
  const auto store = open(directory);
  const auto lock = wait(store->user_lock());
  REQUIRE(lock);
  REQUIRE(lock->has_value());
  CHECK((*lock)->user == "alice");
  CHECK((*lock)->reason == "demo");
  CHECK((*lock)->scope.empty());
  CHECK(wait(store->sandboxes())->size() == 1);
}

TEST_CASE("calls are done in the order in which they were made") {
  const Directory directory;
  const auto store = open(directory);
  std::vector<std::future<result<void>>> done;
  for (int i = 0; i < 20; ++i) {
    auto record = sandbox("a");
    record.used_at = i;
    done.push_back(boost::asio::co_spawn(loop().context(), store->put_sandbox(record),
                                         boost::asio::use_future));
  }
  REQUIRE(wait(store->user_lock()));
  for (auto& one : done) CHECK(one.get());
  CHECK((*wait(store->sandboxes()))[0].used_at == 19);
}

// The agent is killed with -9: whatever was answered before must be there, without a clean close.
TEST_CASE("what was answered survives a kill") {
  const Directory directory;
  int answered[2];
  REQUIRE(::pipe(answered) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    auto store = Store::open(directory.file());
    bool good = store.has_value();
    for (int i = 0; good && i < 50; ++i) {
      good = wait((*store)->put_sandbox(sandbox(std::to_string(i), i))).has_value();
    }
    const UserLockRecord lock{"alice", "then", ""};
    good = good && wait((*store)->set_user_lock(lock)).has_value();
    (void)!::write(answered[1], good ? "y" : "n", 1);
    ::pause();
    ::_exit(0);
  }
  char word = 'n';
  REQUIRE(::read(answered[0], &word, 1) == 1);
  CHECK(word == 'y');
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(answered[0]);
  ::close(answered[1]);

  const auto store = open(directory);
  CHECK(wait(store->sandboxes())->size() == 50);
  CHECK((*wait(store->user_lock()))->user == "alice");
}

TEST_CASE("a store that was cut short, overwritten or emptied is refused and left as it is") {
  const Directory directory;
  {
    const auto store = open(directory);
    for (int i = 0; i < 6; ++i) {
      auto record = sandbox(std::to_string(i));
      record.project = std::string(3000, 'p');
      REQUIRE(wait(store->put_sandbox(record)));
    }
  }
  const std::string good = read(directory.file());
  REQUIRE(good.size() > 3 * 4096);
  std::string damaged;
  SECTION("emptied") {}
  SECTION("overwritten") { damaged = "not a database at all, but long enough to be looked at"; }
  SECTION("its header is wrong") {
    damaged = good;
    damaged[3] ^= 0x55;
  }
  SECTION("cut in the middle of a page") { damaged = good.substr(0, good.size() - 5000); }
  SECTION("a page is zeros") {
    damaged = good;
    std::fill_n(damaged.begin() + 2 * 4096, 4096, '\0');
  }
  write(directory.file(), damaged);
  for (int attempt = 0; attempt < 2; ++attempt) {  // a restart does not change its mind
    const auto store = Store::open(directory.file());
    REQUIRE_FALSE(store);
    CHECK(store.error().code == Errc::bad_input);
    CHECK(store.error().what.find(directory.file().string()) != std::string::npos);
    CHECK(read(directory.file()) == damaged);
  }
  // Moved away by the operator, it no longer stands in the way.
  fs::rename(directory.file(), directory.path() / "kept");
  for (const char* part : {"-wal", "-shm"}) fs::remove(directory.file().string() + part);
  CHECK(Store::open(directory.file()));
}

TEST_CASE("another program's database is refused and left as it is") {
  const Directory directory;
  {
    auto other = Database::open(directory.file(), Database::Mode::make);
    REQUIRE(other);
    REQUIRE(other->execute("CREATE TABLE theirs (x)"));
  }
  const std::string before = read(directory.file());
  const auto store = Store::open(directory.file());
  REQUIRE_FALSE(store);
  CHECK(store.error().code == Errc::bad_input);
  CHECK(read(directory.file()) == before);
}

TEST_CASE("a newer agent's store is refused by naming both versions") {
  const Directory directory;
  open(directory).reset();
  {
    auto database = Database::open(directory.file(), Database::Mode::existing);
    REQUIRE(database->execute("PRAGMA user_version = 712"));
  }
  const auto store = Store::open(directory.file());
  REQUIRE_FALSE(store);
  CHECK(store.error().code == Errc::unsupported);
  CHECK(store.error().what.find("712") != std::string::npos);
  CHECK(store.error().what.find("up to " + std::to_string(schema_steps().size())) !=
        std::string::npos);
}

TEST_CASE("a store of the first version keeps its sandboxes, without limits") {
  const Directory directory;
  {
    auto database = open_with_schema(directory.file(), schema_steps().first(1));
    REQUIRE(database);
    REQUIRE(
        database->execute("INSERT INTO sandboxes VALUES ('a', 'alice', '/p', 'main', '', 'none',"
                          " 1, 1, 7, 8)"));
  }
  const auto store = open(directory);
  const auto sandboxes = wait(store->sandboxes());
  REQUIRE(sandboxes);
  REQUIRE(sandboxes->size() == 1);
  CHECK((*sandboxes)[0].network == "host");
  CHECK((*sandboxes)[0].limits == protocol::wire::Limits());
  CHECK((*sandboxes)[0].ready);
  CHECK((*sandboxes)[0].used_at == 8);
}

TEST_CASE("an older store is brought up to date step by step, and a failing step is undone") {
  const Directory directory;
  const char* first = "CREATE TABLE t (a); INSERT INTO t VALUES (1)";
  const char* second = "ALTER TABLE t ADD COLUMN b; UPDATE t SET b = a + 1";
  const char* broken = "UPDATE t SET a = 50; this is no statement";
  {
    const char* steps[] = {first};
    REQUIRE(open_with_schema(directory.file(), steps));
  }
  {
    const char* steps[] = {first, second, broken};
    CHECK_FALSE(open_with_schema(directory.file(), steps));
  }
  const char* steps[] = {first, second};
  auto database = open_with_schema(directory.file(), steps);
  REQUIRE(database);
  const auto rows = database->query("SELECT a, b FROM t");
  REQUIRE(rows);
  CHECK(number((*rows)[0][0]) == 1);
  CHECK(number((*rows)[0][1]) == 2);
}

TEST_CASE("the epoch of an old copy that was put back is later than all that was before") {
  const Directory directory;
  open(directory);
  fs::copy_file(directory.path() / "agent.db", directory.path() / "copy");
  std::uint64_t before = 0;
  {
    auto copy = Database::open(directory.path() / "copy", Database::Mode::existing);
    REQUIRE(copy);
    REQUIRE(copy->query("UPDATE meta SET value = value - 100000 WHERE name = 'epoch'"));
    before = open(directory)->epoch();
  }
  for (const char* part : {"agent.db", "agent.db-wal", "agent.db-shm"})
    fs::remove(directory.path() / part);
  fs::rename(directory.path() / "copy", directory.path() / "agent.db");
  CHECK(open(directory)->epoch() + 60 > before);  // the clock may have been set meanwhile
}

TEST_CASE("a store that was being made when the machine stopped is made again") {
  const Directory directory;
  write(directory.path() / "agent.db.new", "half of a database");
  write(directory.path() / "agent.db.new-wal", "and of its log");
  CHECK(open(directory)->agent_id().size() == 32);
  CHECK_FALSE(fs::exists(directory.path() / "agent.db.new"));
}

TEST_CASE("a place where no store can be is named") {
  const Directory directory;
  SECTION("a directory stands there") {
    fs::create_directory(directory.file());
    const auto store = Store::open(directory.file());
    REQUIRE_FALSE(store);
    CHECK(store.error().what.find(directory.file().string()) != std::string::npos);
    CHECK(fs::is_directory(directory.file()));
  }
  SECTION("its directory is missing") {
    const auto store = Store::open(directory.path() / "missing" / "agent.db");
    REQUIRE_FALSE(store);
    CHECK(store.error().code == Errc::not_found);
  }
  SECTION("its directory is read-only") {
    const test::Unprivileged unprivileged;
    fs::permissions(directory.path(), fs::perms::owner_read | fs::perms::owner_exec);
    const auto store = Store::open(directory.file());
    fs::permissions(directory.path(), fs::perms::owner_all);
    REQUIRE_FALSE(store);
    CHECK(store.error().code == Errc::denied);
  }
  SECTION("a link stands there") {
    write(directory.path() / "elsewhere", "");
    fs::create_symlink(directory.path() / "elsewhere", directory.file());
    CHECK_FALSE(Store::open(directory.file()));
    CHECK(fs::file_size(directory.path() / "elsewhere") == 0);
  }
}

TEST_CASE("a full disk is no_space, changes nothing, and is forgotten once there is space") {
  const Directory directory;
  const auto store = open(directory);
  REQUIRE(wait(store->put_sandbox(sandbox("a"))));
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const rlimit full{fs::file_size(directory.file().string() + "-wal"), old.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &full) == 0);
  const auto put = wait(store->put_sandbox(sandbox("b")));
  const auto removed = wait(store->remove_sandbox("a"));
  store->audit({1, "u", "a", "s", "d"});
  const auto seen = wait(store->sandboxes());
  ::setrlimit(RLIMIT_FSIZE, &old);

  REQUIRE_FALSE(put);
  CHECK(put.error().code == Errc::no_space);
  REQUIRE_FALSE(removed);
  CHECK(removed.error().code == Errc::no_space);
  REQUIRE(seen);
  REQUIRE(seen->size() == 1);
  CHECK((*seen)[0].id == "a");
  REQUIRE(wait(store->put_sandbox(sandbox("b"))));
  CHECK(wait(store->sandboxes())->size() == 2);
}

TEST_CASE("SQLite's own word for a full disk is no_space too") {
  const Directory directory;
  auto database = Database::open(directory.file(), Database::Mode::make);
  REQUIRE(database);
  REQUIRE(database->execute("CREATE TABLE t (a); PRAGMA max_page_count = 3"));
  const auto full = database->execute("INSERT INTO t VALUES (randomblob(100000))");
  REQUIRE_FALSE(full);
  CHECK(full.error().code == Errc::no_space);
}
