#include "protocol/sync/box_workspace.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <set>

namespace protocol::sync {

using os::Beneath;
using wire::Errc;
using wire::Failure;

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kKeptSnapshots = 20;
constexpr std::size_t kClutter = 2000;

// The number at the front of a name beneath a prefix; 0 when there is none.
std::uint64_t number_of(std::string_view name) {
  std::uint64_t number = 0;
  for (char c : name) {
    if (c < '0' || c > '9' || number > 1'000'000'000'000'000) break;
    number = number * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return number;
}

}  // namespace

std::string numbered(std::uint64_t number) {
  char digits[24];
  std::snprintf(digits, sizeof digits, "%012llu", static_cast<unsigned long long>(number));
  return digits;
}

bool is_origin(std::string_view origin) {
  return !origin.empty() && origin.size() <= 64 &&
         std::all_of(origin.begin(), origin.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
         });
}

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

// ---- idle ------------------------------------------------------------------------------------

void BoxWorkspace::tidy() {
  auto lock = store_->lock();
  if (!lock) return;
  auto drop_all_but = [&](std::string_view prefix, std::size_t kept) {
    auto refs = store_->list_refs(std::string(prefix));
    for (std::size_t i = 0; i + kept < refs.size(); ++i) store_->delete_ref(refs[i].first);
  };
  drop_all_but(kSnapshots, kKeptSnapshots);
  if (store_->clutter() < kClutter) return;
  // The workspace's .git borrows from the store: what it points at stays.
  for (const auto& [name, oid] : store_->list_refs(std::string(kBorrowed)))
    store_->delete_ref(name);
  std::set<std::string> borrowed;
  if (refresh_root()) {
    RepositoryRefs theirs = WorkspaceGit(root_, {}).read();
    for (const auto& [name, oid] : theirs.refs) borrowed.insert(oid);
    if (!theirs.detached.empty()) borrowed.insert(theirs.detached);
  }
  auto here = store_->known({borrowed.begin(), borrowed.end()});
  if (!here) return;
  for (const std::string& oid : *here) (void)store_->set_ref(std::string(kBorrowed) + oid, oid);
  (void)store_->tidy();
}

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
