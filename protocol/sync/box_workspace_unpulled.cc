// What would be lost with a workspace.
#include <algorithm>
#include <map>
#include <set>

#include "protocol/sync/box_workspace.h"

namespace protocol::sync {

namespace {

constexpr std::size_t kMaxNamed = 100;

// Names at the top of a work tree that nothing was ever synced into.
std::vector<std::string> names_at_top(const os::Beneath& root) {
  auto names = root.list("");
  if (!names) return {};
  std::sort(names->begin(), names->end());
  if (names->size() > kMaxNamed) names->resize(kMaxNamed);
  return *names;
}

}  // namespace

result<wire::Unpulled> BoxWorkspace::unpulled() {
  wire::Unpulled lost;
  if (state_.sync.snapshot.empty()) {
    auto refreshed = refresh_root();
    if (!refreshed) return refreshed.error();
    lost.files = names_at_top(root_);
    return lost;
  }
  // What changed since the last result belongs to whose snapshot it grew from.
  if (is_origin(state_.origin)) {
    auto taken = take_result(state_.origin);
    if (!taken) return taken.error();
  }
  // Of each origin the last one says all.
  std::map<std::string, std::string> last;
  for (const auto& [name, oid] : store_->list_refs(std::string(kResults))) {
    std::string origin = name.substr(kResults.size());
    last[origin.substr(0, origin.find('/'))] = oid;
  }
  std::set<std::string> files, commits;
  for (const auto& [origin, oid] : last) {
    auto result = read_result(oid);
    if (!result) continue;
    auto before = store_->tree_of(result->base);
    auto after = store_->tree_of(oid);
    if (!before) return before.error();
    if (!after) return after.error();
    auto differences = store_->diff_trees(*before, *after);
    if (!differences) return differences.error();
    std::erase_if(result->commits, [](const wire::Ref& ref) {
      return ref.name.starts_with(kDrift);  // counted below
    });
    if (differences->empty() && result->commits.empty()) continue;
    ++lost.results;
    for (const TreeDifference& difference : *differences) files.insert(difference.path);
    for (const wire::Ref& ref : result->commits) commits.insert(ref.name);
  }
  for (const std::string& file : files) {
    if (lost.files.size() < kMaxNamed) lost.files.push_back(file);
  }
  lost.commits.assign(commits.begin(), commits.end());
  lost.drifts = static_cast<std::int64_t>(store_->list_refs(std::string(kDrift)).size());
  return lost;
}

}  // namespace protocol::sync
