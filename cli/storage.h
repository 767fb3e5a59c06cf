// The record of this user's sandboxes: sandboxes.json, guarded by an flock on sandboxes.json.lock.
// Every change is lock, read, change, write, unlock; the lock is never held across the network, a
// prompt or a child process.
//
// A damaged file is kept beside (renamed .damaged-N) and a fresh one begun; one of a newer version
// is an error.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/os/flock.h"

namespace cli {

inline constexpr int kStorageVersion = 1;

// What makes a sandbox this one.
struct Key {
  std::string box;
  std::string machine;  // of the local box: state directories may be shared by machines; empty for
                        // other boxes
  std::string project;  // the root's real path
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::string branch;
  std::string config;  // absolute path, or empty

  bool operator==(const Key&) const = default;
  bool same_project(const Key& other) const;  // all but branch and config
  std::string file_name() const;              // a digest: the starter lock's name
  std::string origin_name() const;  // a digest of the project alone: its sync store's name
};

enum class EntryState { starting, ready, failed };

struct Entry {
  Key key;
  std::string id;
  EntryState state = EntryState::starting;
  std::string agent;    // the agent's id, once it has answered
  std::string failure;  // why the start failed
  std::string config_digest;
  std::string created_at;  // RFC 3339, UTC
  std::string used_at;
  std::vector<std::string>
      ending;  // ids that a reset replaced and that are not known to have ended
};

std::string encode_storage(const std::vector<Entry>& entries);
// Errc::bad_input for what is damaged, Errc::unsupported for a newer version.
protocol::wire::result<std::vector<Entry>> decode_storage(std::string_view text);

// The storage while its lock is held.
class LockedStorage {
 public:
  std::vector<Entry>& entries() { return entries_; }
  Entry* find(const Key& key);
  Entry* find_id(const std::string& id);
  void erase(const std::string& id);
  // Notes that the entry, one of these, is used now, in its `used_at`. At most once a minute, since
  // it is written; not at all where it cannot be.
  void note_use(Entry& entry);
  // Throws UserError when it cannot be written; the old content is then still there.
  void save();
  // Set when a damaged file was put aside: where it is now.
  const std::optional<std::filesystem::path>& damaged() const { return damaged_; }

 private:
  friend class Storage;
  LockedStorage(protocol::os::FileLock lock, std::filesystem::path file)
      : lock_(std::move(lock)), file_(std::move(file)) {}
  protocol::os::FileLock lock_;
  std::filesystem::path file_;
  std::vector<Entry> entries_;
  std::optional<std::filesystem::path> damaged_;
};

class Storage {
 public:
  explicit Storage(std::filesystem::path file) : file_(std::move(file)) {}
  // Waits until the lock is free. Both throw UserError when the storage cannot be used.
  protocol::os::awaitable<std::unique_ptr<LockedStorage>> lock(
      protocol::os::executor executor) const;
  // nullptr: somebody has it.
  std::unique_ptr<LockedStorage> try_lock() const;
  const std::filesystem::path& file() const { return file_; }

 private:
  std::filesystem::path lock_file() const { return file_.string() + ".lock"; }
  void make_directory() const;
  std::unique_ptr<LockedStorage> read(protocol::os::FileLock lock) const;
  std::filesystem::path file_;
};

// Now, as it stands in the storage.
std::string timestamp();

}  // namespace cli
