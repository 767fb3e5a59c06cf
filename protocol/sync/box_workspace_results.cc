// Results: taken, kept until they are merged, packed for their way home.
#include <algorithm>
#include <set>

#include "protocol/sync/box_workspace.h"
#include "protocol/sync/git_output.h"
#include "protocol/sync/result_message.h"

namespace protocol::sync {

using os::Beneath;
using wire::Errc;
using wire::Failure;

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxMoved = 256;  // branches, stashes and tags of which one result tells

bool same(const std::vector<wire::Ref>& a, const std::vector<wire::Ref>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.name == y.name && x.oid == y.oid;
  });
}

}  // namespace

bool is_never_overwritten(std::string_view name) {
  return name.starts_with("refs/tags/") || name.starts_with("refs/stash/");
}

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
  auto commit = store_->read_commit(result);
  bool seen = false;
  for (const wire::Ref& ref : commit ? named_commits(commit->message) : std::vector<wire::Ref>()) {
    if (ref.name.starts_with(kDrift) && store_->get_ref(ref.name) == ref.oid)
      store_->delete_ref(ref.name);
    if (!is_never_overwritten(ref.name)) continue;
    state_.seen.refs[ref.name] = ref.oid;
    seen = true;
  }
  // Its next result grows from this one, when no snapshot was applied in between.
  auto before = state_.merged.find(origin);
  if (commit && !commit->parents.empty() &&
      (commit->parents.front() == state_.sync.snapshot ||
       (before != state_.merged.end() && commit->parents.front() == before->second))) {
    if (!store_->set_ref(std::string(kMerged) + origin, result)) return;
    state_.merged[origin] = result;
    for (const wire::Ref& ref : named_commits(commit->message)) {
      if (ref.name == "HEAD") {
        state_.seen.detached = ref.oid;
      } else if (!ref.name.starts_with(kDrift)) {
        state_.seen.refs[ref.name] = ref.oid;
      }
    }
    seen = true;
  }
  // At worst the next result says more than it has to.
  if (seen) (void)save_state(state_file(), state_);
  // An earlier one that grew from something else is no part of it: another origin's snapshot was
  // applied in between.
  std::string base = commit && !commit->parents.empty() ? commit->parents.front() : std::string();
  for (auto at = refs.begin(); at != std::next(found); ++at) {
    auto earlier = at == found ? commit : store_->read_commit(at->second);
    bool part = at == found || !earlier || earlier->parents.empty() || base.empty() ||
                earlier->parents.front() == base;
    if (part) store_->delete_ref(at->first);
  }
  drop_tagged();
}

void BoxWorkspace::drop_tagged() {
  auto tagged = store_->list_refs(std::string(kTagged));
  if (tagged.empty()) return;
  std::set<std::string> named;
  for (const auto& [name, oid] : store_->list_refs(std::string(kResults)))
    if (auto result = read_result(oid))
      for (const wire::Ref& ref : result->commits) named.insert(ref.oid);
  for (const auto& [name, oid] : tagged)
    if (!named.contains(oid)) store_->delete_ref(name);
}

result<std::vector<std::string>> BoxWorkspace::parents_of_result(
    const std::string& base, const std::vector<wire::Ref>& commits) {
  std::vector<std::string> parents{base};
  for (const wire::Ref& ref : commits) {
    auto type = store_->git().out({"cat-file", "-t", ref.oid});  // read_commit looks through a tag
    if (!type) return type.error();
    if (*type != "commit\n") {
      auto kept = store_->set_ref(std::string(kTagged) + ref.oid, ref.oid);
      if (!kept) return kept.error();
    } else if (std::find(parents.begin(), parents.end(), ref.oid) == parents.end()) {
      parents.push_back(ref.oid);
    }
  }
  return parents;
}

