#include "protocol/sync/merge.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "protocol/sync/file_id.h"
#include "protocol/sync/path_rules.h"
#include "protocol/sync/result_message.h"
#include "protocol/sync/sandbox_commits.h"
#include "protocol/sync/three_way.h"
#include "protocol/sync/tree_writer.h"

namespace protocol::sync {

using os::FileInfo;
using wire::Errc;
using wire::Failure;
using State = ChangeOutcome::State;

namespace {

const std::string kKept(kKeptRefs);
std::string files_of(const std::string& result) { return kKept + result + std::string(kCopied); }

constexpr int kRounds = 5;  // how often a file may change under us before it is called a conflict

std::optional<Wanted> side(std::uint32_t mode, const std::string& oid) {
  if (mode == 0) return std::nullopt;
  return Wanted{mode, oid};
}

// One merge from its beginning to its end.
class Merge {
 public:
  Merge(const MergeContext& context, std::string base, std::string theirs)
      : context_(context),
        base_(std::move(base)),
        theirs_(std::move(theirs)),
        blobs_(context.store.blob_reader()) {}

  result<MergeReport> run(const wire::Result& result, std::vector<Unwritten>& unwritten);
  result<MergeReport> run_again(std::vector<Unwritten>& unwritten);

 private:
  struct Step {
    const TreeDifference* difference;
    Change change;
  };
  result<std::vector<TreeDifference>> judged();
  result<void> write_all(const std::vector<TreeDifference>& differences);
  result<MergeReport> finish();
  result<void> round(std::vector<const TreeDifference*>& pending);
  result<std::optional<Step>> plan(const TreeDifference& difference);
  void settle(const Step& step, const ChangeOutcome& outcome,
              std::vector<const TreeDifference*>& again);
  void conflict(const TreeDifference& difference, std::string why);
  void refuse(const std::string& path, std::string why) {
    report_.refused.push_back({path, std::move(why)});
  }
  // As refuse, but it may go another time.
  void put_off(const TreeDifference& difference, std::string why) {
    refuse(difference.path, std::move(why));
    put_off_.push_back(&difference);
  }
  result<void> save_conflicts();
  struct ConflictPlace {
    std::string path;
    bool saved = false;  // it has these very bytes already
  };
  result<ConflictPlace> conflict_place(const std::string& path, const std::string& oid);
  result<std::string> keep(const std::string& name);
  TreeWriter writer() {
    return TreeWriter(context_.root,
                      [this](const std::string& oid, const TreeWriter::Sink& sink) {
                        return blobs_.read(oid, sink);
                      },
                      {.durable = true, .force = false, .journal = context_.journal});
  }
  result<std::vector<ChangeOutcome>> write(const std::vector<Change>& changes) {
    std::vector<std::string> oids;
    for (const Change& change : changes) {
      if (change.to && !change.only_mode && change.to->mode != kModeSubmodule)
        oids.push_back(change.to->oid);
    }
    blobs_.expect(std::move(oids));
    return writer().run(changes);
  }

