// The workspace of a box (workspace.h) on a private store and the work tree beside it; for its own
// sources: what it answers at once and when idle (box_workspace.cc), results
// (box_workspace_results.cc), what would be lost (box_workspace_unpulled.cc) and the apply
// (box_workspace_apply.cc).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/os/beneath.h"
#include "protocol/sync/git.h"
#include "protocol/sync/object_store.h"
#include "protocol/sync/scan.h"
#include "protocol/sync/workspace.h"
#include "protocol/sync/workspace_apply.h"
#include "protocol/sync/workspace_git.h"
#include "protocol/sync/workspace_state.h"

namespace protocol::sync {

// Refs of the store. Numbers only grow, so that names sort by age.
inline constexpr std::string_view kSnapshots = "refs/snapshots/";  // NUMBER-ORIGIN
inline constexpr std::string_view kResults = "refs/results/";      // ORIGIN/NUMBER
inline constexpr std::string_view kMerged =
    "refs/merged/";  // ORIGIN: what its next result grows from
inline constexpr std::string_view kDrift = "refs/drift/";  // NUMBER
inline constexpr std::string_view kBorrowed =
    "refs/borrowed/";  // what the workspace's .git points at

// What results name and no commit reaches, by its id: annotated tags, and tags of no commit.
inline constexpr std::string_view kTagged = "refs/tagged/";

std::string numbered(std::uint64_t number);  // as in those names

// Tags and stashes of the workspace's .git: no sync touches them, so that one which was not brought
// home is there for the next result as well.
bool is_never_overwritten(std::string_view name);

class BoxWorkspace : public Workspace {
 public:
  BoxWorkspace(WorkspaceOptions options, Git git, os::Beneath root,
               std::unique_ptr<ObjectStore> store)
      : options_(std::move(options)),
        git_(std::move(git)),
        root_(std::move(root)),
        store_(std::move(store)) {
    LoadedState loaded = load_state(state_file());
    state_ = std::move(loaded.state);
    damaged_ = loaded.damaged.filename().native();
    open_cache();
  }

  std::string snapshot() override { return state_.sync.snapshot; }
  std::vector<std::string> have() override;
  bool has(const std::string& commit) override {
    return is_object_id(commit) && store_->has(commit);
  }
  result<void> begin(const wire::SyncStart& sync) override;
  result<void> read_pack(os::Fd in, std::uint64_t max_bytes,
                         const std::vector<std::string>& shallow) override;
  std::optional<wire::Result> unmerged(const std::string& origin,
                                       const std::string& merged) override;
  result<void> offer_drift(const std::string& origin) override;
  result<wire::Applied> apply(const std::string& origin, const wire::SyncStart& sync) override;
  result<std::optional<wire::Result>> take_result(const std::string& origin) override;
  result<void> write_pack(const wire::Result& result, const std::string& merged,
                          os::Fd out) override;
  result<std::vector<std::string>> write_whole_pack(const wire::Result& result,
                                                    const std::string& merged, os::Fd out) override;
  result<wire::Unpulled> unpulled() override;
  void merged(const std::string& origin, const std::string& result) override;
  void tidy() override;

 private:
  std::filesystem::path state_file() const { return options_.store / "workspace-state"; }
  void open_cache() {
    cache_.emplace(WorkTree::open(*store_, root_, options_.store / "workspace-cache"));
  }
  result<void> refresh_root();
  ApplyContext context() {
    return {root_, options_.workspace, *store_, *cache_, options_.store / "workspace-writing"};
  }
  std::uint64_t next_number(std::string_view prefix) const;
  std::optional<wire::Result> read_result(const std::string& oid) const;
  // What the workspace's .git points at and was made there (branches, tags, stashes), brought into
  // the store. What cannot be is named in `left_out`.
  std::vector<wire::Ref> moved_commits(const RepositoryRefs& now,
                                       std::vector<wire::LeftOut>& left_out);
  result<void> keep_drift(const std::string& tree, wire::Applied& applied,
                          const std::vector<wire::Ref>& commits);
  result<void> write_git(const wire::SyncStart& sync, const AppliedTree& applied,
                         WorkspaceState& state);
  result<void> write_index(const WorkspaceGit& git, const wire::SyncStart& sync,
                           const AppliedTree& applied, WorkspaceState& state);
  void name_staged(const RepositoryRefs& now, const WorkspaceState& state,
                   std::vector<wire::LeftOut>& left_out) const;
  std::string shallow_text() const;
  // `base`, and those of `commits` that are commits. The others get a ref of their own.
  result<std::vector<std::string>> parents_of_result(const std::string& base,
                                                     const std::vector<wire::Ref>& commits);
  void drop_tagged();
  std::vector<wire::Ref> drifts() const;
  std::vector<std::string> tips_of(const std::string& result) const;

  WorkspaceOptions options_;
  Git git_;
  os::Beneath root_;
  std::unique_ptr<ObjectStore> store_;
  std::optional<WorkTree> cache_;
  WorkspaceState state_;
  std::string
      damaged_;  // name of a damaged state that was put aside and that no answer has told of
};

}  // namespace protocol::sync
