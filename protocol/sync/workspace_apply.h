// One apply: the workspace becomes what a snapshot says. Scans, keeps what drifted, writes what
// differs, and looks again when something moved meanwhile. Files only: .git and the record of what
// was applied are the caller's.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "protocol/os/beneath.h"
#include "protocol/sync/object_store.h"
#include "protocol/sync/opened_up.h"
#include "protocol/sync/scan.h"
#include "protocol/sync/tree_writer.h"
#include "protocol/sync/workspace_state.h"
#include "protocol/wire/messages.h"

namespace protocol::sync {

struct ApplyContext {
  const os::Beneath& root;
  std::filesystem::path workspace;  // the same directory, for git's ignore rules
  ObjectStore& store;
  WorkTree& cache;
  std::filesystem::path journal;
};

// What the workspace holds: `tree` is what it was last known to hold. What was shut against its
// owner is opened first (with `opened` it stays so for as long as that lives); what is unreadable
// all the same is named in Scan::left_out.
result<Scan> scan_workspace(const ApplyContext& context, const std::string& tree,
                            const wire::SyncStart& sync, ObjectWriter& writer);
result<Scan> scan_workspace(const ApplyContext& context, const std::string& tree,
                            const wire::SyncStart& sync, ObjectWriter& writer, OpenedUp& opened);

struct AppliedTree {
  std::vector<TreeEntry> wanted;                   // the snapshot's
  std::vector<std::optional<os::FileInfo>> infos;  // of each of them, as it is on the disk now
  bool wrote = false;                              // some file was changed
  std::string drift;                 // tree of what would have been lost; empty: nothing
  std::vector<std::string> drifted;  // its paths
  std::vector<wire::LeftOut> left_out;
};

// `state`: what is known of the workspace so far.
class WorkspaceApply {
 public:
  WorkspaceApply(const ApplyContext& context, const WorkspaceState& state,
                 const wire::SyncStart& sync)
      : context_(context),
        state_(state),
        sync_(sync),
        blobs_(context.store.blob_reader()),
        opened_(context.root) {}

  using KeepDrift = std::function<result<void>(const std::string& tree)>;
  // `keep_drift` is called with each tree that has to be kept before files of it are overwritten.
  result<AppliedTree> run(const KeepDrift& keep_drift);

 private:
  struct Plan {
    std::vector<Change> changes;
    std::vector<std::size_t> places;  // of each change in `wanted`, or npos for what goes
    std::vector<TreeChange> hidden;   // ignored files that a change replaces
  };
  result<Plan> plan(const Scan& scan, ObjectWriter& writer, bool last);
  result<std::string> find_drift(const Scan& scan, const Plan& plan, ObjectWriter& writer);
  result<bool> write(const Plan& plan);
  result<void> add_wanted(std::size_t place, const ScanEntry* scanned, ObjectWriter& writer,
                          bool last, Plan& plan);

  const ApplyContext& context_;
  const WorkspaceState& state_;
  const wire::SyncStart& sync_;
  BlobReader blobs_;
  OpenedUp opened_;
  AppliedTree applied_;
  std::string known_;  // what the scans so far showed, kept or not worth keeping
};

}  // namespace protocol::sync
