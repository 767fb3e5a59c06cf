#include "protocol/sync/scan.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <system_error>

#include "protocol/os/paths.h"
#include "protocol/sync/directory_walk.h"
#include "protocol/sync/object_id.h"
#include "protocol/sync/record.h"
#include "protocol/sync/scan_cache.h"
#include "protocol/sync/scan_names.h"
#include "protocol/sync/tree_path.h"
#include "protocol/sync/tree_writer.h"

namespace protocol::sync {

using os::FileInfo;
using wire::Errc;
using wire::Failure;

namespace {

constexpr std::size_t kMaxCacheBytes = 1ull << 30;
constexpr int kTries = 3;  // a file that changes each time it is read is taken as it was last read

// The same file, not written to since. The device is left out: its number changes when a file
// system is mounted anew.
bool same_file(const FileInfo& a, const FileInfo& b) {
  return a.kind == b.kind && a.mode == b.mode && a.inode == b.inode && a.size == b.size &&
         a.modified_ns == b.modified_ns && a.changed_ns == b.changed_ns;
}

// Both sorted by path.
void merge_by_path(std::vector<CachedName>& names, std::vector<CachedName> more) {
  if (more.empty()) return;
  auto middle = static_cast<std::ptrdiff_t>(names.size());
  names.insert(names.end(), std::make_move_iterator(more.begin()),
               std::make_move_iterator(more.end()));
  std::inplace_merge(names.begin(), names.begin() + middle, names.end(),
                     [](const CachedName& a, const CachedName& b) { return a.path < b.path; });
}

// `unread` is sorted by path.
bool is_hidden(std::string path, const std::vector<Unread>& unread) {
  while (!unread.empty()) {
    auto at = std::lower_bound(
        unread.begin(), unread.end(), path,
        [](const Unread& one, const std::string& wanted) { return one.path < wanted; });
    if (at != unread.end() && at->path == path) return true;
    if (path.empty()) break;
    path = parent_of(path);
  }
  return false;
}

// Hashes what is in an open file; empty: it could not be read, or is not as long as it was.
std::string hash_file(int fd, std::uint64_t size, std::string_view format, std::string& buffer) {
  ObjectHash hash(format, "blob", size);
  buffer.resize(256 << 10);
  for (std::uint64_t have = 0;;) {
    ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return {};
    have += static_cast<std::uint64_t>(count);
    if (have > size || (count == 0 && have < size)) return {};
    if (count == 0) return hash.finish();
    hash.update(std::string_view(buffer.data(), static_cast<std::size_t>(count)));
  }
}

}  // namespace

struct WorkTree::State {
  const ObjectStore& store;
  const os::Beneath& root;
  std::filesystem::path cache_file;
  ScanCache cache;
  bool dirty = false;
  bool store_all = false;  // write every blob, whatever we believe the store to have
  std::map<std::string, CachedName> written;  // by wrote() and removed(), not yet in the cache
  std::string buffer;

  State(const ObjectStore& s, const os::Beneath& r, std::filesystem::path f)
      : store(s), root(r), cache_file(std::move(f)) {}

