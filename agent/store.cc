#include "agent/store.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <mutex>
#include <utility>

#include "agent/database.h"
#include "agent/schema.h"
#include "protocol/os/offload.h"
#include "protocol/wire/limits.h"

namespace agent {

using protocol::wire::Errc;
using protocol::wire::Failure;

namespace {

// Audit records that wait for the disk; more are dropped.
constexpr std::size_t kMaxPending = 1000;

std::int64_t bit(bool value) { return value ? 1 : 0; }

std::string shortened(const std::string& text) {
  return text.substr(0, protocol::wire::kMaxTextBytes);
}

result<void> without_rows(result<std::vector<Database::Row>> rows) {
  if (!rows) return rows.error();
  return {};
}

SandboxRecord sandbox_of(const Database::Row& row) {
  return {.id = string(row[0]),
          .user = string(row[1]),
          .project = string(row[2]),
          .branch = string(row[3]),
          .config = string(row[4]),
          .isolation = string(row[5]),
          .network = string(row[6]),
          .limits = {.memory = number(row[7]),
                     .millicpus = number(row[8]),
                     .pids = number(row[9]),
                     .seconds = number(row[10])},
          .ready = number(row[11]) != 0,
          .synced = number(row[12]) != 0,
          .created_at = number(row[13]),
          .used_at = number(row[14])};
}

JobRecord job_of(const Database::Row& row) {
  JobRecord job{.id = string(row[0]),
                .sandbox = string(row[1]),
                .user = string(row[2]),
                .scope = string(row[3]),
                .verb = string(row[4]),
                .command = string(row[5]),
                .fence = string(row[6]),
                .started_at = number(row[7]),
                .state = string(row[8]),
                .ended_at = number(row[9]),
                .signal = string(row[11])};
  if (number(row[10]) >= 0) job.status = static_cast<int>(number(row[10]));
  return job;
}

NoticeRecord notice_of(const Database::Row& row) {
  return {.number = number(row[0]), .user = string(row[1]), .text = string(row[2])};
}

// Its number.
result<std::int64_t> insert(Database& database, const NoticeRecord& notice) {
  auto added = database.query("INSERT INTO notices (user, text) VALUES (?1, ?2)",
                              {notice.user, shortened(notice.text)});
  if (!added) return added.error();
  auto cut = database.query(
      "DELETE FROM notices WHERE user = ?1 AND number NOT IN"
      " (SELECT number FROM notices WHERE user = ?1 ORDER BY number DESC LIMIT ?2)",
      {notice.user, static_cast<std::int64_t>(Store::kMaxNotices)});
  if (!cut) return cut.error();
  auto rows = database.query("SELECT max(number) FROM notices");
  if (!rows) return rows.error();
  return number((*rows)[0][0]);
}

AuditRecord audit_of(const Database::Row& row) {
  return {.at = number(row[0]),
          .user = string(row[1]),
          .action = string(row[2]),
          .sandbox = string(row[3]),
          .detail = string(row[4])};
}

template <class Record>
result<std::vector<Record>> records(result<std::vector<Database::Row>> rows,
                                    Record (*read)(const Database::Row&)) {
  if (!rows) return rows.error();
  std::vector<Record> out;
  out.reserve(rows->size());
  for (const auto& row : *rows) out.push_back(read(row));
  return out;
}

}  // namespace

// The database belongs to the pool's one thread once that has started; the pool ends first.
struct Store::Worker {
  explicit Worker(Database opened) : database(std::move(opened)) {}

  // In order, because the pool has one thread. `work` must be a named local of the caller: gcc 12
  // copies an unnamed one bit by bit into the coroutine and then destroys it twice.
  template <class F>
  auto run(F work) {
    return protocol::os::offload(thread, [this, work = std::move(work)] { return work(database); });
  }
  void write_audit();

  Database database;
  std::string agent_id;
  std::uint64_t epoch = 0;

  std::mutex mutex;
  std::vector<AuditRecord> pending;  // guarded by mutex
  bool writing = false;              // guarded by mutex: a write_audit is queued

