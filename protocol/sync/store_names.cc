#include "protocol/os/paths.h"
#include "protocol/sync/object_id.h"
#include "protocol/sync/scan.h"

namespace protocol::sync {

StoreNames::StoreNames(const ObjectStore& store, std::filesystem::path root,
                       std::string tracked_tree, std::string excludes)
    : store_(store),
      root_(std::move(root)),
      tracked_tree_(std::move(tracked_tree)),
      excludes_(std::move(excludes)) {}

std::string StoreNames::state() {
  return "store " + tracked_tree_ + " " + blob_id("sha1", excludes_);
}

Git StoreNames::git() {
  // An index that is not there is an empty one: what is tracked we know ourselves.
  return store_.git()
      .with_work_tree(root_)
      .with_index(store_.directory() / "tmp" / "no-index")
      .with_config("core.bare=false")
      .with_config("core.excludesFile=/dev/null");
}

result<NameSource::Names> StoreNames::list() {
  auto file = store_.directory() / "info" / "exclude";
  auto before = os::read_file(file, 16 << 20);
  if ((before ? *before : std::string()) != excludes_) {
    auto written = os::write_file(file, excludes_);
    if (!written) return written.error();
  }
  Names names;
  if (!tracked_tree_.empty()) {
    auto entries = store_.list_tree(tracked_tree_);
    if (!entries) return entries.error();
    for (TreeEntry& entry : *entries)
      names.tracked.push_back({std::move(entry.path), entry.mode, std::move(entry.oid), false});
    names.tree = tracked_tree_;
  }
  auto answer = git().out({"ls-files", "-z", "-o", "--exclude-standard"});
  if (!answer) return answer.error();
  std::string_view text = *answer;
  for (std::size_t end; (end = text.find('\0')) != std::string_view::npos;
       text.remove_prefix(end + 1))
    names.others.emplace_back(text.substr(0, end));
  return names;
}

}  // namespace protocol::sync
