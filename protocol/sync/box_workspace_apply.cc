// The apply of a snapshot: what would be lost is kept, files are written, .git shows the same.
#include <algorithm>
#include <set>

#include "protocol/os/paths.h"
#include "protocol/sync/box_workspace.h"
#include "protocol/sync/index_file.h"
#include "protocol/sync/object_id.h"
#include "protocol/sync/record.h"

namespace protocol::sync {

using os::Beneath;
using wire::Errc;
using wire::Failure;

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxNamed = 100;  // drifted paths in an answer
constexpr std::size_t kMaxStagedNamed = 3;
constexpr std::size_t kMaxIndex = 256 << 20;

std::string place_of(const Beneath& root) {
  auto info = root.info("");
  if (!info || !*info) return {};
  return std::to_string((*info)->device) + ":" + std::to_string((*info)->inode);
}

// Whose tree the index is to hold; empty: nothing.
std::string staged_commit(const wire::SyncStart& sync) {
  return sync.staged.empty() ? sync.head : sync.staged;
}

// What the index was made from and how it looks; empty: there is none.
std::string index_description(const WorkspaceGit& git, const wire::SyncStart& sync) {
  auto info = git.index_info();
  if (!info) return {};
  std::string staged = staged_commit(sync);
  return (staged.empty() ? "none" : staged) + " " + sync.snapshot + " " +
         std::to_string(info->inode) + " " + std::to_string(info->size) + " " +
         std::to_string(info->modified_ns);
}

}  // namespace

result<void> BoxWorkspace::keep_drift(const std::string& tree, wire::Applied& applied,
                                      const std::vector<wire::Ref>& commits) {
  std::vector<std::string> parents;
  auto add = [&](const std::string& oid) {
    if (!oid.empty() && std::find(parents.begin(), parents.end(), oid) == parents.end())
      parents.push_back(oid);
  };
  add(state_.sync.snapshot);
  for (const wire::Ref& ref : commits) add(ref.oid);
  if (!applied.drift.empty()) add(store_->get_ref(applied.drift));
  auto commit = store_->write_commit(tree, parents, "drift");
  if (!commit) return commit.error();
  if (applied.drift.empty()) applied.drift = std::string(kDrift) + numbered(next_number(kDrift));
  return store_->set_ref(applied.drift, *commit);
}

