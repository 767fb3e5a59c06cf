// From a key to a sandbox: finds the entry in the storage, or makes the sandbox, once, however many
// ask at the same moment.
//
// Two locks, never nested: the storage's flock around each read-modify-write, and one starter lock
// per key, held by whoever makes that sandbox for as long as it takes. Both die with their holder:
// a killed starter leaves a *starting* entry, and the next one goes on with the same id. Knows
// storage and locks; how a sandbox is made is SandboxStarter's business.
#pragma once

#include <boost/asio/thread_pool.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/environment.h"
#include "cli/error.h"
#include "cli/output.h"
#include "cli/storage.h"
#include "protocol/os/async.h"

namespace cli {

// The start failed for good. `ended`: nothing of it is left on the box.
struct StartFailed : std::runtime_error {
  StartFailed(UserError why, bool nothing_left)
      : std::runtime_error(why.what()), error(std::move(why)), ended(nothing_left) {}
  UserError error;
  bool ended;
};

// A sandbox that its box has, though nothing of it is on record here.
struct Unrecorded {
  std::string id;
  std::string agent;
};

class SandboxStarter {
 public:
  virtual ~SandboxStarter() = default;
  // Makes the sandbox with this entry's id, or goes on making it: idempotent. Ends those in
  // entry.ending first. Returns the agent's id. Throws StartFailed or UserError.
  virtual protocol::os::awaitable<std::string> start(const Entry& entry) = 0;
  // The sandbox of this entry's key that the box has already and that is none of `on_record`, as
  // after the storage was damaged; std::nullopt: there is none. Throws UserError.
  virtual protocol::os::awaitable<std::optional<Unrecorded>> find_unrecorded(
      const Entry& entry, std::vector<std::string> on_record) = 0;
  // Ends what start() has made: nobody wants it any more. Best effort.
  virtual protocol::os::awaitable<void> abandon(const Entry& entry) = 0;
};

struct ResolveRequest {
  Key key;
  bool config_named =
      false;         // otherwise, and without a default file, the branch's only sandbox will do
  bool make = true;  // false: one that is not there is an error
  bool wait = true;  // false: one that another process is starting is returned as it is
  // For that process; below zero: without limit, 0: not at all.
  std::int64_t wait_seconds = -1;
  bool use = true;  // false: it is only looked at
  std::string config_digest;
};

struct Resolved {
  Entry entry;
  bool made = false;  // by this call
};

class Resolver {
 public:
  // `ancestors`: of these commits, those that HEAD descends from (project.h); called on a pool
  // thread.
  using Ancestors =
      std::function<std::vector<std::string>(const std::vector<std::string>& commits)>;

  Resolver(protocol::os::executor executor, boost::asio::thread_pool& pool, Output& output,
           Paths paths);

  // The storage, locked. Says so when that takes long; says where a damaged file was put.
  protocol::os::awaitable<std::unique_ptr<LockedStorage>> lock();
  // The starter lock of a key. Throws UserError: busy or timed out when another process keeps it
  // for longer than that.
  protocol::os::awaitable<protocol::os::FileLock> lock_starter(const Key& key,
                                                               std::int64_t wait_seconds);
  std::optional<protocol::os::FileLock> try_lock_starter(const Key& key);

  // Throws UserError.
  protocol::os::awaitable<Resolved> resolve(ResolveRequest request, SandboxStarter& starter);

  // Replaces a sandbox by a new one. `take_old` makes sure, before anything is changed, that nobody
  // uses the old one; `end_old` ends it once the storage names the new one, or says why it goes on:
  // then it is on record again, and that is thrown. Both are called at most once, when there is an
  // old one.
  struct Replaced {
    std::string old_id;  // empty: there was none
    Entry entry;
  };
  protocol::os::awaitable<Replaced> replace(
      ResolveRequest request, SandboxStarter& starter,
      std::function<protocol::os::awaitable<void>(Entry)> take_old,
      std::function<protocol::os::awaitable<std::optional<UserError>>()> end_old);

  // That agent says that this sandbox is gone: the entry is deleted if it still is the same one.
  protocol::os::awaitable<void> forget(std::string id, std::string agent);

  // An entry of `detached@<commit>` goes on as the one of `key` when HEAD has moved on from that
  // commit.
  protocol::os::awaitable<void> adopt_detached(const Key& key, Ancestors ancestors);

 private:
  std::filesystem::path starter_file(const Key& key) const;
  // With `on_record`, one that the box has and that is none of these is taken instead.
  protocol::os::awaitable<Resolved> make(Entry entry, SandboxStarter& starter,
                                         std::optional<std::vector<std::string>> on_record);
  Storage storage_;
  std::filesystem::path starters_;
  protocol::os::executor executor_;
  boost::asio::thread_pool& pool_;
  Output& output_;
};

// The entry that a request means; nullptr: none. Throws UserError when several could be meant.
Entry* choose(LockedStorage& storage, const ResolveRequest& request);

// The entry with this id, or with this beginning of an id if it is the only one (6 digits at
// least).
Entry* find_by_id(LockedStorage& storage, const std::string& id);

}  // namespace cli
