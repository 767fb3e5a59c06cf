// What the agent must not forget: its id and epoch, sandboxes, user locks, detached jobs, what
// somebody has yet to be told, and a bounded audit trail. SQLite (WAL, synchronous FULL) on a
// thread of its own; every call is awaited on the caller's executor and, but for audit(), is on the
// disk when it returns. Calls are done in the order in which they were made.
//
// A database that is damaged stays where it is, untouched, and open() fails until the operator has
// moved it: beginning with an empty one would silently unlock what people have locked, and a
// service manager that starts us again must not do so either.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "protocol/os/async.h"
#include "protocol/wire/messages.h"
#include "protocol/wire/result.h"

namespace agent {

using protocol::os::awaitable;
using protocol::wire::result;

struct SandboxRecord {
  std::string id;
  std::string user;
  std::string project;
  std::string branch;
  std::string config;
  std::string isolation;         // bwrap or none: what it was made with
  std::string network = "host";  // or none
  protocol::wire::Limits limits;
  bool ready = false;           // its setup has succeeded
  bool synced = false;          // something was synced into it
  std::int64_t created_at = 0;  // seconds since 1970
  std::int64_t used_at = 0;
};

struct UserLockRecord {
  std::string user;
  std::string since;  // RFC 3339
  std::string reason;
  std::string scope;  // of one CI job of that user alone; empty: the user's
};

// A detached job: while it runs it has the lock of the session that started it.
struct JobRecord {
  std::string id;
  std::string sandbox;
  std::string user;
  std::string scope;
  std::string verb;
  std::string command;
  std::string fence;
  std::int64_t started_at = 0;
  std::string state = "running";  // exited, lost (how it ended was not recorded)
  std::int64_t ended_at = 0;      // 0: it has not
  std::optional<int> status;      // when it exited
  std::string signal;             // that ended it
};

// One line for a user who was not there when it happened.
struct NoticeRecord {
  std::int64_t number = 0;  // given by the store
  std::string user;
  std::string text;
};

struct AuditRecord {
  std::int64_t at = 0;  // seconds since 1970
  std::string user;
  std::string action;  // "unlock --force", "exec --force-command", "kill --force" ...
  std::string sandbox;
  std::string detail;
};

class Store {
 public:
  // Opens the database, makes it when it is missing (0600), brings an older one up to date, and
  // counts the epoch up. Blocks: called once, before the loop runs. Errc::unsupported: written by a
  // newer agent (names both versions); Errc::bad_input: damaged, and left as it is; Errc::busy:
  // another process is writing to it; no_space, denied, io.
  static result<std::unique_ptr<Store>> open(const std::filesystem::path& file);
  // Writes what is queued, then closes. Calls that are awaited must have ended.
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  const std::string& agent_id() const;  // 32 hex digits, made once per database
  std::uint64_t epoch() const;  // grows at each open, and is no less than the time in seconds

  // Writes fail with Errc::no_space, denied or io, and then have changed nothing.
  awaitable<result<std::vector<SandboxRecord>>> sandboxes();
  awaitable<result<void>> put_sandbox(SandboxRecord record);  // inserts or replaces
  awaitable<result<void>> remove_sandbox(
      std::string id);  // its jobs too; no error when there is none

  awaitable<result<std::optional<UserLockRecord>>> user_lock();
  // With a notice: both or neither. What it gives back is the notice's number, 0 without one.
  awaitable<result<std::int64_t>> set_user_lock(std::optional<UserLockRecord> lock,
                                                std::optional<NoticeRecord> notice = {});

  awaitable<result<std::vector<NoticeRecord>>> notices();  // oldest first
  // Of one user the newest kMaxNotices are kept.
  awaitable<result<std::int64_t>> add_notice(NoticeRecord notice);
  awaitable<result<void>> remove_notice(std::int64_t number);
  static constexpr std::size_t kMaxNotices = 50;

  awaitable<result<std::vector<JobRecord>>> jobs();  // oldest first
  awaitable<result<void>> put_job(JobRecord record);
  awaitable<result<void>> remove_job(std::string id);

  // Written behind, the newest kMaxAudit rows kept. Never fails and never waits; a flood or a full
  // disk loses rows. The operator reads them with sqlite3: table audit of agent.db.
  void audit(AuditRecord record);
  awaitable<result<std::vector<AuditRecord>>> audit_trail(std::size_t newest);  // newest first
  static constexpr std::size_t kMaxAudit = 10000;

 private:
  struct Worker;
  explicit Store(std::unique_ptr<Worker> worker);
  std::unique_ptr<Worker> worker_;
};

}  // namespace agent