result<wire::Applied> BoxWorkspace::apply(const std::string& origin, const wire::SyncStart& sync) {
  if (!is_origin(origin)) return Failure(Errc::bad_input, "the origin's id");
  for (const std::string* oid : {&sync.snapshot, &sync.head, &sync.staged}) {
    if ((oid != &sync.snapshot && oid->empty()) ||
        (oid->size() == store_->oid_digits() && is_object_id(*oid)))
      continue;
    return Failure(Errc::bad_input, "sync_start: not an object id: " + *oid);
  }
  if (!sync.branch.empty() && !is_ref_name(sync.branch))
    return Failure(Errc::bad_input, "sync_start: branch: " + sync.branch);
  // Says so again, in case the word got lost.
  if (!sync.merged.empty()) merged(origin, sync.merged);
  auto lock = store_->lock();
  if (!lock) return lock.error();
  auto refreshed = refresh_root();
  if (!refreshed) return refreshed.error();
  auto tree = store_->tree_of(sync.snapshot);
  if (!tree) return tree.error();

  // Kept before anything is written, so that whatever happens then can be put right from it.
  auto snapshots = store_->list_refs(std::string(kSnapshots));
  if (snapshots.empty() || snapshots.back().second != sync.snapshot ||
      !snapshots.back().first.ends_with("-" + origin)) {
    std::string name = std::string(kSnapshots) + numbered(next_number(kSnapshots)) + "-" + origin;
    auto kept = store_->set_ref(name, sync.snapshot);
    if (!kept) return kept.error();
  }

  wire::Applied answer;
  answer.snapshot = sync.snapshot;
  WorkspaceState state = state_;
  const std::string place = place_of(root_);
  if (state.place != place) state = {};
  state.place = place;

  std::vector<wire::Ref> lost;  // commits that no result has shown yet
  if (sync.git && !state.sync.snapshot.empty()) {
    RepositoryRefs now = WorkspaceGit(root_, {}).read();
    std::vector<wire::LeftOut> unreadable;
    std::set<std::string> kept;
    for (const auto& [name, oid] : store_->list_refs(std::string(kResults))) {
      auto commit = store_->read_commit(oid);
      if (commit) kept.insert(commit->parents.begin(), commit->parents.end());
    }
    for (wire::Ref& ref : moved_commits(now, unreadable))
      if (!kept.contains(ref.oid) && !is_never_overwritten(ref.name))
        lost.push_back(std::move(ref));
    answer.left_out = std::move(unreadable);
    name_staged(now, state, answer.left_out);
  }

  // From here on files may be half the old and half the new snapshot.
  WorkspaceState interrupted = state;
  interrupted.applying = *tree;
  interrupted.index.clear();
  auto begun = save_state(state_file(), interrupted);
  if (!begun) return begun.error();
  ApplyContext apply_context = context();
  bool lost_kept = lost.empty();
  auto applied = WorkspaceApply(apply_context, state, sync)
                     .run([&](const std::string& drifted) -> result<void> {
                       lost_kept = true;
                       return keep_drift(drifted, answer, lost);
                     });
  if (!applied) {
    state_ = std::move(interrupted);
    return applied.error();
  }
  if (!lost_kept) {
    auto kept = keep_drift(*tree, answer, lost);
    if (!kept) {
      state_ = std::move(interrupted);
      return kept.error();
    }
  }
  for (const wire::Ref& ref : lost) answer.drifted.push_back(ref.name);
  answer.drifted.insert(answer.drifted.end(), applied->drifted.begin(), applied->drifted.end());
  if (answer.drifted.size() > kMaxNamed) answer.drifted.resize(kMaxNamed);
  answer.left_out.insert(answer.left_out.end(), applied->left_out.begin(), applied->left_out.end());

  if (sync.git) {
    auto written = write_git(sync, *applied, state);
    if (!written) {
      state_ = std::move(interrupted);
      return written.error();
    }
  }
  state.sync = sync;
  state.origin = origin;
  state.tree = *tree;
  state.applying.clear();
  for (const auto& [merged_origin, oid] : state.merged)
    store_->delete_ref(std::string(kMerged) + merged_origin);
  state.merged.clear();
  state.generation = os::random_hex(32);
  state_ = std::move(state);
  auto saved = save_state(state_file(), state_);
  if (!saved) return saved.error();
  if (!damaged_.empty()) {
    answer.left_out.push_back(
        {std::exchange(damaged_, {}),
         "the box's record of this sandbox was damaged and is kept so beside its store; every file "
         "was looked at anew"});
  }
  return answer;
}

// ---- .git ------------------------------------------------------------------------------------

std::string BoxWorkspace::shallow_text() const {
  std::string text;
  for (const std::string& commit : store_->shallow()) text += commit + "\n";
  return text;
}

result<void> BoxWorkspace::write_git(const wire::SyncStart& sync, const AppliedTree& applied,
                                     WorkspaceState& state) {
  WorkspaceGit git(root_, fs::absolute(store_->objects()));
  RepositoryRefs before;
  if (state.sync.git && !state.sync.snapshot.empty()) before = wanted_refs(state.sync);
  auto written = git.write(sync, before, shallow_text());
  if (!written) return written;
  written = write_index(git, sync, applied, state);
  if (!written) return written;
  RepositoryRefs seen = git.read();
  if (!state.sync.snapshot.empty()) {
    std::erase_if(seen.refs, [&](const auto& ref) {
      auto earlier = state.seen.refs.find(ref.first);
      bool unseen = earlier == state.seen.refs.end() || earlier->second != ref.second;
      return unseen && is_never_overwritten(ref.first);
    });
  }
  state.seen = std::move(seen);
  return {};
}

