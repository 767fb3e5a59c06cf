#include "protocol/sync/origin.h"

#include <fcntl.h>

#include <algorithm>
#include <map>
#include <set>

#include "protocol/os/flock.h"
#include "protocol/os/paths.h"
#include "protocol/sync/merge.h"
#include "protocol/sync/object_store.h"
#include "protocol/sync/scan.h"
#include "protocol/sync/snapshot_builder.h"
#include "protocol/sync/user_repository.h"
#include "protocol/sync/workspace_git.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;
namespace fs = std::filesystem;

namespace {

constexpr int kScans = 5;             // while HEAD or the index keep moving
constexpr std::size_t kClutter = 60;  // packs and hundreds of loose objects: time to tidy

bool is_id(const std::string& text, std::size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// A sandbox's name goes into a ref and a file.
bool is_sandbox_name(const std::string& name) {
  return !name.empty() && name.size() <= wire::kMaxNameBytes &&
         name.find('/') == std::string::npos && is_ref_name("refs/sandboxes/" + name);
}

// Made once. Two processes that start at the same time agree on one. A damaged one is not replaced:
// what boxes keep for this work tree is known by it.
result<std::string> read_or_make_id(const fs::path& store) {
  fs::path file = store / "id";
  auto read = [&]() -> result<std::string> {
    auto text = os::read_file(file, 256);
    if (!text) return text.error();
    std::string id = text->substr(0, text->find('\n'));
    if (!is_id(id, 32)) return Failure(Errc::bad_input, file.native() + ": damaged");
    return id;
  };
  auto known = read();
  if (known || known.error().code != Errc::not_found) return known;
  auto lock = os::FileLock::lock(store / "id.lock", os::FileLock::Kind::exclusive);
  if (!lock) return lock.error();
  known = read();
  if (known || known.error().code != Errc::not_found) return known;
  std::string id = os::random_hex(32);
  auto written = os::write_file(file, id + "\n");
  if (!written) return written.error();
  return id;
}

}  // namespace

class WorkTreeOrigin : public Origin {
 public:
  WorkTreeOrigin(OriginOptions options, std::string id, Git git, os::Beneath root,
                 std::unique_ptr<UserRepository> repository, std::string no_git, ObjectStore store)
      : options_(std::move(options)),
        id_(std::move(id)),
        git_(std::move(git)),
        root_(std::move(root)),
        repository_(std::move(repository)),
        no_git_(std::move(no_git)),
        store_(std::move(store)),
        builder_(store_, options_.store) {}

  std::string id() const override { return id_; }
  result<Snapshot> snapshot() override;
  std::string base(const std::string& sandbox) override { return get(sandbox, "base"); }
  std::string merged(const std::string& sandbox) override { return get(sandbox, "merged"); }
  result<void> set_base(const std::string& sandbox, const std::string& commit) override;
  void forget(const std::string& sandbox) override;
  result<void> write_pack(const Snapshot& snapshot, const std::vector<std::string>& haves,
                          os::Fd out) override;
  result<void> read_pack(os::Fd in, std::uint64_t max_bytes,
                         const std::vector<std::string>& shallow) override;
  std::vector<std::string> sandboxes() override;
  result<MergeReport> merge(const std::string& sandbox, const wire::Result& result) override;
  result<MergeReport> merge_unwritten(const std::string& sandbox) override;

 private:
  std::string get(const std::string& sandbox, const char* what) const {
    return is_sandbox_name(sandbox) ? store_.get_ref(ref(sandbox, what)) : std::string();
  }
  // Says, once there is a report to say it in, where a damaged record is kept.
  void name_damaged(MergeReport& report) {
    for (const fs::path& file : std::exchange(damaged_, {})) {
      report.refused.push_back(
          {file.native(),
           "the record of what could not be written here was damaged and is kept so; the files "
           "are under refs/kept/ of the store beside it"});
    }
  }
  result<std::vector<Unwritten>> take_unwritten(const std::string& sandbox) {
    auto record = read_unwritten(unwritten_file(sandbox));
    if (!record) return record.error();
    if (!record->damaged.empty()) damaged_.push_back(std::move(record->damaged));
    return std::move(record->all);
  }
  static std::string ref(const std::string& sandbox, const char* what) {
    return "refs/sandboxes/" + sandbox + "/" + what;
  }
  WorkTree open_cache() { return WorkTree::open(store_, root_, options_.store / "scan"); }
  std::unique_ptr<NameSource> plain_names() {
    return std::make_unique<StoreNames>(store_, options_.work_tree, "", "");
  }
  fs::path unwritten_file(const std::string& sandbox) const {
    return options_.store / "unwritten" / sandbox;
  }
  // Calls `merging` with what a merge needs.
  template <class Merging>
  result<MergeReport> with_context(const Merging& merging);
  std::vector<std::string> in_use() const;
  result<Snapshot> take(WorkTree& cache);
  result<bool> store_again(const Snapshot& snapshot);

