#include "agent/database.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "protocol/os/fd.h"

namespace agent {

using protocol::wire::Errc;
using protocol::wire::Failure;

namespace {

struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

// Somebody else's backup or inspection may hold a lock for a moment.
constexpr int kBusyMilliseconds = 5000;

int bind(sqlite3_stmt* statement, int index, const Database::Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    return sqlite3_bind_int64(statement, index, *integer);
  }
  const auto& bytes = std::get<std::string>(value);
  return sqlite3_bind_text64(statement, index, bytes.data(), bytes.size(), SQLITE_TRANSIENT,
                             SQLITE_UTF8);
}

Database::Value column(sqlite3_stmt* statement, int index) {
  if (sqlite3_column_type(statement, index) == SQLITE_INTEGER) {
    return std::int64_t{sqlite3_column_int64(statement, index)};
  }
  const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement, index));
  const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement, index));
  return bytes == nullptr ? std::string() : std::string(bytes, size);
}

// Before SQLite looks, because it would make the file 0644 and follow whatever stands there. Its
// -wal and -shm files take the database's mode.
result<void> prepare_file(const std::filesystem::path& file, Database::Mode mode) {
  const int make = mode == Database::Mode::make ? O_CREAT : 0;
  const protocol::os::Fd fd(::open(file.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | make, 0600));
  if (!fd) return protocol::os::errno_failure(errno, file.string());
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return protocol::os::errno_failure(errno, file.string());
  if (!S_ISREG(status.st_mode)) return Failure(Errc::bad_input, file.string() + ": not a file");
  if (::fchmod(fd.get(), 0600) != 0) return protocol::os::errno_failure(errno, file.string());
  return {};
}

}  // namespace

void Database::Close::operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }

Database::Database(std::unique_ptr<sqlite3, Close> handle, std::string name)
    : handle_(std::move(handle)), name_(std::move(name)) {}

Failure Database::failure(int code) const {
  const std::string what = name_ + ": " + sqlite3_errmsg(handle_.get());
  switch (code & 0xff) {  // without the extension
    case SQLITE_FULL:
      return Failure(Errc::no_space, what);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Failure(Errc::bad_input, what);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Failure(Errc::busy, what);
    case SQLITE_PERM:
    case SQLITE_READONLY:
      return Failure(Errc::denied, what);
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
      // A commit that fails sets errno alone: a quota shows as EDQUOT or EFBIG there.
      if (int error = sqlite3_system_errno(handle_.get()); error != 0 || (error = errno) != 0) {
        return protocol::os::errno_failure(error, name_);
      }
      return Failure(Errc::io, what);
    default:
      return Failure(Errc::io, what);
  }
}

result<Database> Database::open(const std::filesystem::path& file, Mode mode) {
  if (auto prepared = prepare_file(file, mode); !prepared) return prepared.error();
  sqlite3* handle = nullptr;
  // No mutex of SQLite's own: one thread at a time is the caller's duty.
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  errno = 0;
  const int code = sqlite3_open_v2(file.c_str(), &handle, flags, nullptr);
  Database database(std::unique_ptr<sqlite3, Close>(handle), file.string());
  if (code != SQLITE_OK) return database.failure(code);
  sqlite3_busy_timeout(handle, kBusyMilliseconds);
  if (auto done = database.execute("PRAGMA synchronous = FULL"); !done) return done.error();
  return database;
}

result<void> Database::execute(const std::string& sql) {
  errno = 0;
  const int code = sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return failure(code);
  return {};
}

result<std::vector<Database::Row>> Database::query(const std::string& sql,
                                                   const std::vector<Value>& values) {
  errno = 0;
  sqlite3_stmt* raw = nullptr;
  int code = sqlite3_prepare_v2(handle_.get(), sql.c_str(), -1, &raw, nullptr);
  const Statement statement(raw);
  if (code != SQLITE_OK) return failure(code);
  for (std::size_t i = 0; i < values.size(); ++i) {
    code = bind(raw, static_cast<int>(i) + 1, values[i]);
    if (code != SQLITE_OK) return failure(code);
  }
  std::vector<Row> rows;
  while ((code = sqlite3_step(raw)) == SQLITE_ROW) {
    Row& row = rows.emplace_back();
    for (int i = 0; i < sqlite3_column_count(raw); ++i) row.push_back(column(raw, i));
  }
  if (code != SQLITE_DONE) return failure(code);
  return rows;
}

result<void> Database::transaction(const std::function<result<void>()>& work) {
  if (auto begun = execute("BEGIN IMMEDIATE"); !begun) return begun;
  auto done = work();
  if (done) done = execute("COMMIT");
  // Some failures have undone it by themselves.
  if (!done && sqlite3_get_autocommit(handle_.get()) == 0) (void)execute("ROLLBACK");
  return done;
}

result<void> Database::check() {
  auto rows = query("PRAGMA quick_check(1)");
  if (!rows) return rows.error();
  const std::string verdict = rows->empty() || (*rows)[0].empty() ? "" : string((*rows)[0][0]);
  if (verdict != "ok") return Failure(Errc::bad_input, name_ + ": " + verdict);
  return {};
}

result<void> Database::log_ahead() {
  auto rows = query("PRAGMA journal_mode = WAL");
  if (!rows) return rows.error();
  const std::string now = rows->empty() ? "" : string((*rows)[0][0]);
  if (now != "wal") return Failure(Errc::unsupported, name_ + ": no log ahead, but " + now);
  return {};
}

std::int64_t number(const Database::Value& value) {
  const auto* integer = std::get_if<std::int64_t>(&value);
  return integer == nullptr ? 0 : *integer;
}

std::string string(const Database::Value& value) {
  const auto* bytes = std::get_if<std::string>(&value);
  return bytes == nullptr ? std::string() : *bytes;
}

}  // namespace agent