std::vector<wire::Ref> BoxWorkspace::moved_commits(const RepositoryRefs& now,
                                                   std::vector<wire::LeftOut>& left_out) {
  std::vector<wire::Ref> moved;
  for (const auto& [name, oid] : now.refs) {
    if (!name.starts_with("refs/heads/") && !is_never_overwritten(name)) continue;
    auto before = state_.seen.refs.find(name);
    if (before == state_.seen.refs.end() || before->second != oid) moved.push_back({name, oid});
  }
  if (!now.detached.empty() && now.detached != state_.seen.detached &&
      std::none_of(now.refs.begin(), now.refs.end(),
                   [&](const auto& ref) { return ref.second == now.detached; }))
    moved.insert(moved.begin(), {"HEAD", now.detached});
  if (moved.size() > kMaxMoved) {
    left_out.push_back({"", std::to_string(moved.size() - kMaxMoved) +
                                " more branches, stashes and tags of the sandbox"});
    moved.resize(kMaxMoved);
  }
  std::vector<std::string> unknown;
  for (const wire::Ref& ref : moved)
    if (ref.oid.size() == store_->oid_digits()) unknown.push_back(ref.oid);
  if (auto known = store_->known(unknown)) {
    std::erase_if(unknown, [&](const std::string& oid) {
      return std::find(known->begin(), known->end(), oid) != known->end();
    });
  }
  std::string why = "what it points at is not in the workspace's repository";
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
      return store_->adopt(quarantine, unknown);
    };
    auto adopted = adopt();
    if (!adopted) why = "what it points at could not be read: " + adopted.error().what;
    fs::remove_all(quarantine, ignored);
  }
  std::vector<wire::Ref> here;
  for (wire::Ref& ref : moved) {
    bool tag = ref.name.starts_with("refs/tags/");
    if (ref.oid.size() == store_->oid_digits() &&
        (tag ? store_->has(ref.oid) : store_->read_commit(ref.oid).has_value())) {
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
  for (wire::Ref& drift : drifts()) taken.commits.push_back(std::move(drift));
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
  auto parents = parents_of_result(taken.base, taken.commits);
  if (!parents) return parents.error();
  const std::string prefix = std::string(kResults) + origin + "/";
  auto refs = store_->list_refs(prefix);
  result<Commit> last = Failure(Errc::not_found, "no result is kept");
  if (!refs.empty()) last = store_->read_commit(refs.back().second);
  bool again = last && last->tree == scan->tree && last->parents == *parents &&
               same(named_commits(last->message), taken.commits);  // taken twice
  if (!again) {
    auto commit = store_->write_commit(scan->tree, *parents,
                                       result_message(state_.generation, taken.commits));
    if (!commit) return commit.error();
    taken.result = *commit;
    auto kept = store_->set_ref(prefix + numbered(next_number(prefix)), taken.result);
    if (!kept) return kept.error();
  }
  auto remembered = remember();
  if (!remembered) return remembered.error();
  if (again) return std::optional<wire::Result>();
  return std::optional(std::move(taken));
}

std::vector<wire::Ref> BoxWorkspace::drifts() const {
  std::vector<wire::Ref> all;
  for (auto& [name, oid] : store_->list_refs(std::string(kDrift)))
    if (all.size() < kMaxMoved) all.push_back({name, oid});  // the next result has the others
  return all;
}

result<void> BoxWorkspace::offer_drift(const std::string& origin) {
  if (!is_origin(origin) || state_.sync.snapshot.empty()) return {};
  auto lock = store_->lock();
  if (!lock) return lock.error();
  auto news = drifts();
  if (news.empty()) return {};
  // The files are those of its last result, or of what it has.
  const std::string prefix = std::string(kResults) + origin + "/";
  auto refs = store_->list_refs(prefix);
  auto merged = state_.merged.find(origin);
  std::string base = merged == state_.merged.end() ? state_.sync.snapshot : merged->second;
  std::string from = refs.empty() ? base : refs.back().second;
  std::string generation = state_.generation;
  std::vector<wire::Ref> commits;
  auto files = store_->read_commit(from);
  if (!files) return files.error();
  if (!refs.empty()) {
    if (files->parents.empty()) return {};
    base = files->parents.front();
    generation = generation_of(files->message);
    commits = named_commits(files->message);
  }
  bool any = false;
  for (wire::Ref& drift : news) {
    bool carried = std::any_of(commits.begin(), commits.end(),
                               [&](const wire::Ref& ref) { return ref.oid == drift.oid; });
    if (carried) continue;
    any = true;
    commits.push_back(std::move(drift));
  }
  if (!any) return {};
  auto parents = parents_of_result(base, commits);
  if (!parents) return parents.error();
  auto commit = store_->write_commit(files->tree, *parents, result_message(generation, commits));
  if (!commit) return commit.error();
  return store_->set_ref(prefix + numbered(next_number(prefix)), *commit);
}

// The result, and what it names without reaching it.
std::vector<std::string> BoxWorkspace::tips_of(const std::string& result) const {
  std::vector<std::string> tips{result};
  auto commit = store_->read_commit(result);
  if (!commit) return tips;
  for (const wire::Ref& ref : named_commits(commit->message)) {
    bool reached =
        std::find(commit->parents.begin(), commit->parents.end(), ref.oid) != commit->parents.end();
    if (!reached && ref.oid.size() == store_->oid_digits()) tips.push_back(ref.oid);
  }
  return tips;
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
  return store_->write_pack(tips_of(result.result), haves, {}, std::move(out));
}

result<std::vector<std::string>> BoxWorkspace::write_whole_pack(const wire::Result& result,
                                                                const std::string& merged,
                                                                os::Fd out) {
  if (!is_object_id(result.result)) return Failure(Errc::bad_input, "the result's id");
  std::vector<std::string> tips = tips_of(result.result);
  // The origin merges against it when this result goes on from it.
  if (is_object_id(merged) && store_->is_complete(merged)) tips.push_back(merged);
  std::vector<std::string> ends;
  if (auto known = store_->shallow(); !known.empty()) {
    std::string input;
    for (const std::string& tip : tips)
      if (store_->read_commit(tip)) input += tip + "\n";
    auto listed = store_->git().out({"rev-list", "--stdin"}, input);
    if (!listed) return listed.error();
    std::set<std::string> boundary(known.begin(), known.end());
    std::string_view text = *listed;
    while (auto line = take(text, '\n'))
      if (boundary.contains(std::string(*line))) ends.emplace_back(*line);
  }
  auto written = store_->write_pack(tips, {}, {}, std::move(out));
  if (!written) return written.error();
  return ends;
}

}  // namespace protocol::sync
