#include "agent/schema.h"

#include <array>
#include <string>
#include <system_error>

#include "protocol/os/fd.h"
#include "protocol/os/paths.h"

namespace agent {

using protocol::wire::Errc;
using protocol::wire::Failure;

namespace {

namespace fs = std::filesystem;

constexpr std::array kSteps{
    R"sql(
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('agent', lower(hex(randomblob(16)))), ('epoch', 0);

CREATE TABLE sandboxes (
  id TEXT PRIMARY KEY,
  user TEXT NOT NULL,
  project TEXT NOT NULL,
  branch TEXT NOT NULL,
  config TEXT NOT NULL,
  isolation TEXT NOT NULL,
  ready INTEGER NOT NULL,
  synced INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  used_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE user_locks (
  box INTEGER PRIMARY KEY CHECK (box = 0),  -- one box, one reservation
  user TEXT NOT NULL,
  since TEXT NOT NULL,
  reason TEXT NOT NULL
);

CREATE TABLE jobs (
  id TEXT PRIMARY KEY,
  sandbox TEXT NOT NULL,
  user TEXT NOT NULL,
  verb TEXT NOT NULL,
  command TEXT NOT NULL,
  fence TEXT NOT NULL,
  detached INTEGER NOT NULL,
  started_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX jobs_of_sandbox ON jobs (sandbox);

CREATE TABLE audit (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  user TEXT NOT NULL,
  action TEXT NOT NULL,
  sandbox TEXT NOT NULL,
  detail TEXT NOT NULL
);
)sql",
    R"sql(
ALTER TABLE user_locks ADD COLUMN scope TEXT NOT NULL DEFAULT '';

ALTER TABLE jobs ADD COLUMN scope TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN state TEXT NOT NULL DEFAULT 'running';  -- or exited, lost
ALTER TABLE jobs ADD COLUMN ended_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN status INTEGER NOT NULL DEFAULT -1;     -- -1: none
ALTER TABLE jobs ADD COLUMN signal TEXT NOT NULL DEFAULT '';

CREATE TABLE notices (  -- what somebody has to be told when next seen
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  user TEXT NOT NULL,
  text TEXT NOT NULL
);
)sql",
    R"sql(
ALTER TABLE sandboxes ADD COLUMN network TEXT NOT NULL DEFAULT 'host';
ALTER TABLE sandboxes ADD COLUMN memory INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN millicpus INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN pids INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN seconds INTEGER NOT NULL DEFAULT 0;
)sql"};

result<std::int64_t> pragma(Database& database, const std::string& name) {
  auto rows = database.query("PRAGMA " + name);
  if (!rows) return rows.error();
  return rows->empty() || (*rows)[0].empty() ? 0 : number((*rows)[0][0]);
}

// Does the steps that are missing, each in one transaction with the count of those done.
result<void> bring_up_to_date(Database& database, std::int64_t done,
                              std::span<const char* const> steps) {
  for (auto next = static_cast<std::size_t>(done); next < steps.size(); ++next) {
    auto stepped = database.transaction([&]() -> result<void> {
      if (auto ran = database.execute(steps[next]); !ran) return ran;
      return database.execute("PRAGMA user_version = " + std::to_string(next + 1));
    });
    if (!stepped) return stepped;
  }
  return {};
}

// Beside its name first: whatever stands under the name itself is complete.
result<void> make(const fs::path& file, std::span<const char* const> steps) {
  const fs::path unfinished = file.string() + ".new";
  std::error_code ignored;
  for (const char* part : {"", "-wal", "-shm"}) fs::remove(unfinished.string() + part, ignored);
  {
    auto database = Database::open(unfinished, Database::Mode::make);
    if (!database) return database.error();
    if (auto done = bring_up_to_date(*database, 0, steps); !done) return done;
    if (auto logged = database->log_ahead(); !logged) return logged;
    auto named = database->execute("PRAGMA application_id = " + std::to_string(kApplicationId));
    if (!named) return named;
    // Into the file itself: a -wal beside it would keep the other name.
    if (auto moved = database->query("PRAGMA wal_checkpoint(TRUNCATE)"); !moved) {
      return moved.error();
    }
  }
  if (::rename(unfinished.c_str(), file.c_str()) != 0) {
    return protocol::os::errno_failure(errno, file.string());
  }
  return protocol::os::sync_directory(file.parent_path());
}

}  // namespace

std::span<const char* const> schema_steps() { return kSteps; }

result<Database> open_with_schema(const fs::path& file, std::span<const char* const> steps) {
  std::error_code error;
  const auto status = fs::symlink_status(file, error);
  if (status.type() == fs::file_type::not_found) {
    if (auto made = make(file, steps); !made) return made.error();
  } else if (!error && fs::is_regular_file(status) && fs::file_size(file, error) == 0 && !error) {
    return Failure(Errc::bad_input, file.string() + ": empty");
  }
  auto database = Database::open(file, Database::Mode::existing);
  if (!database) return database;
  if (auto whole = database->check(); !whole) return whole.error();
  const auto application = pragma(*database, "application_id");
  if (!application) return application.error();
  if (*application != kApplicationId) {
    return Failure(Errc::bad_input, file.string() + ": a database of another program");
  }
  const auto version = pragma(*database, "user_version");
  if (!version) return version.error();
  if (*version < 0 || static_cast<std::size_t>(*version) > steps.size()) {
    return Failure(Errc::unsupported,
                   file.string() + ": written by a newer agent, with tables of version " +
                       std::to_string(*version) + "; this one knows versions up to " +
                       std::to_string(steps.size()));
  }
  if (auto logged = database->log_ahead(); !logged) return logged.error();
  if (auto done = bring_up_to_date(*database, *version, steps); !done) return done.error();
  return database;
}

}  // namespace agent
