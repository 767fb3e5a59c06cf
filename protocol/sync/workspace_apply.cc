#include "protocol/sync/workspace_apply.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "protocol/sync/file_id.h"
#include "protocol/sync/path_rules.h"

namespace protocol::sync {

using os::FileInfo;
using wire::Errc;
using wire::Failure;
using State = ChangeOutcome::State;

namespace {

constexpr int kLooks = 20;  // how deep directories may be shut in one another
constexpr int kRounds = 4;  // the last one writes whatever happens meanwhile
constexpr std::size_t kGoes = static_cast<std::size_t>(-1);

// It would have to be kept before it is replaced.
Failure unreadable(const std::string& path) {
  return Failure(Errc::denied, path +
                                   ": it cannot be read in the sandbox, and is not replaced "
                                   "unseen; make it readable or remove it there");
}

bool is_file_mode(std::uint32_t mode) { return mode == kModeFile || mode == kModeProgram; }

}  // namespace

result<Scan> scan_workspace(const ApplyContext& context, const std::string& tree,
                            const wire::SyncStart& sync, ObjectWriter& writer) {
  OpenedUp opened(context.root);
  return scan_workspace(context, tree, sync, writer, opened);
}

result<Scan> scan_workspace(const ApplyContext& context, const std::string& tree,
                            const wire::SyncStart& sync, ObjectWriter& writer, OpenedUp& opened) {
  StoreNames names(context.store, context.workspace, tree, sync.excludes);
  opened.open("");  // git has to come in
  for (int looks = 1;; ++looks) {
    auto scan = context.cache.scan(names, sync.includes, writer);
    if (scan && writer.used()) {
      auto finished = writer.finish();
      if (!finished) scan = finished.error();
    }
    // What it handed to the writer and took for stored is not there.
    if (!scan && writer.failed()) context.cache.forget();
    if (!scan) return scan;
    bool again = false;
    for (const Unread& unread : scan->unread) again = opened.open(unread.path) || again;
    if (again && looks < kLooks) continue;
    for (wire::LeftOut& unread : name_unread(scan->unread, End::sandbox))
      scan->left_out.push_back(std::move(unread));
    return scan;
  }
}

result<AppliedTree> WorkspaceApply::run(const KeepDrift& keep_drift) {
  auto cleaned = TreeWriter::clean_up(context_.root, context_.journal);
  if (!cleaned) return cleaned.error();
  auto wanted = context_.store.list_tree(sync_.snapshot);
  if (!wanted) return wanted.error();
  for (TreeEntry& entry : *wanted) {
    std::string why = refuse_path(entry.path);
    if (why.empty()) {
      applied_.wanted.push_back(std::move(entry));
    } else {
      applied_.left_out.push_back({entry.path, std::move(why)});
    }
  }
  known_ = state_.tree;

  for (int round = 1; round <= kRounds; ++round) {
    applied_.infos.assign(applied_.wanted.size(), std::nullopt);
    ObjectWriter writer(context_.store);
    auto scan = scan_workspace(context_, state_.tree, sync_, writer, opened_);
    if (!scan) return scan.error();
    ObjectWriter hidden(context_.store);
    auto plan = this->plan(*scan, hidden, round == kRounds);
    if (!plan) return plan.error();
    auto drift = find_drift(*scan, *plan, hidden);
    if (!drift) return drift.error();
    if (hidden.used()) {
      auto finished = hidden.finish();
      if (!finished) return finished.error();
    }
    if (!drift->empty()) {
      auto kept = keep_drift(*drift);
      if (!kept) return kept.error();
      applied_.drift = *drift;
    }
    known_ = scan->tree;
    if (round == 1)
      applied_.left_out.insert(applied_.left_out.end(), scan->left_out.begin(),
                               scan->left_out.end());
    auto settled = write(*plan);
    auto saved = context_.cache.save();
    if (!settled) return settled.error();
    if (!saved) return saved.error();
    if (*settled) break;
  }
  return std::move(applied_);
}

// ---- what is to be done ----------------------------------------------------------------------

result<WorkspaceApply::Plan> WorkspaceApply::plan(const Scan& scan, ObjectWriter& writer,
                                                  bool last) {
  Plan plan;
  auto scanned = scan.entries.begin();
  auto goes = [&](const ScanEntry& entry) -> result<void> {
    if (!entry.read) return unreadable(entry.path);
    Change change{entry.path, std::nullopt, entry.info};
    if (entry.mode == kModeSubmodule) change.expected->kind = FileInfo::Kind::directory;
    change.unconditional = last && entry.mode != kModeSubmodule;
    plan.changes.push_back(std::move(change));
    plan.places.push_back(kGoes);
    return {};
  };
  for (std::size_t place = 0; place < applied_.wanted.size(); ++place) {
    const TreeEntry& entry = applied_.wanted[place];
    for (; scanned != scan.entries.end() && scanned->path < entry.path; ++scanned) {
      auto gone = goes(*scanned);
      if (!gone) return gone.error();
    }
    const ScanEntry* found = nullptr;
    if (scanned != scan.entries.end() && scanned->path == entry.path) found = &*scanned++;
    auto added = add_wanted(place, found, writer, last, plan);
    if (!added) return added.error();
  }
  for (; scanned != scan.entries.end(); ++scanned) {
    auto gone = goes(*scanned);
    if (!gone) return gone.error();
  }
  return plan;
}

result<void> WorkspaceApply::add_wanted(std::size_t place, const ScanEntry* scanned,
                                        ObjectWriter& writer, bool last, Plan& plan) {
  const TreeEntry& entry = applied_.wanted[place];
  Change change{entry.path, Wanted{entry.mode, entry.oid}, std::nullopt};
  change.unconditional = last;
  std::optional<Wanted> there;
  if (scanned) {
    there = Wanted{scanned->mode, scanned->oid};
    change.expected = scanned->info;
    if (scanned->mode == kModeSubmodule || !scanned->read) change.expected.reset();
    if (!scanned->read && *there != *change.to) return unreadable(entry.path);
  } else {
    // Nothing that the scan lists. An ignored file may be there all the same, and then it has to be
    // kept.
    auto info = context_.root.info(entry.path);
    if (!info && info.error().code == Errc::denied && opened_.open(entry.path))
      info = context_.root.info(entry.path);
    if (!info) return info.error();
    if (*info && (*info)->kind != FileInfo::Kind::directory) {
      change.expected = *info;
      auto identity = identify(context_.root, entry.path, context_.store.object_format());
      if (!identity && identity.error().code == Errc::denied && opened_.open(entry.path))
        identity = identify(context_.root, entry.path, context_.store.object_format());
      if (!identity && identity.error().code == Errc::denied) return unreadable(entry.path);
      if (!identity && identity.error().code != Errc::busy) return identity.error();
      if (identity) {
        there = identity->wanted;
        change.expected = identity->info;
      }
      if (there && there->oid != entry.oid) {
        std::string oid;
        if (there->mode == kModeLink) {
          auto target = context_.root.read_link(entry.path);
          auto blob = target ? writer.blob(*target) : result<std::string>(target.error());
          if (blob) oid = *blob;
        } else if (auto file = context_.root.open_file(entry.path)) {
          auto blob = writer.blob(*file);
          if (!blob) return blob.error();
          oid = blob->oid;
        }
        if (!oid.empty()) plan.hidden.push_back({entry.path, there->mode, oid});
      }
    }
  }
  if (there && *there == *change.to) {
    applied_.infos[place] = change.expected;
    if (!scanned && change.expected)
      context_.cache.wrote(entry.path, *change.expected, entry.mode, entry.oid);
    return {};
  }
  change.only_mode =
      there && there->oid == entry.oid && is_file_mode(there->mode) && is_file_mode(entry.mode);
  plan.changes.push_back(std::move(change));
  plan.places.push_back(place);
  return {};
}

// ---- what would be lost ----------------------------------------------------------------------

// The tree that has to be kept before the plan is carried out; empty: none.
result<std::string> WorkspaceApply::find_drift(const Scan& scan, const Plan& plan,
                                               ObjectWriter& writer) {
  bool drifted = false;
  auto name = [&](const std::string& path) {
    drifted = true;
    auto& paths = applied_.drifted;
    if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(path);
  };
  for (const TreeChange& change : plan.hidden) name(change.path);
  if (scan.tree != known_) {
    auto differences = context_.store.diff_trees(known_, scan.tree);
    if (!differences) return differences.error();
    std::unordered_map<std::string, Wanted> interrupted;
    if (!state_.applying.empty() && !differences->empty()) {
      auto entries = context_.store.list_tree(state_.applying);
      if (entries) {
        for (TreeEntry& entry : *entries)
          interrupted.emplace(std::move(entry.path), Wanted{entry.mode, std::move(entry.oid)});
      }
    }
    // Only what the plan would overwrite is lost: not what is wanted anyway, and not what an apply
    // left that was interrupted.
    std::unordered_map<std::string_view, const Change*> planned;
    for (const Change& change : plan.changes) planned.emplace(change.path, &change);
    for (const TreeDifference& difference : *differences) {
      if (!planned.contains(difference.path)) continue;
      auto half = interrupted.find(difference.path);
      bool ours = half == interrupted.end()
                      ? !state_.applying.empty() && difference.new_mode == 0
                      : half->second == Wanted{difference.new_mode, difference.new_oid};
      if (!ours) name(difference.path);
    }
  }
  if (!drifted) return std::string();
  std::sort(applied_.drifted.begin(), applied_.drifted.end());
  if (plan.hidden.empty()) return scan.tree;
  return writer.tree(scan.tree, plan.hidden);
}

// ---- doing it --------------------------------------------------------------------------------

// False: something moved meanwhile, look again.
result<bool> WorkspaceApply::write(const Plan& plan) {
  std::vector<std::string> oids;
  for (const Change& change : plan.changes) {
    if (change.to && !change.only_mode && change.to->mode != kModeSubmodule)
      oids.push_back(change.to->oid);
  }
  blobs_.expect(std::move(oids));
  TreeWriter writer(context_.root,
                    [this](const std::string& oid, const TreeWriter::Sink& sink) {
                      return blobs_.read(oid, sink);
                    },
                    {.durable = false, .force = true, .journal = context_.journal});
  if (!plan.changes.empty()) applied_.wrote = true;
  auto outcomes = writer.run(plan.changes);
  for (const auto& [from, to] : writer.moved_aside())
    applied_.left_out.push_back({from, "it was in the way and is now " + to});
  if (!outcomes) return outcomes.error();

  bool settled = true;
  std::optional<Failure> failure;
  for (std::size_t i = 0; i < plan.changes.size(); ++i) {
    const Change& change = plan.changes[i];
    const ChangeOutcome& outcome = (*outcomes)[i];
    switch (outcome.state) {
      case State::moved_on:
        settled = false;
        break;
      case State::obstructed:
      case State::failed:
        if (!failure) failure = outcome.failure;
        break;
      case State::done:
        if (!change.to) {
          context_.cache.removed(change.path);
        } else {
          applied_.infos[plan.places[i]] = outcome.info;
          if (outcome.info && change.to->mode != kModeSubmodule)
            context_.cache.wrote(change.path, *outcome.info, change.to->mode, change.to->oid);
        }
    }
  }
  if (failure) return *failure;
  return settled;
}

}  // namespace protocol::sync