result<void> BoxWorkspace::write_index(const WorkspaceGit& git, const wire::SyncStart& sync,
                                       const AppliedTree& applied, WorkspaceState& state) {
  if (!applied.wrote && !state.index.empty() && state.index == index_description(git, sync))
    return {};

  const std::string staged = staged_commit(sync);
  std::vector<TreeEntry> entries;
  if (!staged.empty()) {
    auto listed = store_->list_tree(staged);
    if (!listed) return listed.error();
    entries = std::move(*listed);
  }
  std::vector<IndexEntry> index;
  index.reserve(entries.size());
  std::size_t place = 0;
  for (TreeEntry& entry : entries) {
    while (place < applied.wanted.size() && applied.wanted[place].path < entry.path) ++place;
    IndexEntry made{std::move(entry.path), entry.mode, std::move(entry.oid), std::nullopt};
    if (place < applied.wanted.size() && applied.wanted[place].path == made.path &&
        applied.wanted[place].mode == made.mode && applied.wanted[place].oid == made.oid)
      made.info = applied.infos[place];
    index.push_back(std::move(made));
  }
  std::string bytes = encode_index(index);
  auto append = [&](const auto& digest) {
    bytes.append(reinterpret_cast<const char*>(digest.data()), digest.size());
  };
  if (store_->object_format() == "sha256") {
    Sha256 hash;
    hash.update(bytes);
    append(hash.finish());
  } else {
    Sha1 hash;
    hash.update(bytes);
    append(hash.finish());
  }
  auto written = git.write_index(bytes);
  if (!written) return written;
  state.index = index_description(git, sync);
  return {};
}

// What a command staged and did not commit goes when the index does; it is not lost in silence.
void BoxWorkspace::name_staged(const RepositoryRefs& now, const WorkspaceState& state,
                               std::vector<wire::LeftOut>& left_out) const {
  WorkspaceGit git(root_, {});
  if (state.index.empty() || state.index == index_description(git, state.sync)) return;
  // A copy, because it is the sandbox's. Most often something has only looked at the files' times.
  auto bytes = root_.read_file(".git/index", kMaxIndex);
  if (!bytes) return;
  fs::path copy = options_.store / "tmp" / "sandbox-index";
  std::error_code error;
  fs::create_directories(copy.parent_path(), error);
  if (!write_record(copy, *bytes)) return;
  Git apart =
      store_->git().with_index(copy).with_variable("GIT_ALLOC_LIMIT", std::to_string(kMaxIndex));
  auto differing = [&](const std::string& tree) {
    std::set<std::string> paths;
    auto answer = apart.out({"diff-index", "--cached", "--name-only", "--no-renames", "-z",
                             tree.empty() ? store_->empty_tree() : tree, "--"});
    std::string_view text = answer ? std::string_view(*answer) : std::string_view();
    for (std::size_t end; (end = text.find('\0')) != std::string_view::npos;
         text.remove_prefix(end + 1))
      paths.emplace(text.substr(0, end));
    return paths;
  };
  auto staged = differing(staged_commit(state.sync));
  auto branch = now.refs.find(now.branch);
  std::string head = branch == now.refs.end() ? now.detached : branch->second;
  if (!staged.empty() && !head.empty() && head != state.sync.head && store_->has(head)) {
    // Committed is not staged any more.
    auto uncommitted = differing(head);
    std::erase_if(staged, [&](const std::string& path) { return !uncommitted.contains(path); });
  }
  fs::remove(copy, error);
  if (staged.empty()) return;
  std::string why = "what was staged there is not any more: ";
  std::size_t named = 0;
  for (const std::string& path : staged) {
    if (named == kMaxStagedNamed) break;
    why += (named++ > 0 ? ", " : "") + path;
  }
  if (staged.size() > named) why += " and " + std::to_string(staged.size() - named) + " more";
  left_out.push_back({".git/index", why});
}

}  // namespace protocol::sync