  void take_in_written();
  bool names_still_hold(const std::string& state, DirectoryWalk& walk);
  result<std::vector<CachedName>> relist(NameSource& source, const std::string& state,
                                         const std::vector<std::string>& includes);
  result<Scan> attempt(NameSource& source, const std::vector<std::string>& includes,
                       ObjectWriter& writer);
  struct Look {
    DirectoryWalk& walk;
    ObjectWriter& writer;
    bool trusts_modes;
    std::int64_t begun;
    std::vector<wire::LeftOut>& left_out;
    std::vector<CachedName*> unread = {};         // in the order of their paths
    std::map<std::string, std::string> why = {};  // by file or directory: what Scan::unread has
  };
  result<void> look(CachedName& name, Look& at);
  void cannot_look(CachedName& name, const Failure& failure, Look& at);
  result<void> forget_missing(const Look& at);
  // False: it is something else by now; look again.
  result<bool> read(CachedName& name, const FileInfo& info, Look& at, bool last);
  std::uint32_t file_mode(const CachedName& name, const FileInfo& info, const Look& at) const;
};

WorkTree::WorkTree(std::unique_ptr<State> state) : state_(std::move(state)) {}
WorkTree::WorkTree(WorkTree&&) noexcept = default;
WorkTree::~WorkTree() = default;

WorkTree WorkTree::open(const ObjectStore& store, const os::Beneath& root,
                        std::filesystem::path file) {
  auto state = std::make_unique<State>(store, root, std::move(file));
  auto info = root.info("");
  std::uint64_t device = info && *info ? (*info)->device : 0;
  std::uint64_t inode = info && *info ? (*info)->inode : 0;
  if (auto bytes = os::read_file(state->cache_file, kMaxCacheBytes)) {
    auto cache = decode_cache(*bytes);
    if (cache && cache->object_format == store.object_format() && cache->inode == inode)
      state->cache = std::move(*cache);
  }
  state->cache.object_format = store.object_format();
  state->cache.device = device;
  state->cache.inode = inode;
  return WorkTree(std::move(state));
}

void WorkTree::wrote(const std::string& path, const FileInfo& info, std::uint32_t mode,
                     const std::string& oid) {
  CachedName& name = state_->written[path];
  name.path = path;
  name.info = info;
  name.mode = mode;
  name.oid = oid;
}

void WorkTree::removed(const std::string& path) {
  CachedName& name = state_->written[path];
  name = CachedName();
  name.path = path;
}

bool WorkTree::may_be_absent(const std::string& path) const {
  const std::vector<CachedName>& names = state_->cache.names;
  auto at = std::lower_bound(
      names.begin(), names.end(), path,
      [](const CachedName& name, const std::string& wanted) { return name.path < wanted; });
  return at != names.end() && at->path == path && at->absent;
}

void WorkTree::forget() {
  state_->written.clear();
  state_->cache.names.clear();
  state_->cache.names_state.clear();
  state_->cache.tree.clear();
  state_->store_all = true;
  state_->dirty = true;
}

result<void> WorkTree::save() {
  State& state = *state_;
  state.take_in_written();
  if (!state.dirty) return {};
  auto written = write_record(state.cache_file, encode_cache(state.cache));
  if (!written) return written;
  state.dirty = false;
  return {};
}

// What we wrote ourselves is known without reading it. A name that is new makes git be asked again.
void WorkTree::State::take_in_written() {
  if (written.empty()) return;
  std::int64_t now = file_clock_now();
  std::vector<CachedName> more;
  for (auto& [path, from] : written) {
    auto at = std::lower_bound(
        cache.names.begin(), cache.names.end(), path,
        [](const CachedName& name, const std::string& wanted) { return name.path < wanted; });
    from.settled = from.info && is_settled(*from.info, now);
    if (at != cache.names.end() && at->path == path) {
      at->info = from.info;
      at->mode = from.mode;
      at->oid = std::move(from.oid);
      at->settled = from.settled;
    } else if (from.info) {
      cache.names_state.clear();
      more.push_back(std::move(from));
    }
  }
  written.clear();
  dirty = true;
  merge_by_path(cache.names, std::move(more));
}

bool WorkTree::State::names_still_hold(const std::string& state, DirectoryWalk& walk) {
  if (cache.names_state.empty() || cache.names_state != state) return false;
  return std::all_of(cache.watches.begin(), cache.watches.end(), [&](const CachedWatch& watch) {
    if (!watch.settled) return false;
    auto info = walk.info(watch.path);
    return info && *info && same_file(**info, watch.info);
  });
}

// Asks for the names and keeps what is known of those that stay, and of those that stand where
// nobody can look. Gives back those that the cached tree has and that are gone from the list.
result<std::vector<CachedName>> WorkTree::State::relist(NameSource& source,
                                                        const std::string& state,
                                                        const std::vector<std::string>& includes) {
  auto listing = list_names(store, root, source, includes);
  if (!listing) return listing.error();
  std::vector<CachedName> gone, hidden;
  auto old = cache.names.begin();
  auto drop = [&](CachedName& name) {
    if (name.mode != 0 && is_hidden(name.path, listing->unread)) {
      name.recorded_mode = 0;
      name.recorded_oid.clear();
      name.absent = false;
      hidden.push_back(std::move(name));
    } else if (name.tree_mode != 0) {
      gone.push_back(std::move(name));
    }
  };
  for (CachedName& name : listing->names) {
    while (old != cache.names.end() && old->path < name.path) drop(*old++);
    if (old == cache.names.end() || old->path != name.path) {
      // Until it is looked at.
      name.mode = name.recorded_mode;
      name.oid = name.recorded_oid;
      continue;
    }
    name.info = old->info;
    name.mode = old->mode;
    name.oid = std::move(old->oid);
    name.settled = old->settled;
    name.tree_mode = old->tree_mode;
    name.tree_oid = std::move(old->tree_oid);
    ++old;
  }
  while (old != cache.names.end()) drop(*old++);
  merge_by_path(listing->names, std::move(hidden));
  if (cache.tree.empty()) {
    // Then what is tracked is as good a beginning.
    gone.clear();
    cache.tree = listing->tree;
    for (CachedName& name : listing->names) {
      name.tree_mode = listing->tree.empty() ? 0 : name.recorded_mode;
      name.tree_oid = listing->tree.empty() ? std::string() : name.recorded_oid;
    }
  }
  cache.names = std::move(listing->names);
  cache.watches = std::move(listing->watches);
  cache.left_out = std::move(listing->left_out);
  cache.unread = std::move(listing->unread);
  cache.names_state = listing->repeatable ? state : std::string();
  dirty = true;
  return gone;
}

std::uint32_t WorkTree::State::file_mode(const CachedName& name, const FileInfo& info,
                                         const Look& at) const {
  bool program = (info.mode & S_IXUSR) != 0;
  if (!at.trusts_modes) program = name.recorded_mode == kModeProgram;
  return program ? kModeProgram : kModeFile;
}

result<bool> WorkTree::State::read(CachedName& name, const FileInfo& info, Look& at, bool last) {
  std::string known = name.info && name.info->size == info.size ? name.oid : std::string();
  // Nobody can say what it holds.
  auto unread = [&](int error) {
    cannot_look(name, Failure(Errc::io, std::generic_category().message(error)), at);
    return true;
  };
  auto keep = [&](const FileInfo& seen, std::uint32_t mode, std::string oid, bool steady) {
    name.info = seen;
    name.mode = mode;
    name.oid = std::move(oid);
    name.settled = steady && is_settled(seen, at.begun);
  };
  auto is_known = [&](const std::string& oid) {
    return !store_all && !oid.empty() && (oid == known || oid == name.recorded_oid);
  };
  std::string_view format = store.object_format();
  if (info.kind == FileInfo::Kind::link) {
    auto target = at.walk.read_link(name.path);
    int error = errno;
    auto after = at.walk.info(name.path);
    bool steady = after && *after && same_file(**after, info);
    if ((!target || !steady) && !last) return false;
    if (!target) return unread(error);
    std::string oid = blob_id(format, *target);
    if (!is_known(oid)) {
      auto written_blob = at.writer.blob(std::string_view(*target));
      if (!written_blob) return written_blob.error();
    }
    keep(info, kModeLink, std::move(oid), steady);
    return true;
  }
  os::Fd file = at.walk.open_file(name.path);
  if (!file && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ENXIO) && !last)
    return false;
  struct stat status;
  if (!file || ::fstat(file.get(), &status) != 0) return unread(errno);
  FileInfo opened = os::file_info(status);
  if (opened.kind != FileInfo::Kind::file) return last && unread(EBUSY);
  if (!store_all && (!known.empty() || (name.recorded_mode & S_IFMT) == S_IFREG)) {
    std::string oid = hash_file(file.get(), opened.size, format, buffer);
    if (is_known(oid) && ::fstat(file.get(), &status) == 0 &&
        same_file(os::file_info(status), opened)) {
      keep(opened, file_mode(name, opened, at), std::move(oid), true);
      return true;
    }
  }
  auto blob = at.writer.blob(file);
  if (!blob) return blob.error();
  if (!blob->readable) return unread(EIO);
  if (!blob->steady && !last) return false;
  keep(blob->info, file_mode(name, blob->info, at), std::move(blob->oid), blob->steady);
  return true;
}

