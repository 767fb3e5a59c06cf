#include "cli/resolve.h"

#include <algorithm>

#include "cli/duration.h"
#include "cli/project.h"
#include "cli/waiting_line.h"
#include "protocol/os/offload.h"
#include "protocol/os/paths.h"

namespace cli {
namespace os = protocol::os;

namespace {

UserError lock_unusable(const protocol::wire::Failure& failure) {
  return UserError("storage", "cannot lock " + failure.what,
                   "Make that directory writable, or set SANDBOX_STATE_DIR to one that is.");
}

std::string branch_text(const Key& key) {
  return key.branch.empty() ? "" : " on branch " + key.branch;
}

std::vector<std::string> ids_on_record(LockedStorage& storage) {
  std::vector<std::string> ids;
  for (const auto& entry : storage.entries()) {
    ids.push_back(entry.id);
    ids.insert(ids.end(), entry.ending.begin(), entry.ending.end());
  }
  return ids;
}

Entry fresh_entry(const ResolveRequest& request) {
  Entry entry;
  entry.key = request.key;
  entry.id = os::random_hex(32);
  entry.state = EntryState::starting;
  entry.config_digest = request.config_digest;
  entry.created_at = timestamp();
  entry.used_at = entry.created_at;
  return entry;
}

}  // namespace

Entry* choose(LockedStorage& storage, const ResolveRequest& request) {
  if (Entry* exact = storage.find(request.key); exact != nullptr) {
    return exact;
  }
  if (request.config_named || !request.key.config.empty()) {
    return nullptr;
  }
  Entry* only = nullptr;
  for (auto& entry : storage.entries()) {
    if (entry.state == EntryState::failed || !entry.key.same_project(request.key) ||
        entry.key.branch != request.key.branch) {
      continue;
    }
    if (only != nullptr) {
      throw UserError(
          "arguments", "this project has several sandboxes" + branch_text(request.key),
          "Name the configuration file, or one of them with --id (`sandbox list` shows them).",
          kMisuse);
    }
    only = &entry;
  }
  return only;
}

Entry* find_by_id(LockedStorage& storage, const std::string& id) {
  if (Entry* exact = storage.find_id(id); exact != nullptr) {
    return exact;
  }
  Entry* only = nullptr;
  for (auto& entry : storage.entries()) {
    if (id.size() >= 6 && entry.id.compare(0, id.size(), id) == 0) {
      if (only != nullptr) {
        throw UserError("arguments", "several sandboxes begin with " + id, "Give more digits.",
                        kMisuse);
      }
      only = &entry;
    }
  }
  return only;
}

Resolver::Resolver(os::executor executor, boost::asio::thread_pool& pool, Output& output,
                   Paths paths)
    : storage_(paths.storage()),
      starters_(paths.starters()),
      executor_(executor),
      pool_(pool),
      output_(output) {}

os::awaitable<std::unique_ptr<LockedStorage>> Resolver::lock() {
  std::unique_ptr<LockedStorage> locked;
  locked = storage_.try_lock();
  if (!locked) {
    WaitingLine waiting(
        executor_, output_,
        "waiting for another sandbox command to finish with " + storage_.file().string());
    locked = co_await storage_.lock(executor_);
  }
  if (locked->damaged()) {
    output_.warn("the storage " + storage_.file().string() + " was damaged; it is kept as " +
                 locked->damaged()->string() +
                 " and a fresh one was begun. `sandbox list` shows what the boxes know of.");
  }
  co_return locked;
}

std::filesystem::path Resolver::starter_file(const Key& key) const {
  if (auto made = os::make_private_directory(starters_); !made) {
    throw lock_unusable(made.error());
  }
  return starters_ / (key.file_name() + ".lock");
}

std::optional<os::FileLock> Resolver::try_lock_starter(const Key& key) {
  auto tried = os::FileLock::try_lock(starter_file(key), os::FileLock::Kind::exclusive);
  if (!tried && tried.error().code != protocol::wire::Errc::busy) {
    throw lock_unusable(tried.error());
  }
  return tried ? std::optional<os::FileLock>(std::move(*tried)) : std::nullopt;
}

os::awaitable<os::FileLock> Resolver::lock_starter(const Key& key, std::int64_t wait_seconds) {
  std::filesystem::path file = starter_file(key);
  if (wait_seconds == 0) {
    auto tried = try_lock_starter(key);
    if (!tried) {
      throw UserError("lock", "another process is starting this project's sandbox",
                      "--wait waits for it. Nothing was sent or run.", kBusy);
    }
    co_return std::move(*tried);
  }
  std::optional<os::FileLock::time_point> deadline;
  if (wait_seconds > 0) {
    deadline = std::chrono::steady_clock::now() + std::chrono::seconds(wait_seconds);
  }
  WaitingLine waiting(executor_, output_,
                      "waiting for the process that is starting this project's sandbox");
  auto lock =
      co_await os::FileLock::lock_async(executor_, file, os::FileLock::Kind::exclusive, deadline);
  if (!lock && lock.error().code == protocol::wire::Errc::timed_out) {
    throw UserError("lock",
                    "timed out after " + show_duration(std::chrono::seconds(wait_seconds)) +
                        " waiting for the process that is starting this project's sandbox",
                    "Try again, or wait longer with --wait=DURATION. Nothing was sent or run.",
                    kTimedOut);
  }
  if (!lock) {
    throw lock_unusable(lock.error());
  }
  co_return std::move(*lock);
}

// Called with the starter lock held and the entry saved as starting.
os::awaitable<Resolved> Resolver::make(Entry entry, SandboxStarter& starter,
                                       std::optional<std::vector<std::string>> on_record) {
  std::optional<UserError> failed;
  bool ended = on_record.has_value();  // until it is asked for, nothing of it is on the box
  std::string agent;
  std::optional<Unrecorded> found;
  try {
    if (on_record) {
      found = co_await starter.find_unrecorded(entry, std::move(*on_record));
    }
    ended = false;
    if (found) {
      agent = found->agent;
    } else {
      agent = co_await starter.start(entry);
    }
  } catch (const StartFailed& failure) {
    failed = failure.error;
    ended = failure.ended;
  } catch (const UserError& error) {
    failed = error;
  }
  bool wanted = true;
  {
    auto storage = co_await lock();
    Entry* now = storage->find_id(entry.id);
    wanted = now != nullptr;
    if (wanted && failed) {
      now->state = EntryState::failed;
      now->failure = failed->what();
      if (!ended) {
        now->ending.push_back(entry.id);
      }
    } else if (wanted) {
      now->state = EntryState::ready;
      if (found) {
        now->id = found->id;
      } else {
        now->ending.clear();
      }
      now->agent = agent;
      now->failure.clear();
      now->used_at = timestamp();
      entry = *now;
    }
    if (wanted) {
      storage->save();
    }
  }
  if (failed) {
    throw UserError(*failed);
  }
  if (!wanted) {
    if (!found) {
      co_await starter.abandon(entry);
    }
    throw UserError("setup", "the sandbox was stopped while it was being made",
                    "Start again when you want one.");
  }
  Resolved resolved{entry, !found.has_value()};
  co_return resolved;
}

os::awaitable<Resolved> Resolver::resolve(ResolveRequest request, SandboxStarter& starter) {
  std::optional<os::FileLock> starting;
  bool waited = false;
  for (;;) {
    auto storage = co_await lock();
    Entry* entry = choose(*storage, request);
    if (entry != nullptr) {
      request.key = entry->key;
    }
    if (entry != nullptr && entry->state == EntryState::ready) {
      if (request.use) {
        storage->note_use(*entry);
      }
      Resolved found{*entry, false};
      co_return found;
    }
    if (entry != nullptr && entry->state == EntryState::failed && waited) {
      throw UserError("setup",
                      "the process that was starting this sandbox failed: " + entry->failure);
    }
    if (!request.make && (entry == nullptr || entry->state == EntryState::failed)) {
      throw UserError(
          "project", "there is no sandbox for " + request.key.project + branch_text(request.key),
          "`sandbox start` makes one, `sandbox list` shows those there are; --id names one.");
    }
    if (!starting) {
      auto tried = try_lock_starter(request.key);
      if (!tried && !request.wait && entry != nullptr) {
        Resolved found{*entry, false};
        co_return found;
      }
      if (!tried) {
        storage.reset();
        os::FileLock got = co_await lock_starter(request.key, request.wait_seconds);
        starting.emplace(std::move(got));
        waited = true;
        continue;
      }
      starting = std::move(tried);
    }
    Entry next;
    std::optional<std::vector<std::string>> on_record;
    if (entry != nullptr && entry->state == EntryState::starting) {
      next = *entry;  // its starter has died: go on with the same id
    } else {
      next = fresh_entry(request);
      on_record = ids_on_record(*storage);
      if (entry != nullptr) {
        next.ending = entry->ending;
        *entry = next;
      } else {
        storage->entries().push_back(next);
      }
    }
    storage->save();
    storage.reset();
    Resolved made = co_await make(next, starter, std::move(on_record));
    co_return made;
  }
}

os::awaitable<Resolver::Replaced> Resolver::replace(
    ResolveRequest request, SandboxStarter& starter,
    std::function<os::awaitable<void>(Entry)> take_old,
    std::function<os::awaitable<std::optional<UserError>>()> end_old) {
  // The starter lock belongs to the key that the entry has, which is known only after a look.
  {
    auto storage = co_await lock();
    if (Entry* entry = choose(*storage, request); entry != nullptr) {
      request.key = entry->key;
    }
  }
  os::FileLock starting = co_await lock_starter(request.key, request.wait_seconds);
  std::optional<Entry> old;
  {
    auto storage = co_await lock();
    if (Entry* entry = storage->find(request.key); entry != nullptr) {
      old = *entry;
    }
  }
  Replaced replaced;
  bool live = old && old->state != EntryState::failed;
  if (live) {
    replaced.old_id = old->id;
    co_await take_old(*old);
  }
  Entry next = fresh_entry(request);
  {
    auto storage = co_await lock();
    Entry* entry = storage->find(request.key);
    if (entry != nullptr) {
      next.ending = entry->ending;
      if (entry->state != EntryState::failed) {
        next.ending.push_back(entry->id);
      }
      *entry = next;
    } else {
      storage->entries().push_back(next);
    }
    storage->save();
  }
  std::optional<UserError> in_use;
  if (live) {
    try {
      in_use = co_await end_old();
    } catch (const UserError& error) {  // it may have ended or not: the next look at it tells
      in_use = error;
    }
  }
  if (in_use) {
    auto storage = co_await lock();
    if (Entry* entry = storage->find_id(next.id); entry != nullptr) {
      *entry = *old;
      storage->save();
    }
    throw UserError(*in_use);
  }
  std::optional<std::vector<std::string>> always_a_new_one;
  Resolved made = co_await make(next, starter, always_a_new_one);
  replaced.entry = std::move(made.entry);
  co_return replaced;
}

os::awaitable<void> Resolver::forget(std::string id, std::string agent) {
  auto storage = co_await lock();
  Entry* entry = storage->find_id(id);
  if (entry != nullptr && entry->state == EntryState::ready && entry->agent == agent) {
    storage->erase(id);
    storage->save();
  }
}

os::awaitable<void> Resolver::adopt_detached(const Key& wanted, Ancestors ancestors) {
  Key key = wanted;
  if (!detached_commit(key.branch)) {
    co_return;
  }
  auto candidates = [&key](LockedStorage& storage) {
    std::vector<Entry> found;
    for (const auto& entry : storage.entries()) {
      if (entry.key.same_project(key) && entry.key.config == key.config &&
          entry.state == EntryState::ready && detached_commit(entry.key.branch)) {
        found.push_back(entry);
      }
    }
    return found;
  };
  std::vector<Entry> stored;
  {
    auto storage = co_await lock();
    if (storage->find(key) != nullptr) {
      co_return;
    }
    stored = candidates(*storage);
  }
  if (stored.empty()) {
    co_return;
  }
  // git is asked without the lock; what it says is checked against the storage again.
  std::vector<std::string> commits;
  commits.reserve(stored.size());
  for (const auto& entry : stored) {
    commits.push_back(*detached_commit(entry.key.branch));
  }
  auto work = [ancestors = std::move(ancestors), commits] { return ancestors(commits); };
  std::vector<std::string> behind = co_await os::offload(pool_, std::move(work));
  std::sort(stored.begin(), stored.end(),
            [](const Entry& a, const Entry& b) { return a.used_at > b.used_at; });
  auto best = std::find_if(stored.begin(), stored.end(), [&behind](const Entry& entry) {
    return std::find(behind.begin(), behind.end(), *detached_commit(entry.key.branch)) !=
           behind.end();
  });
  if (best == stored.end()) {
    co_return;
  }
  auto storage = co_await lock();
  Entry* entry = storage->find_id(best->id);
  if (entry != nullptr && entry->key == best->key && entry->state == EntryState::ready &&
      storage->find(key) == nullptr) {
    entry->key = key;
    storage->save();
  }
}

}  // namespace cli
