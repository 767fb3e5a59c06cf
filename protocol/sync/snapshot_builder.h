// Makes the commit of a snapshot from a scanned tree and what the user's repository says, and
// remembers the last one, so that the same content costs nothing. Keeps a record of each snapshot:
// what was sent with it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "protocol/sync/history.h"
#include "protocol/sync/object_store.h"
#include "protocol/sync/object_writer.h"
#include "protocol/sync/snapshot.h"
#include "protocol/sync/user_repository.h"

namespace protocol::sync {

// What goes with a snapshot, besides its own commit.
struct SnapshotRecord {
  std::string commit;
  std::vector<std::string> tips;     // other commits that were sent: refs
  std::vector<std::string> shallow;  // where its history ends
  bool operator==(const SnapshotRecord&) const = default;
};

class SnapshotBuilder {
 public:
  // `directory`: where to remember. `store` outlives this.
  SnapshotBuilder(ObjectStore& store, std::filesystem::path directory)
      : store_(store), directory_(std::move(directory)) {}

  // `repository` may be null (without git). Needs `writer` to be finished afterwards, then keep().
  result<Snapshot> build(const Scan& scan, const UserRepository* repository, std::uint32_t depth,
                         ObjectWriter& writer);
  // Names the snapshot by a ref and records it; drops the oldest but those that `in_use` lists.
  result<void> keep(const Snapshot& snapshot, const std::vector<std::string>& in_use);
  SnapshotRecord record(const std::string& commit) const;
  void forget();
  // History turned out to lack objects: from now on it is looked through before it is promised.
  void doubt_history();

  // What a box is known to have, by a name that is good for a file.
  void set_base(const std::string& name, const SnapshotRecord& record);
  void forget_base(const std::string& name);
  std::vector<SnapshotRecord> bases() const;

 private:
  result<History> history(const HistoryRequest& request);
  result<std::vector<TreeChange>> storable(const std::vector<TreeChange>& staged,
                                           std::vector<wire::LeftOut>& left_out) const;

  ObjectStore& store_;
  std::filesystem::path directory_;
};

}  // namespace protocol::sync