result<void> WorkTree::State::look(CachedName& name, Look& at) {
  for (int tries = 1;; ++tries) {
    auto info = at.walk.info(name.path);
    bool submodule = name.recorded_mode == kModeSubmodule;
    bool nothing = info ? !*info : submodule;
    if (nothing || name.refused || (info && (*info)->kind == FileInfo::Kind::directory)) {
      bool kept = !name.refused && (submodule || (nothing && name.absent));
      name.info.reset();
      name.mode = kept ? name.recorded_mode : 0;
      name.oid = kept ? name.recorded_oid : std::string();
      name.settled = true;
      if (submodule && kept) at.left_out.push_back({name.path, "submodule"});
      return {};
    }
    if (!info) {
      cannot_look(name, info.error(), at);
      return {};
    }
    if ((*info)->kind == FileInfo::Kind::other) {
      at.left_out.push_back({name.path, "neither a file nor a link"});
      name.info = **info;
      name.mode = 0;
      name.oid.clear();
      name.settled = false;
      return {};
    }
    if (name.info && name.settled && !store_all && same_file(**info, *name.info)) return {};
    auto done = read(name, **info, at, tries == kTries);
    if (!done) return done.error();
    if (*done) return {};
  }
}

// It stays as it was last known. Named is what stands in the way: many files beneath one directory
// are told once.
void WorkTree::State::cannot_look(CachedName& name, const Failure& failure, Look& at) {
  name.settled = false;
  at.unread.push_back(&name);
  std::string there = name.path;
  if (!at.walk.info(there)) {
    std::string above(parent_of(there));
    while (!above.empty() && !at.walk.info(above)) {
      there = std::move(above);
      above = parent_of(there);
    }
    if (failure.code == Errc::denied) there = std::move(above);  // nobody may pass through it
  }
  at.why.emplace(std::move(there), failure.what);
}