  OriginOptions options_;
  std::string id_;
  Git git_;
  os::Beneath root_;
  std::unique_ptr<UserRepository> repository_;  // null: without git
  std::string no_git_;                          // why a .git that is there does not count
  ObjectStore store_;
  SnapshotBuilder builder_;
  std::vector<fs::path> damaged_;                // records that were put aside, not yet told
  std::map<std::string, SnapshotRecord> taken_;  // by this object, with what went with them
};

result<std::unique_ptr<Origin>> Origin::open(OriginOptions options) {
  options.work_tree = fs::absolute(options.work_tree).lexically_normal();
  options.store = fs::absolute(options.store).lexically_normal();
  auto root = os::Beneath::open(options.work_tree);
  if (!root) return root.error();
  auto made = os::make_private_directory(options.store);
  if (!made) return made.error();
  auto git = Git::find(options.git, options.store / "git-version");
  if (!git) return git.error();
  auto id = read_or_make_id(options.store);
  if (!id) return id.error();
  std::string no_git;
  auto repository =
      UserRepository::open(*git, options.work_tree, options.store / "repository", &no_git);
  if (!repository) return repository.error();
  ObjectStore::Options store_options;
  store_options.directory = options.store / "store.git";
  store_options.cache = true;
  if (*repository) {
    store_options.object_format = (*repository)->object_format();
    store_options.alternates = {(*repository)->objects()};
  }
  auto store = ObjectStore::open(*git, std::move(store_options));
  if (!store) return store.error();
  return std::unique_ptr<Origin>(
      new WorkTreeOrigin(std::move(options), std::move(*id), std::move(*git), std::move(*root),
                         std::move(*repository), std::move(no_git), std::move(*store)));
}

std::vector<std::string> WorkTreeOrigin::in_use() const {
  std::vector<std::string> commits;
  for (const auto& [name, oid] : store_.list_refs("refs/sandboxes/")) commits.push_back(oid);
  return commits;
}

// The caller holds the lock.
result<Snapshot> WorkTreeOrigin::take(WorkTree& cache) {
  for (int scans = 1;; ++scans) {
    std::string stamp;
    if (repository_) {
      auto refreshed = repository_->refresh();
      if (!refreshed) return refreshed.error();
      stamp = repository_->stamp();
      auto shallow = store_.set_shallow(repository_->facts().shallow);
      if (!shallow) return shallow.error();
    }
    std::unique_ptr<NameSource> plain = repository_ ? nullptr : plain_names();
    NameSource& names = repository_ ? static_cast<NameSource&>(*repository_) : *plain;
    ObjectWriter writer(store_);
    auto scan = cache.scan(names, options_.includes, writer);
    if (!scan) return scan.error();
    if (repository_ && repository_->stamp() != stamp && scans < kScans) {
      // What was hashed is not lost: only what is new by then is read.
      auto finished = writer.finish();
      if (!finished) return finished.error();
      continue;
    }
    auto snapshot = builder_.build(*scan, repository_.get(), options_.depth, writer);
    if (!snapshot) return snapshot.error();
    auto finished = writer.finish();
    if (!finished) return finished.error();
    auto saved = cache.save();
    if (!saved) return saved.error();
    snapshot->sync.includes = options_.includes;
    if (!no_git_.empty()) snapshot->left_out.push_back({".git", "not used: " + no_git_});
    auto kept = builder_.keep(*snapshot, in_use());
    if (!kept) return kept.error();
    return snapshot;
  }
}

result<Snapshot> WorkTreeOrigin::snapshot() {
  auto lock = store_.lock();
  if (!lock) return lock.error();
  WorkTree cache = open_cache();
  auto snapshot = take(cache);
  if (!snapshot && snapshot.error().code != Errc::no_space &&
      snapshot.error().code != Errc::denied) {
    // Perhaps what is remembered is wrong. Nothing in the store is needed to make it anew.
    builder_.forget();
    cache.forget();
    store_.drop_empty_objects();
    auto again = take(cache);
    if (!again) return snapshot;
    snapshot = std::move(again);
  }
  if (snapshot) taken_[snapshot->sync.snapshot] = builder_.record(snapshot->sync.snapshot);
  return snapshot;
}

std::vector<std::string> WorkTreeOrigin::sandboxes() {
  constexpr std::string_view prefix = "refs/sandboxes/", suffix = "/base";
  std::vector<std::string> ids;
  for (const auto& [name, oid] : store_.list_refs(std::string(prefix))) {
    if (name.ends_with(suffix))
      ids.push_back(name.substr(prefix.size(), name.size() - prefix.size() - suffix.size()));
  }
  return ids;
}

result<void> WorkTreeOrigin::set_base(const std::string& sandbox, const std::string& commit) {
  if (!is_sandbox_name(sandbox))
    return Failure(Errc::bad_input, "`" + sandbox + "` is not a sandbox's id");
  auto lock = store_.lock();
  if (!lock) return lock.error();
  auto taken = taken_.find(commit);
  SnapshotRecord record = taken != taken_.end() ? taken->second : builder_.record(commit);
  record.commit = commit;
  builder_.set_base(sandbox, record);
  auto set = store_.set_ref(ref(sandbox, "base"), commit);
  // Here nobody waits for it: the command is just beginning.
  if (store_.clutter() > kClutter) (void)store_.tidy();
  return set;
}

void WorkTreeOrigin::forget(const std::string& sandbox) {
  if (!is_sandbox_name(sandbox)) return;
  auto lock = store_.lock();
  store_.delete_ref(ref(sandbox, "base"));
  store_.delete_ref(ref(sandbox, "merged"));
  builder_.forget_base(sandbox);
}

// Reads and stores every file once more. True: the tree is still the one that was promised.
result<bool> WorkTreeOrigin::store_again(const Snapshot& snapshot) {
  auto lock = store_.lock();
  if (!lock) return lock.error();
  builder_.forget();
  store_.drop_empty_objects();
  WorkTree cache = open_cache();
  cache.forget();
  auto again = take(cache);
  if (!again) return again.error();
  return again->tree == snapshot.tree;
}

result<void> WorkTreeOrigin::write_pack(const Snapshot& snapshot,
                                        const std::vector<std::string>& haves, os::Fd out) {
  std::vector<std::string> tips{snapshot.sync.snapshot};
  for (const wire::Ref& known : snapshot.sync.refs) tips.push_back(known.oid);
  std::set<std::string> shallow(snapshot.sync.shallow.begin(), snapshot.sync.shallow.end());
  std::set<std::string> negative;
  std::vector<SnapshotRecord> bases = builder_.bases();
  for (const std::string& have : haves) {
    if (!is_object_id(have) || have.size() != store_.oid_digits()) continue;
    negative.insert(have);
    // What every box with that base has besides. History that ends there ends here too: what lies
    // beyond was not sent, and must not be taken for known.
    bool first = true;
    std::vector<std::string> besides;
    for (SnapshotRecord& record : bases) {
      if (record.commit != have) continue;
      shallow.insert(record.shallow.begin(), record.shallow.end());
      std::sort(record.tips.begin(), record.tips.end());
      if (first) {
        besides = record.tips;
      } else {
        std::vector<std::string> both;
        std::set_intersection(besides.begin(), besides.end(), record.tips.begin(),
                              record.tips.end(), std::back_inserter(both));
        besides = std::move(both);
      }
      first = false;
    }
    if (first) {
      SnapshotRecord record = builder_.record(have);
      shallow.insert(record.shallow.begin(), record.shallow.end());
    }
    negative.insert(besides.begin(), besides.end());
  }
  std::vector<std::string> known(negative.begin(), negative.end());
  std::vector<std::string> ends(shallow.begin(), shallow.end());
  os::Fd again(::fcntl(out.get(), F_DUPFD_CLOEXEC, 0));
  auto written = store_.write_pack(tips, known, ends, std::move(out));
  if (written || written.error().code != Errc::not_found) return written;
  // Nothing was written: an object has gone from the repository that we borrow from.
  auto same = store_again(snapshot);
  if (!same) return same.error();
  if (!*same)
    return Failure(Errc::not_found, "the work tree changed while its objects were looked for: " +
                                        written.error().what);
  os::Fd last(std::move(again));
  written = store_.write_pack(tips, known, ends, std::move(last));
  if (!written && written.error().code == Errc::not_found) builder_.doubt_history();
  return written;
}

result<void> WorkTreeOrigin::read_pack(os::Fd in, std::uint64_t max_bytes,
                                       const std::vector<std::string>& shallow) {
  ImportLimits limits;
  limits.bytes = max_bytes;
  auto read = store_.read_pack(std::move(in), shallow, limits);
  if (read || read.error().code != Errc::bad_input) return read;
  // How index-pack says that what a pack refers to, or builds on, is nowhere.
  for (const char* words :
       {"did not receive expected object", "unresolved delta", "missing object"})
    if (read.error().what.find(words) != std::string::npos)
      return Failure(Errc::not_found, read.error().what);
  return read;
}

result<MergeReport> WorkTreeOrigin::merge(const std::string& sandbox, const wire::Result& result) {
  if (!is_sandbox_name(sandbox))
    return Failure(Errc::bad_input, "`" + sandbox + "` is not a sandbox's id");
  auto lock = store_.lock();
  if (!lock) return lock.error();
  std::string before = merged(sandbox);
  if (!before.empty() && before == result.result) {
    MergeReport report;
    report.already = true;
    return report;
  }
  auto read = take_unwritten(sandbox);
  if (!read) return read.error();
  std::vector<Unwritten>& unwritten = *read;
  const bool had_any = !unwritten.empty();
  auto report = with_context([&](const MergeContext& context) {
    return merge_result(context, before, result, unwritten);
  });
  if (!report && report.error().code == Errc::bad_input) {
    // What we know that we had, and have no more.
    bool ours = result.base == before || result.base == base(sandbox) ||
                builder_.record(result.base).commit == result.base;
    bool here = store_.is_complete(result.base) && (before.empty() || store_.is_complete(before));
    if (ours && !result.base.empty() && !here) return Failure(Errc::not_found, report.error().what);
  }
  if (!report) return report;
  name_damaged(*report);
  // First: what is recorded as merged is not asked for again.
  if (had_any || !unwritten.empty()) {
    auto kept = write_unwritten(unwritten_file(sandbox), unwritten);
    if (!kept) return kept.error();
  }
  auto recorded = store_.set_ref(ref(sandbox, "merged"), result.result);
  if (!recorded) return recorded.error();
  return report;
}

result<MergeReport> WorkTreeOrigin::merge_unwritten(const std::string& sandbox) {
  if (!is_sandbox_name(sandbox)) return MergeReport();
  auto lock = store_.lock();
  if (!lock) return lock.error();
  auto read = take_unwritten(sandbox);
  if (!read) return read.error();
  std::vector<Unwritten>& unwritten = *read;
  if (unwritten.empty()) {
    MergeReport nothing;
    name_damaged(nothing);
    return nothing;
  }
  auto report = with_context([&](const MergeContext& context) {
    return protocol::sync::merge_unwritten(context, unwritten);
  });
  if (!report) return report;
  name_damaged(*report);
  auto kept = write_unwritten(unwritten_file(sandbox), unwritten);
  if (!kept) return kept.error();
  return report;
}

template <class Merging>
result<MergeReport> WorkTreeOrigin::with_context(const Merging& merging) {
  WorkTree cache = open_cache();
  std::optional<Git> repository;
  bool trusts_modes = true;
  if (repository_) {
    auto refreshed = repository_->refresh();
    if (!refreshed) return refreshed.error();
    repository = repository_->repository();
    trusts_modes = repository_->facts().trusts_modes;
  }
  return merging(
      MergeContext{root_, store_, cache, repository, options_.store / "merging", trusts_modes});
}

}  // namespace protocol::sync
