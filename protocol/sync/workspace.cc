#include "protocol/sync/workspace.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <set>
#include <utility>

#include "protocol/os/beneath.h"
#include "protocol/sync/git.h"
#include "protocol/sync/index_file.h"
#include "protocol/sync/object_id.h"
#include "protocol/sync/object_store.h"
#include "protocol/sync/scan.h"
#include "protocol/sync/workspace_apply.h"
#include "protocol/sync/workspace_git.h"
#include "protocol/sync/workspace_state.h"

namespace protocol::sync {

using os::Beneath;
using os::FileInfo;
using wire::Errc;
using wire::Failure;

namespace {

namespace fs = std::filesystem;

// Refs of the store. Numbers only grow, so that names sort by age.
constexpr std::string_view kSnapshots = "refs/snapshots/";  // NUMBER-ORIGIN
constexpr std::string_view kResults = "refs/results/";      // ORIGIN/NUMBER
constexpr std::string_view kMerged = "refs/merged/";      // ORIGIN: what its next result grows from
constexpr std::string_view kDrift = "refs/drift/";        // NUMBER
constexpr std::string_view kBorrowed = "refs/borrowed/";  // what the workspace's .git points at
constexpr std::size_t kKeptSnapshots = 20;
constexpr std::size_t kKeptDrift = 20;
constexpr std::size_t kMaxNamed = 100;  // drifted paths in an answer
constexpr std::size_t kClutter = 2000;

std::string numbered(std::uint64_t number) {
  char digits[24];
  std::snprintf(digits, sizeof digits, "%012llu", static_cast<unsigned long long>(number));
  return digits;
}

// The number at the front of a name beneath a prefix; 0 when there is none.
std::uint64_t number_of(std::string_view name) {
  std::uint64_t number = 0;
  for (char c : name) {
    if (c < '0' || c > '9' || number > 1'000'000'000'000'000) break;
    number = number * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return number;
}

bool is_origin(std::string_view origin) {
  return !origin.empty() && origin.size() <= 64 &&
         std::all_of(origin.begin(), origin.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
         });
}

std::string place_of(const Beneath& root) {
  auto info = root.info("");
  if (!info || !*info) return {};
  return std::to_string((*info)->device) + ":" + std::to_string((*info)->inode);
}

// A result's message names the commits that its other parents are.
std::string result_message(const std::vector<wire::Ref>& commits) {
  std::string message = "result\n";
  for (const wire::Ref& ref : commits) message += "\n" + ref.oid + " " + ref.name;
  return message;
}

std::vector<wire::Ref> named_commits(const std::string& message) {
  std::vector<wire::Ref> commits;
  for (std::size_t begin = 0; begin < message.size();) {
    std::size_t end = std::min(message.find('\n', begin), message.size());
    std::string_view line(message.data() + begin, end - begin);
    begin = end + 1;
    std::size_t space = line.find(' ');
    if (space == std::string_view::npos || !is_object_id(line.substr(0, space))) continue;
    commits.push_back({std::string(line.substr(space + 1)), std::string(line.substr(0, space))});
  }
  return commits;
}

class BoxWorkspace : public Workspace {
 public:
  BoxWorkspace(WorkspaceOptions options, Git git, Beneath root, std::unique_ptr<ObjectStore> store)
      : options_(std::move(options)),
        git_(std::move(git)),
        root_(std::move(root)),
        store_(std::move(store)),
        state_(load_state(state_file())) {
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
  result<wire::Applied> apply(const std::string& origin, const wire::SyncStart& sync) override;
  result<std::optional<wire::Result>> take_result(const std::string& origin) override;
  result<void> write_pack(const wire::Result& result, const std::string& merged,
                          os::Fd out) override;
  void merged(const std::string& origin, const std::string& result) override;
  void tidy() override;

 private:
  fs::path state_file() const { return options_.store / "workspace-state"; }
  void open_cache() {
    cache_.emplace(WorkTree::open(*store_, root_, options_.store / "workspace-cache"));
  }
  result<void> refresh_root();
  ApplyContext context() {
    return {root_, options_.workspace, *store_, *cache_, options_.store / "workspace-writing"};
  }
  std::uint64_t next_number(std::string_view prefix) const;
  std::optional<wire::Result> read_result(const std::string& oid) const;
  // Commits that the workspace's .git points at and that were made there, brought into the store.
  // Those that cannot be are named in `left_out`.
  std::vector<wire::Ref> moved_commits(const RepositoryRefs& now,
                                       std::vector<wire::LeftOut>& left_out);
  result<void> keep_drift(const std::string& tree, wire::Applied& applied,
                          const std::vector<wire::Ref>& commits);
  result<void> write_git(const wire::SyncStart& sync, const AppliedTree& applied,
                         WorkspaceState& state);
  result<void> write_index(const WorkspaceGit& git, const wire::SyncStart& sync,
                           const AppliedTree& applied, WorkspaceState& state);
  std::string shallow_text() const;

  WorkspaceOptions options_;
  Git git_;
  Beneath root_;
  std::unique_ptr<ObjectStore> store_;
  std::optional<WorkTree> cache_;
  WorkspaceState state_;
};

// ---- small answers ---------------------------------------------------------------------------

std::vector<std::string> BoxWorkspace::have() {
  auto refs = store_->list_refs(std::string(kSnapshots));
  std::vector<std::string> commits;
  for (auto at = refs.rbegin(); at != refs.rend() && commits.size() < kKeptSnapshots; ++at) {
    if (std::find(commits.begin(), commits.end(), at->second) == commits.end())
      commits.push_back(at->second);
  }
  return commits;
}

result<void> BoxWorkspace::begin(const wire::SyncStart& sync) {
  if (sync.object_format == store_->object_format()) return {};
  if (sync.object_format != "sha1" && sync.object_format != "sha256")
    return Failure(Errc::unsupported, "the object format " + sync.object_format);
  if (!store_->list_refs("refs/").empty()) {
    return Failure(Errc::unsupported, "this sandbox holds " + store_->object_format() +
                                          " objects and the work tree " + sync.object_format);
  }
  cache_.reset();
  store_.reset();
  std::error_code ignored;
  fs::remove_all(options_.store, ignored);
  auto store = ObjectStore::open(git_, {options_.store, sync.object_format, {}, false});
  if (!store) return store.error();
  store_ = std::make_unique<ObjectStore>(std::move(*store));
  state_ = {};
  open_cache();
  return {};
}

result<void> BoxWorkspace::read_pack(os::Fd in, std::uint64_t max_bytes,
                                     const std::vector<std::string>& shallow) {
  for (const std::string& commit : shallow) {
    if (commit.size() != store_->oid_digits() || !is_object_id(commit))
      return Failure(Errc::bad_input, "shallow: not an object id");
  }
  ImportLimits limits;
  limits.bytes = std::min(limits.bytes, max_bytes);
  return store_->read_pack(std::move(in), shallow, limits);
}

std::uint64_t BoxWorkspace::next_number(std::string_view prefix) const {
  std::uint64_t last = 0;
  for (const auto& [name, oid] : store_->list_refs(std::string(prefix)))
    last = std::max(last, number_of(std::string_view(name).substr(prefix.size())));
  return last + 1;
}

// The workspace may have been replaced by another directory; a link in its place is not followed.
result<void> BoxWorkspace::refresh_root() {
  struct stat status;
  if (::lstat(options_.workspace.c_str(), &status) != 0) {
    if (errno != ENOENT) return os::errno_failure(errno, options_.workspace.native());
    std::error_code error;
    fs::create_directories(options_.workspace, error);
    if (error) return os::errno_failure(error.value(), options_.workspace.native());
    if (::lstat(options_.workspace.c_str(), &status) != 0)
      return os::errno_failure(errno, options_.workspace.native());
  }
  if (!S_ISDIR(status.st_mode))
    return Failure(Errc::refused, options_.workspace.native() + ": not a directory any more");
  auto info = root_.info("");
  if (info && *info && (*info)->inode == status.st_ino && (*info)->device == status.st_dev)
    return {};
  auto root = Beneath::open(options_.workspace);
  if (!root) return root.error();
  root_ = std::move(*root);
  return {};
}

// ---- results ---------------------------------------------------------------------------------

std::optional<wire::Result> BoxWorkspace::read_result(const std::string& oid) const {
  auto commit = store_->read_commit(oid);
  if (!commit || commit->parents.empty()) return std::nullopt;
  return wire::Result{oid, commit->parents.front(), named_commits(commit->message), {}};
}

std::optional<wire::Result> BoxWorkspace::unmerged(const std::string& origin,
                                                   const std::string& merged) {
  if (!is_origin(origin)) return std::nullopt;
  auto refs = store_->list_refs(std::string(kResults) + origin + "/");
  if (refs.empty() || refs.back().second == merged) return std::nullopt;
  return read_result(refs.back().second);
}

void BoxWorkspace::merged(const std::string& origin, const std::string& result) {
  if (!is_origin(origin) || !is_object_id(result)) return;
  auto lock = store_->lock();
  if (!lock) return;
  auto refs = store_->list_refs(std::string(kResults) + origin + "/");
  auto found =
      std::find_if(refs.begin(), refs.end(), [&](const auto& ref) { return ref.second == result; });
  if (found == refs.end()) return;
  // Its next result grows from this one, when no snapshot was applied in between.
  auto commit = store_->read_commit(result);
  auto before = state_.merged.find(origin);
  if (commit && !commit->parents.empty() &&
      (commit->parents.front() == state_.sync.snapshot ||
       (before != state_.merged.end() && commit->parents.front() == before->second))) {
    if (!store_->set_ref(std::string(kMerged) + origin, result)) return;
    state_.merged[origin] = result;
    for (const wire::Ref& ref : named_commits(commit->message)) {
      if (ref.name == "HEAD") {
        state_.seen.detached = ref.oid;
      } else {
        state_.seen.refs[ref.name] = ref.oid;
      }
    }
    (void)save_state(state_file(), state_);  // at worst the next result says more than it has to
  }
  for (auto at = refs.begin(); at != std::next(found); ++at) store_->delete_ref(at->first);
}

std::vector<wire::Ref> BoxWorkspace::moved_commits(const RepositoryRefs& now,
                                                   std::vector<wire::LeftOut>& left_out) {
  std::vector<wire::Ref> moved;
  for (const auto& [name, oid] : now.refs) {
    if (!name.starts_with("refs/heads/")) continue;
    auto before = state_.seen.refs.find(name);
    if (before == state_.seen.refs.end() || before->second != oid) moved.push_back({name, oid});
  }
  if (!now.detached.empty() && now.detached != state_.seen.detached &&
      std::none_of(now.refs.begin(), now.refs.end(),
                   [&](const auto& ref) { return ref.second == now.detached; }))
    moved.push_back({"HEAD", now.detached});
  std::vector<std::string> unknown;
  for (const wire::Ref& ref : moved) {
    if (ref.oid.size() == store_->oid_digits() && !store_->has(ref.oid)) unknown.push_back(ref.oid);
  }
  std::string why = "its commits are not in the workspace's repository";
  if (!unknown.empty()) {
    fs::path quarantine = options_.store / "adopting";
    std::error_code ignored;
    fs::remove_all(quarantine, ignored);
    fs::create_directories(quarantine, ignored);
    auto adopt = [&]() -> result<void> {
      auto directory = Beneath::open(quarantine);
      if (!directory) return directory.error();
      auto copied = WorkspaceGit(root_, {}).copy_objects(*directory, wire::kMaxPackBytes);
      if (!copied) return copied;
      // Their indexes were made in the sandbox as well: ours are made anew.
      Git apart = store_->git().with_variable("GIT_OBJECT_DIRECTORY", quarantine.string());
      auto packs = directory->list("pack");
      for (const std::string& pack : packs ? *packs : std::vector<std::string>()) {
        auto indexed = apart.out({"index-pack", (quarantine / "pack" / pack).string()});
        if (!indexed) return indexed.error();
      }
      return store_->adopt(quarantine, unknown);
    };
    auto adopted = adopt();
    if (!adopted) why = "its commits could not be read: " + adopted.error().what;
    fs::remove_all(quarantine, ignored);
  }
  std::vector<wire::Ref> here;
  for (wire::Ref& ref : moved) {
    if (ref.oid.size() == store_->oid_digits() && store_->read_commit(ref.oid)) {
      here.push_back(std::move(ref));
    } else {
      left_out.push_back({ref.name, why});
    }
  }
  return here;
}

result<std::optional<wire::Result>> BoxWorkspace::take_result(const std::string& origin) {
  if (!is_origin(origin)) return Failure(Errc::bad_input, "the origin's id");
  if (state_.sync.snapshot.empty()) return std::optional<wire::Result>();
  auto lock = store_->lock();
  if (!lock) return lock.error();
  auto refreshed = refresh_root();
  if (!refreshed) return refreshed.error();
  ObjectWriter writer(*store_);
  auto scan = scan_workspace(context(), state_.tree, state_.sync, writer);
  if (!scan) return scan.error();
  auto saved = cache_->save();
  if (!saved) return saved.error();

  wire::Result taken;
  auto merged = state_.merged.find(origin);
  taken.base = merged == state_.merged.end() ? state_.sync.snapshot : merged->second;
  taken.left_out = scan->left_out;
  if (state_.sync.git)
    taken.commits = moved_commits(WorkspaceGit(root_, {}).read(), taken.left_out);
  auto base_tree = store_->tree_of(taken.base);
  if (!base_tree) return base_tree.error();

  auto remember = [&]() -> result<void> {
    if (state_.tree == scan->tree && state_.applying.empty()) return {};
    state_.tree = scan->tree;
    state_.applying.clear();
    return save_state(state_file(), state_);
  };
  if (scan->tree == *base_tree && taken.commits.empty()) {
    auto remembered = remember();
    if (!remembered) return remembered.error();
    // The files went back to what the base holds: an earlier result that nobody merged is no longer
    // what is here.
    auto refs = store_->list_refs(std::string(kResults) + origin + "/");
    if (refs.empty()) return std::optional<wire::Result>();
    auto last = store_->read_commit(refs.back().second);
    if (!last || last->parents.empty() || last->parents.front() != taken.base ||
        last->tree == scan->tree)
      return std::optional<wire::Result>();
  }
  std::vector<std::string> parents{taken.base};
  for (const wire::Ref& ref : taken.commits) {
    if (std::find(parents.begin(), parents.end(), ref.oid) == parents.end())
      parents.push_back(ref.oid);
  }
  auto commit = store_->write_commit(scan->tree, parents, result_message(taken.commits));
  if (!commit) return commit.error();
  taken.result = *commit;
  const std::string prefix = std::string(kResults) + origin + "/";
  auto refs = store_->list_refs(prefix);
  bool again = !refs.empty() && refs.back().second == taken.result;
  if (!again) {
    auto kept = store_->set_ref(prefix + numbered(next_number(prefix)), taken.result);
    if (!kept) return kept.error();
  }
  auto remembered = remember();
  if (!remembered) return remembered.error();
  if (again) return std::optional<wire::Result>();
  return std::optional(std::move(taken));
}

result<void> BoxWorkspace::write_pack(const wire::Result& result, const std::string& merged,
                                      os::Fd out) {
  if (!is_object_id(result.result)) return Failure(Errc::bad_input, "the result's id");
  // Whose result is it, and does that origin have what it grew from? Another origin's snapshot goes
  // along.
  std::string origin;
  for (const auto& [name, oid] : store_->list_refs(std::string(kResults))) {
    if (oid != result.result) continue;
    origin = name.substr(kResults.size());
    origin.resize(origin.find('/') == std::string::npos ? origin.size() : origin.find('/'));
  }
  std::vector<std::string> haves;
  if (!merged.empty() && is_object_id(merged) && store_->has(merged)) haves.push_back(merged);
  if (!origin.empty()) {
    bool theirs = store_->get_ref(std::string(kMerged) + origin) == result.base;
    for (const auto& [name, oid] : store_->list_refs(std::string(kSnapshots)))
      theirs = theirs || (oid == result.base && name.ends_with("-" + origin));
    if (theirs) haves.push_back(result.base);
  }
  return store_->write_pack({result.result}, haves, {}, std::move(out));
}

// ---- apply -----------------------------------------------------------------------------------

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
  std::vector<wire::LeftOut> lost_names;
  if (sync.git && !state.sync.snapshot.empty()) {
    RepositoryRefs now = WorkspaceGit(root_, {}).read();
    std::vector<wire::LeftOut> unreadable;
    std::set<std::string> kept;
    for (const auto& [name, oid] : store_->list_refs(std::string(kResults))) {
      auto commit = store_->read_commit(oid);
      if (commit) kept.insert(commit->parents.begin(), commit->parents.end());
    }
    for (wire::Ref& ref : moved_commits(now, unreadable))
      if (!kept.contains(ref.oid)) lost.push_back(std::move(ref));
    answer.left_out = std::move(unreadable);
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
    if (!kept) return kept.error();
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
  state_ = std::move(state);
  auto saved = save_state(state_file(), state_);
  if (!saved) return saved.error();
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
  state.seen = git.read();
  return {};
}

result<void> BoxWorkspace::write_index(const WorkspaceGit& git, const wire::SyncStart& sync,
                                       const AppliedTree& applied, WorkspaceState& state) {
  const std::string staged = sync.staged.empty() ? sync.head : sync.staged;
  auto description = [&]() -> std::string {
    auto info = git.index_info();
    if (!info) return {};
    return (staged.empty() ? "none" : staged) + " " + sync.snapshot + " " +
           std::to_string(info->inode) + " " + std::to_string(info->size) + " " +
           std::to_string(info->modified_ns);
  };
  if (!applied.wrote && !state.index.empty() && state.index == description()) return {};

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
  state.index = description();
  return {};
}

// ---- idle ------------------------------------------------------------------------------------

void BoxWorkspace::tidy() {
  auto lock = store_->lock();
  if (!lock) return;
  auto drop_all_but = [&](std::string_view prefix, std::size_t kept) {
    auto refs = store_->list_refs(std::string(prefix));
    for (std::size_t i = 0; i + kept < refs.size(); ++i) store_->delete_ref(refs[i].first);
  };
  drop_all_but(kSnapshots, kKeptSnapshots);
  drop_all_but(kDrift, kKeptDrift);
  if (store_->clutter() < kClutter) return;
  // The workspace's .git borrows from the store: what it points at stays.
  for (const auto& [name, oid] : store_->list_refs(std::string(kBorrowed)))
    store_->delete_ref(name);
  std::set<std::string> borrowed;
  if (refresh_root()) {
    for (const auto& [name, oid] : WorkspaceGit(root_, {}).read().refs) borrowed.insert(oid);
  }
  for (const std::string& oid : borrowed) {
    if (has(oid)) (void)store_->set_ref(std::string(kBorrowed) + oid, oid);
  }
  (void)store_->tidy();
}

}  // namespace

result<std::unique_ptr<Workspace>> Workspace::open(WorkspaceOptions options) {
  options.store = fs::absolute(options.store);
  options.workspace = fs::absolute(options.workspace);
  std::error_code error;
  fs::create_directories(options.store, error);
  if (!error) fs::create_directories(options.workspace, error);
  if (error) return os::errno_failure(error.value(), options.workspace.native());
  auto git = Git::find(options.git, options.store / "git-version");
  if (!git) return git.error();
  auto store = ObjectStore::open(*git, {options.store, "sha1", {}, false});
  if (!store && store.error().code == Errc::bad_input)
    store = ObjectStore::open(*git, {options.store, "sha256", {}, false});
  if (!store) return store.error();
  auto root = Beneath::open(options.workspace);
  if (!root) return root.error();
  return std::unique_ptr<Workspace>(
      std::make_unique<BoxWorkspace>(std::move(options), std::move(*git), std::move(*root),
                                     std::make_unique<ObjectStore>(std::move(*store))));
}

}  // namespace protocol::sync