// What was recorded of something that cannot be read, but never stored here (a partial clone), can
// be part of no tree.
result<void> WorkTree::State::forget_missing(const Look& at) {
  std::vector<std::string> oids;
  auto doubtful = [](const CachedName* name) { return name->mode != 0 && name->tree_mode == 0; };
  for (const CachedName* name : at.unread)
    if (doubtful(name)) oids.push_back(name->oid);
  if (oids.empty()) return {};
  auto known = store.known(oids);
  if (!known) return known.error();
  for (CachedName* name : at.unread) {
    if (!doubtful(name) || std::find(known->begin(), known->end(), name->oid) != known->end())
      continue;
    name->mode = 0;
    name->oid.clear();
  }
  return {};
}

result<Scan> WorkTree::State::attempt(NameSource& source, const std::vector<std::string>& includes,
                                      ObjectWriter& writer) {
  std::int64_t begun = file_clock_now();
  std::string names_state = source.state();
  for (const std::string& include : includes) names_state += "\n" + include;
  take_in_written();
  DirectoryWalk walk(root);
  std::vector<CachedName> gone;
  if (!names_still_hold(names_state, walk)) {
    auto dropped = relist(source, names_state, includes);
    if (!dropped) return dropped.error();
    gone = std::move(*dropped);
  }

  Scan scan;
  scan.left_out = cache.left_out;
  Look at{walk, writer, source.trusts_modes(), begun, scan.left_out};
  for (const Unread& unread : cache.unread) at.why.emplace(unread.path, unread.why);
  std::vector<TreeChange> changes;
  changes.reserve(gone.size());
  for (const CachedName& name : gone) changes.push_back({name.path, 0, {}});
  for (CachedName& name : cache.names) {
    std::optional<FileInfo> before = name.info;
    bool was_settled = name.settled;
    auto looked = look(name, at);
    if (!looked) {
      // What was learned of the names before it holds; of this one nothing is sure.
      name.settled = false;
      return looked.error();
    }
    if (name.settled != was_settled || name.info.has_value() != before.has_value() ||
        (before && !same_file(*before, *name.info)))
      dirty = true;
  }
  auto forgotten = forget_missing(at);
  if (!forgotten) return forgotten.error();
  for (const CachedName& name : cache.names)
    if (name.mode != name.tree_mode || name.oid != name.tree_oid)
      changes.push_back({name.path, name.mode, name.oid});

  scan.unchanged = changes.empty() && !cache.tree.empty() && !store_all;
  if (scan.unchanged) {
    scan.tree = cache.tree;
  } else {
    if (store_all) {
      changes.clear();
      for (const CachedName& name : cache.names)
        if (name.mode != 0) changes.push_back({name.path, name.mode, name.oid});
    }
    auto tree = writer.tree(store_all ? std::string() : cache.tree, changes);
    if (!tree) return tree.error();
    scan.tree = *tree;
    cache.tree = *tree;
    for (CachedName& name : cache.names) {
      name.tree_mode = name.mode;
      name.tree_oid = name.oid;
    }
    dirty = true;
  }
  store_all = false;
  scan.entries.reserve(cache.names.size());
  auto unread = at.unread.begin();
  for (const CachedName& name : cache.names) {
    bool is_read = unread == at.unread.end() || *unread != &name;
    if (!is_read) ++unread;
    if (name.mode != 0)
      scan.entries.push_back(
          {name.path, name.mode, name.oid, name.info ? *name.info : FileInfo(), is_read});
  }
  for (auto& [path, why] : at.why)
    if (path.empty() || !is_hidden(std::string(parent_of(path)), scan.unread))
      scan.unread.push_back({path, why});
  return scan;
}

result<Scan> WorkTree::scan(NameSource& names, const std::vector<std::string>& includes,
                            ObjectWriter& writer) {
  auto scan = state_->attempt(names, includes, writer);
  if (scan || !writer.failed() || scan.error().code == Errc::no_space ||
      scan.error().code == Errc::denied)
    return scan;
  // Something that the cache says is in the store is not: a repository that we borrow from has
  // dropped it. Everything is read and stored anew.
  forget();
  writer.restart();
  return state_->attempt(names, includes, writer);
}

}  // namespace protocol::sync