  boost::asio::thread_pool thread{1};
};

void Store::Worker::write_audit() {
  std::vector<AuditRecord> batch;
  {
    const std::lock_guard guard(mutex);
    batch.swap(pending);
    writing = false;
  }
  // What cannot be written is lost: nobody waits for it, and the disk that is full has told others.
  (void)database.transaction([&]() -> result<void> {
    for (const AuditRecord& record : batch) {
      auto done = database.query(
          "INSERT INTO audit (at, user, action, sandbox, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
          {record.at, shortened(record.user), shortened(record.action), shortened(record.sandbox),
           shortened(record.detail)});
      if (!done) return done.error();
    }
    return without_rows(
        database.query("DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - ?1",
                       {static_cast<std::int64_t>(kMaxAudit)}));
  });
}

result<std::unique_ptr<Store>> Store::open(const std::filesystem::path& file) {
  auto database = open_with_schema(file, schema_steps());
  if (!database) return database.error();
  auto worker = std::make_unique<Worker>(std::move(*database));
  Database& opened = worker->database;
  auto counted = opened.transaction([&]() -> result<void> {
    // Also beyond what a supervisor has seen when the database is an older copy that was put back.
    auto grown = opened.query(
        "UPDATE meta SET value = max(value + 1, CAST(strftime('%s', 'now') AS INTEGER)) "
        "WHERE name = 'epoch'");
    if (!grown) return grown.error();
    const auto rows = opened.query("SELECT value FROM meta ORDER BY name");  // agent, epoch
    if (!rows) return rows.error();
    if (rows->size() != 2) return Failure(Errc::bad_input, file.string() + ": its id is missing");
    worker->agent_id = string((*rows)[0][0]);
    worker->epoch = static_cast<std::uint64_t>(number((*rows)[1][0]));
    return {};
  });
  if (!counted) return counted.error();
  return std::unique_ptr<Store>(new Store(std::move(worker)));
}

Store::Store(std::unique_ptr<Worker> worker) : worker_(std::move(worker)) {}

Store::~Store() { worker_->thread.join(); }

const std::string& Store::agent_id() const { return worker_->agent_id; }

std::uint64_t Store::epoch() const { return worker_->epoch; }

// ---- sandboxes

awaitable<result<std::vector<SandboxRecord>>> Store::sandboxes() {
  auto work = [](Database& database) {
    return records(
        database.query("SELECT id, user, project, branch, config, isolation, network, memory,"
                       " millicpus, pids, seconds, ready, synced, created_at, used_at FROM "
                       "sandboxes ORDER BY created_at, id"),
        sandbox_of);
  };
  co_return co_await worker_->run(std::move(work));
}

awaitable<result<void>> Store::put_sandbox(SandboxRecord record) {
  auto work = [r = std::move(record)](Database& database) {
    return without_rows(database.query(
        "INSERT OR REPLACE INTO sandboxes (id, user, project, branch, config, isolation, network,"
        " memory, millicpus, pids, seconds, ready, synced, created_at, used_at)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        {r.id, r.user, r.project, r.branch, r.config, r.isolation, r.network, r.limits.memory,
         r.limits.millicpus, r.limits.pids, r.limits.seconds, bit(r.ready), bit(r.synced),
         r.created_at, r.used_at}));
  };
  co_return co_await worker_->run(std::move(work));
}

awaitable<result<void>> Store::remove_sandbox(std::string id) {
  auto work = [id = std::move(id)](Database& database) {
    return database.transaction([&]() -> result<void> {
      auto jobs = database.query("DELETE FROM jobs WHERE sandbox = ?1", {id});
      if (!jobs) return jobs.error();
      return without_rows(database.query("DELETE FROM sandboxes WHERE id = ?1", {id}));
    });
  };
  co_return co_await worker_->run(std::move(work));
}

// ---- the user lock

awaitable<result<std::optional<UserLockRecord>>> Store::user_lock() {
  auto work = [](Database& database) -> result<std::optional<UserLockRecord>> {
    const auto rows = database.query("SELECT user, since, reason, scope FROM user_locks");
    if (!rows) return rows.error();
    if (rows->empty()) return std::optional<UserLockRecord>();
    const auto& row = (*rows)[0];
    return std::optional(
        UserLockRecord{string(row[0]), string(row[1]), string(row[2]), string(row[3])});
  };
  co_return co_await worker_->run(std::move(work));
}