  const MergeContext& context_;
  std::string base_, theirs_;
  BlobReader blobs_;
  MergeReport report_;
  std::vector<std::pair<const TreeDifference*, std::size_t>>
      to_save_;  // and its place in the report
  std::vector<const TreeDifference*> put_off_;
};

result<MergeReport> Merge::run(const wire::Result& wire_result, std::vector<Unwritten>& unwritten) {
  auto differences = judged();
  if (!differences) return differences.error();
  // Of an earlier result that is not here, its base still is.
  std::map<std::string_view, const TreeDifference*> earlier;
  for (const Unwritten& one : unwritten) earlier.emplace(one.difference.path, &one.difference);
  for (TreeDifference& difference : *differences) {
    auto found = earlier.find(difference.path);
    if (found == earlier.end()) continue;
    difference.old_mode = found->second->old_mode;
    difference.old_oid = found->second->old_oid;
  }
  auto written = write_all(*differences);
  if (!written) return written.error();
  std::size_t refused_files = report_.refused.size();
  if (!wire_result.commits.empty()) {
    auto fetched = fetch_sandbox_commits(context_, wire_result, report_);
    if (!fetched) return fetched.error();
  }
  if (!report_.complete()) {
    auto kept = keep(wire_result.result);
    if (!kept) return kept.error();
    if (report_.refused.size() > refused_files) {
      for (const wire::Ref& ref : wire_result.commits)
        if (context_.store.has(ref.oid)) (void)context_.store.set_ref(kKept + ref.oid, ref.oid);
    }
    // What was not written is only there.
    auto store = os::Beneath::open(context_.store.directory());
    if (!store) return store.error();
    auto synced = store->sync_all();
    if (!synced) return synced.error();
    report_.kept.push_back({*kept, context_.store.directory()});
  }
  std::set<std::string_view> changed;
  for (const TreeDifference& difference : *differences) changed.insert(difference.path);
  std::erase_if(unwritten,
                [&](const Unwritten& one) { return changed.contains(one.difference.path); });
  for (const TreeDifference* difference : put_off_)
    unwritten.push_back({*difference, wire_result.result});
  return finish();
}

result<MergeReport> Merge::run_again(std::vector<Unwritten>& unwritten) {
  std::vector<TreeDifference> differences;
  std::map<std::string, std::string> results;
  for (Unwritten& one : unwritten) {
    results[one.difference.path] = one.result;
    differences.push_back(one.difference);
  }
  auto written = write_all(differences);
  if (!written) return written.error();
  unwritten.clear();
  for (const TreeDifference* difference : put_off_)
    unwritten.push_back({*difference, results.at(difference->path)});
  if (!unwritten.empty()) {
    std::string files = context_.store.get_ref(files_of(unwritten.back().result));
    report_.kept.push_back(
        {files.empty() ? unwritten.back().result : files, context_.store.directory()});
  }
  return finish();
}

result<void> Merge::write_all(const std::vector<TreeDifference>& differences) {
  auto cleaned = TreeWriter::clean_up(context_.root, context_.journal);
  if (!cleaned) return cleaned.error();
  std::vector<const TreeDifference*> pending;
  pending.reserve(differences.size());
  for (const TreeDifference& difference : differences) pending.push_back(&difference);
  for (int i = 0; i < kRounds && !pending.empty(); ++i) {
    auto done = round(pending);
    if (!done) return done.error();
  }
  for (const TreeDifference* difference : pending) conflict(*difference, "it keeps changing here");
  return save_conflicts();
}

result<MergeReport> Merge::finish() {
  auto cached = context_.cache.save();
  if (!cached) return cached.error();
  std::sort(report_.written.begin(), report_.written.end());
  std::sort(report_.deleted.begin(), report_.deleted.end());
  return std::move(report_);
}

// A commit of its own with the files that the result made or changed. Its objects are copied: those
// of the repository that we borrow from go when its owner collects garbage.
result<std::string> Merge::keep(const std::string& name) {
  auto differences = context_.store.diff_trees(base_, theirs_);
  if (!differences) return differences.error();
  std::vector<TreeChange> changes;
  for (const TreeDifference& difference : *differences)
    if (difference.new_mode != 0 && difference.new_mode != kModeSubmodule)
      changes.push_back({difference.path, difference.new_mode, difference.new_oid});
  auto make_tree = [&]() -> result<std::string> {
    ObjectWriter writer(context_.store);
    auto tree = writer.tree("", changes);
    if (!tree) return tree;
    auto finished = writer.finish();
    if (!finished) return finished.error();
    return tree;
  };
  auto tree = make_tree();
  if (!tree && tree.error().code == Errc::no_space) return tree;
  // Names that git makes no tree of: the box's own, then.
  if (!tree) tree = context_.store.tree_of(theirs_);
  if (!tree) return tree;
  auto commit = context_.store.write_commit(*tree, {}, "kept of " + name);
  if (!commit) return commit;
  auto copied = context_.store.copy_borrowed(*commit);
  if (!copied) return copied.error();
  auto named = context_.store.set_ref(files_of(name), *commit);
  if (named) named = context_.store.set_ref(kKept + name, name);  // as long as it is whole
  if (!named) return named.error();
  return commit;
}

// What the result changes, without the paths that must not be written.
result<std::vector<TreeDifference>> Merge::judged() {
  auto differences = context_.store.diff_trees(base_, theirs_);
  if (!differences) return differences.error();
  bool additions = std::any_of(differences->begin(), differences->end(),
                               [](const TreeDifference& d) { return d.old_mode == 0; });
  NameSet names;
  if (additions) {
    std::set<std::string_view> added;
    for (const TreeDifference& difference : *differences)
      if (difference.old_mode == 0) added.insert(difference.path);
    auto all = context_.store.list_tree(theirs_);
    if (!all) return all.error();
    for (const TreeEntry& entry : *all)
      if (!added.contains(entry.path)) names.known(entry.path);
    for (std::string_view path : added) names.add(path);
  }
  std::vector<TreeDifference> kept;
  for (TreeDifference& difference : *differences) {
    std::string why = refuse_path(difference.path);
    if (why.empty() && difference.old_mode == 0) why = names.judge(difference.path);
    if (why.empty() &&
        (difference.old_mode == kModeSubmodule || difference.new_mode == kModeSubmodule))
      why = "a submodule's commit is not brought back";
    if (why.empty()) {
      kept.push_back(std::move(difference));
    } else {
      refuse(difference.path, std::move(why));
    }
  }
  return kept;
}

result<void> Merge::round(std::vector<const TreeDifference*>& pending) {
  std::vector<Step> steps;
  std::vector<const TreeDifference*> again;
  for (const TreeDifference* difference : pending) {
    auto step = plan(*difference);
    if (!step) {
      if (step.error().code == Errc::no_space) return step.error();
      if (step.error().code == Errc::busy) {
        again.push_back(difference);
      } else {
        put_off(*difference, step.error().what);
      }
    } else if (*step) {
      steps.push_back(std::move(**step));
    }
  }
  std::vector<Change> changes;
  changes.reserve(steps.size());
  for (const Step& step : steps) changes.push_back(step.change);
  auto outcomes = write(changes);
  if (!outcomes) return outcomes.error();
  for (std::size_t i = 0; i < steps.size(); ++i) settle(steps[i], (*outcomes)[i], again);
  pending = std::move(again);
  return {};
}

// std::nullopt: nothing to write. Errc::busy: it changed while we read it.
result<std::optional<Merge::Step>> Merge::plan(const TreeDifference& difference) {
  const std::string& path = difference.path;
  auto ours = identify(context_.root, path, context_.store.object_format());
  if (!ours) return ours.error();
  Sides sides{side(difference.old_mode, difference.old_oid),
              side(difference.new_mode, difference.new_oid), ours->wanted};
  if (ours->info && ours->info->kind == FileInfo::Kind::other) {
    conflict(difference, "something that is neither file nor link is there");
    return std::optional<Step>();
  }
  if (!context_.trusts_modes && sides.ours && sides.ours->mode == kModeFile)
    sides.ours->mode = sides.base && sides.base->mode == kModeProgram ? kModeProgram : kModeFile;

  // Outside a sparse checkout it was sent as the index has it: that it is not on the disk is no
  // edit.
  if (!ours->info && sides.theirs && context_.cache.may_be_absent(path)) sides.ours = sides.base;

  Decision decision = decide(sides);
  Step step{&difference, {path, decision.to, ours->info}};
  if (step.change.expected && step.change.expected->kind == FileInfo::Kind::directory)
    step.change.expected.reset();  // nothing, once the directory has emptied
  switch (decision.kind) {
    case Decision::Kind::keep:
      return std::optional<Step>();
    case Decision::Kind::take:
      return std::optional(std::move(step));
    case Decision::Kind::only_mode:
      step.change.only_mode = true;
      return std::optional(std::move(step));
    case Decision::Kind::conflict:
      conflict(difference, decision.why);
      return std::optional<Step>();
    case Decision::Kind::merge_text:
      break;
  }
  FileInfo now;
  auto fd = context_.root.open_file(path, &now);
  if (!fd || !now.same_content(*ours->info)) return Failure(Errc::busy, path);
  auto stored = context_.store.write_blob(fd->get());
  if (!stored) return stored.error();
  if (*stored != sides.ours->oid) return Failure(Errc::busy, path);
  auto text = context_.store.merge_file(sides.base->oid, *stored, sides.theirs->oid);
  if (!text) return text.error();
  if (!*text) {
    conflict(difference, "changed on both sides, and the changes overlap");
    return std::optional<Step>();
  }
  step.change.to->oid = **text;
  return std::optional(std::move(step));
}

void Merge::settle(const Step& step, const ChangeOutcome& outcome,
                   std::vector<const TreeDifference*>& again) {
  const Change& change = step.change;
  switch (outcome.state) {
    case State::moved_on:
      again.push_back(step.difference);
      return;
    case State::obstructed:
      conflict(*step.difference, "something else stands in its place here");
      return;
    case State::failed:
      put_off(*step.difference, outcome.failure.what);
      return;
    case State::done:
      break;
  }
  if (!change.to) {
    report_.deleted.push_back(change.path);
    context_.cache.removed(change.path);
    return;
  }
  report_.written.push_back(change.path);
  if (outcome.info)
    context_.cache.wrote(change.path, *outcome.info, change.to->mode, change.to->oid);
}

// ---- conflicts -------------------------------------------------------------------------------

void Merge::conflict(const TreeDifference& difference, std::string why) {
  if (difference.new_mode != 0) to_save_.emplace_back(&difference, report_.conflicts.size());
  report_.conflicts.push_back({difference.path, {}, std::move(why)});
}

// NAME.sandbox-conflict, or NAME.2.sandbox-conflict and so on where that one holds something else:
// an earlier conflict that nobody has resolved yet may be all that is left of what it holds. Where
// a file stands in for a directory, that name carries the suffix.
result<Merge::ConflictPlace> Merge::conflict_place(const std::string& path,
                                                   const std::string& oid) {
  std::string stem = path, rest;
  for (std::size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    auto info = context_.root.info(path.substr(0, slash));
    if (!info) return info.error();
    if (!*info) break;
    if ((*info)->kind == FileInfo::Kind::directory) continue;
    stem = path.substr(0, slash);
    rest = path.substr(slash);
    break;
  }
  for (int number = 1; number < 100; ++number) {
    std::string candidate = stem + (number == 1 ? "" : "." + std::to_string(number));
    candidate += kConflictSuffix;
    candidate += rest;
    auto there = identify(context_.root, candidate, context_.store.object_format());
    if (!there && (there.error().code == Errc::denied || there.error().code == Errc::busy))
      continue;
    if (!there) return there.error();
    if (!there->info) return ConflictPlace{candidate};
    if (there->wanted && there->wanted->oid == oid) return ConflictPlace{candidate, true};
  }
  return Failure(Errc::exists, path + ": too many saved conflicts");
}

result<void> Merge::save_conflicts() {
  auto not_saved = [&](const TreeDifference& difference, const std::string& why) {
    put_off(difference, "the sandbox's version could not be saved: " + why);
  };
  for (int round = 1; !to_save_.empty(); ++round) {
    std::vector<Change> changes;
    std::vector<std::pair<const TreeDifference*, std::size_t>> writing, again;
    for (const auto& [difference, number] : to_save_) {
      auto place = conflict_place(difference->path, difference->new_oid);
      if (!place) {
        not_saved(*difference, place.error().what);
      } else if (place->saved) {
        report_.conflicts[number].saved = place->path;
        // Whoever wrote it may have been killed before it was on the disk.
        auto synced = context_.root.sync_all();
        if (!synced) return synced;
      } else {
        Wanted theirs{difference->new_mode, difference->new_oid};
        changes.push_back({place->path, std::move(theirs), std::nullopt});
        writing.emplace_back(difference, number);
      }
    }
    auto outcomes = write(changes);
    if (!outcomes) return outcomes.error();
    for (std::size_t i = 0; i < changes.size(); ++i) {
      const ChangeOutcome& outcome = (*outcomes)[i];
      if (outcome.state == State::done) {
        report_.conflicts[writing[i].second].saved = changes[i].path;
      } else if (outcome.state == State::moved_on && round < kRounds) {
        again.push_back(writing[i]);  // somebody else has taken that name meanwhile
      } else {
        not_saved(*writing[i].first, outcome.state == State::moved_on
                                         ? changes[i].path + " keeps changing"
                                         : outcome.failure.what);
      }
    }
    to_save_ = std::move(again);
  }
  return {};
}

}  // namespace

result<MergeReport> merge_result(const MergeContext& context, const std::string& merged,
                                 const wire::Result& result, std::vector<Unwritten>& unwritten) {
  const std::size_t digits = context.store.oid_digits();
  auto valid = [&](const std::string& oid) {
    return oid.size() == digits && oid.find_first_not_of("0123456789abcdef") == std::string::npos;
  };
  Failure not_ours(Errc::bad_input, "the result does not grow from a snapshot of this work tree");
  if (!valid(result.result) || !valid(result.base)) return not_ours;
  auto commit = context.store.read_commit(result.result);
  if (!commit && commit.error().code != Errc::not_found && commit.error().code != Errc::bad_input)
    return commit.error();
  if (!commit || commit->parents.empty() || commit->parents.front() != result.base) return not_ours;
  auto base = context.store.read_commit(result.base);
  if (!base) return not_ours;

  // A later result goes on from the one that was merged before it, unless the same snapshot was
  // applied again in between.
  std::string from = result.base;
  if (!merged.empty() && merged != result.result && valid(merged)) {
    auto before = context.store.read_commit(merged);
    if (before && !before->parents.empty() && before->parents.front() == result.base &&
        generation_of(before->message) == generation_of(commit->message))
      from = merged;
  }
  auto report = Merge(context, from, result.result).run(result, unwritten);
  if (!report && report.error().code == Errc::not_found)
    return Failure(Errc::bad_input, "the result is not complete: " + report.error().what);
  return report;
}

result<MergeReport> merge_unwritten(const MergeContext& context,
                                    std::vector<Unwritten>& unwritten) {
  return Merge(context, {}, {}).run_again(unwritten);
}

}  // namespace protocol::sync