awaitable<result<std::int64_t>> Store::set_user_lock(std::optional<UserLockRecord> lock,
                                                     std::optional<NoticeRecord> notice) {
  auto work = [lock = std::move(lock),
               notice = std::move(notice)](Database& database) -> result<std::int64_t> {
    std::int64_t told = 0;
    auto changed = database.transaction([&]() -> result<void> {
      auto set = lock ? database.query(
                            "INSERT OR REPLACE INTO user_locks"
                            " (box, user, since, reason, scope) VALUES (0, ?1, ?2, ?3, ?4)",
                            {lock->user, lock->since, lock->reason, lock->scope})
                      : database.query("DELETE FROM user_locks");
      if (!set) return set.error();
      if (!notice) return {};
      auto added = insert(database, *notice);
      if (!added) return added.error();
      told = *added;
      return {};
    });
    if (!changed) return changed.error();
    return told;
  };
  co_return co_await worker_->run(std::move(work));
}

// ---- notices

awaitable<result<std::vector<NoticeRecord>>> Store::notices() {
  auto work = [](Database& database) {
    return records(database.query("SELECT number, user, text FROM notices ORDER BY number"),
                   notice_of);
  };
  co_return co_await worker_->run(std::move(work));
}

awaitable<result<std::int64_t>> Store::add_notice(NoticeRecord notice) {
  auto work = [notice = std::move(notice)](Database& database) -> result<std::int64_t> {
    std::int64_t told = 0;
    auto added = database.transaction([&]() -> result<void> {
      auto inserted = insert(database, notice);
      if (!inserted) return inserted.error();
      told = *inserted;
      return {};
    });
    if (!added) return added.error();
    return told;
  };
  co_return co_await worker_->run(std::move(work));
}

awaitable<result<void>> Store::remove_notice(std::int64_t number) {
  auto work = [number](Database& database) {
    return without_rows(database.query("DELETE FROM notices WHERE number = ?1", {number}));
  };
  co_return co_await worker_->run(std::move(work));
}

// ---- jobs

awaitable<result<std::vector<JobRecord>>> Store::jobs() {
  auto work = [](Database& database) {
    return records(database.query("SELECT id, sandbox, user, scope, verb, command, fence,"
                                  " started_at, state, ended_at, status, signal FROM jobs"
                                  " ORDER BY started_at, id"),
                   job_of);
  };
  co_return co_await worker_->run(std::move(work));
}

awaitable<result<void>> Store::put_job(JobRecord record) {
  auto work = [r = std::move(record)](Database& database) {
    return without_rows(database.query(
        "INSERT OR REPLACE INTO jobs (id, sandbox, user, scope, verb, command, fence, detached,"
        " started_at, state, ended_at, status, signal)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?9, ?10, ?11, ?12)",
        {r.id, r.sandbox, r.user, r.scope, r.verb, r.command, r.fence, r.started_at, r.state,
         r.ended_at, static_cast<std::int64_t>(r.status.value_or(-1)), r.signal}));
  };
  co_return co_await worker_->run(std::move(work));
}

awaitable<result<void>> Store::remove_job(std::string id) {
  auto work = [id = std::move(id)](Database& database) {
    return without_rows(database.query("DELETE FROM jobs WHERE id = ?1", {id}));
  };
  co_return co_await worker_->run(std::move(work));
}

// ---- the audit trail

void Store::audit(AuditRecord record) {
  {
    const std::lock_guard guard(worker_->mutex);
    if (worker_->pending.size() >= kMaxPending) return;
    worker_->pending.push_back(std::move(record));
    if (std::exchange(worker_->writing, true)) return;
  }
  boost::asio::post(worker_->thread, [worker = worker_.get()] { worker->write_audit(); });
}

awaitable<result<std::vector<AuditRecord>>> Store::audit_trail(std::size_t newest) {
  auto work = [newest](Database& database) {
    return records(database.query("SELECT at, user, action, sandbox, detail FROM audit"
                                  " ORDER BY number DESC LIMIT ?1",
                                  {static_cast<std::int64_t>(std::min(newest, kMaxAudit))}),
                   audit_of);
  };
  co_return co_await worker_->run(std::move(work));
}

}  // namespace agent
