#include "protocol/sync/scan_names.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_set>

#include "protocol/sync/directory_walk.h"
#include "protocol/sync/path_rules.h"
#include "protocol/sync/tree_path.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;

namespace {

std::string join(std::string_view directory, std::string_view name) {
  if (directory.empty()) return std::string(name);
  return std::string(directory) + "/" + std::string(name);
}

bool is_at_or_beneath(std::string_view path, std::string_view directory) {
  return path.starts_with(directory) &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

bool has_own_name(std::string_view path) {
  for (;; path = parent_of(path)) {
    if (path.empty()) return false;
    if (is_own_name(path.substr(path.rfind('/') + 1))) return true;
  }
}

const char* special_kind(unsigned char type) {
  switch (type) {
    case DT_SOCK:
      return "a socket";
    case DT_FIFO:
      return "a named pipe";
    case DT_CHR:
    case DT_BLK:
      return "a device";
    default:
      return nullptr;
  }
}

unsigned char type_of(const os::FileInfo& info) {
  switch (info.kind) {
    case os::FileInfo::Kind::file:
      return DT_REG;
    case os::FileInfo::Kind::directory:
      return DT_DIR;
    case os::FileInfo::Kind::link:
      return DT_LNK;
    case os::FileInfo::Kind::other:
      return DT_SOCK;
  }
  return DT_UNKNOWN;
}

// One listing from its beginning to its end.
class Listing {
 public:
  Listing(const ObjectStore& store, const os::Beneath& root, NameSource& source,
          const std::vector<std::string>& includes)
      : store_(store), walk_(root), source_(source), includes_(includes) {}

  result<NameListing> run() {
    auto names = source_.list();
    if (!names) return names.error();
    listing_.left_out = std::move(names->left_out);
    listing_.tree = std::move(names->tree);
    auto included = add_included(names->others);
    if (!included) return included.error();
    gather(std::move(*names));
    auto recorded = drop_missing_sparse();
    if (!recorded) return recorded.error();
    auto watched = watch();
    if (!watched) return watched.error();
    return std::move(listing_);
  }

 private:
  result<void> add_included(std::vector<std::string>& others);
  void gather(NameSource::Names names);
  result<void> drop_missing_sparse();
  result<void> watch();
  void look_into(const std::string& directory, std::vector<std::string>& unknown);
  void cannot_look_into(const std::string& directory, const Failure& failure);
  result<std::set<std::string>> ignored(const std::vector<std::string>& paths);
  bool is_included(std::string_view path) const {
    return std::any_of(literal_.begin(), literal_.end(),
                       [&](const std::string& include) { return is_at_or_beneath(path, include); });
  }

  const ObjectStore& store_;
  DirectoryWalk walk_;
  NameSource& source_;
  const std::vector<std::string>& includes_;
  NameListing listing_;
  std::vector<std::string> literal_;            // includes without wildcards
  std::set<std::string> directories_, closed_;  // closed: nested repositories and submodules
  std::map<std::string, unsigned char> specials_;
  std::int64_t begun_ = file_clock_now();
};

result<void> Listing::add_included(std::vector<std::string>& others) {
  std::vector<std::string> args{"ls-files", "-z", "-o", "--"};
  for (std::string include : includes_) {
    while (include.ends_with('/')) include.pop_back();
    if (include.starts_with("./")) include.erase(0, 2);
    if (std::string why = refuse_path(include); !why.empty()) {
      listing_.left_out.push_back({include, "sync.include: " + why});
      continue;
    }
    if (include.find_first_of("*?[\\") == std::string::npos)
      literal_.push_back(include);
    else
      listing_.repeatable = false;
    args.push_back(":(top)" + include);
  }
  if (args.size() == 4) return {};
  auto answer = source_.git().out(std::move(args));
  if (!answer) return answer.error();
  std::string_view text = *answer;
  for (std::size_t end; (end = text.find('\0')) != std::string_view::npos;
       text.remove_prefix(end + 1))
    others.emplace_back(text.substr(0, end));
  return {};
}

void Listing::gather(NameSource::Names names) {
  std::unordered_set<std::string> seen;
  auto add = [&](CachedName name) {
    if (!seen.insert(name.path).second) return;
    if (std::string why = refuse_to_carry(name.path); !why.empty()) {
      // Ours come and go beside the user's; one that the user tracks is the user's.
      if (!has_own_name(name.path) || name.recorded_mode != 0)
        listing_.left_out.push_back({name.path, why});
      if (name.recorded_mode == 0) return;
      name.refused = true;
    }
    listing_.names.push_back(std::move(name));
  };
  listing_.names.reserve(names.tracked.size() + names.others.size());
  seen.reserve(names.tracked.size() + names.others.size());
  for (TrackedPath& tracked : names.tracked) {
    if (tracked.mode == 0160000) closed_.insert(tracked.path);
    CachedName name;
    name.path = std::move(tracked.path);
    name.recorded_mode = tracked.mode;
    name.recorded_oid = std::move(tracked.oid);
    name.absent = tracked.absent;
    add(std::move(name));
  }
  // A box has only the empty directory of a submodule, and its git does not know that it is one.
  std::map<std::string, std::size_t> inside;
  auto submodule_above = [&, submodules = closed_](std::string_view path) {
    for (path = parent_of(path); !path.empty() && !submodules.empty(); path = parent_of(path))
      if (auto found = submodules.find(std::string(path)); found != submodules.end()) return *found;
    return std::string();
  };
  for (std::string& path : names.others) {
    if (std::string submodule = submodule_above(path); !submodule.empty()) {
      ++inside[submodule];
      continue;
    }
    if (path.ends_with('/')) {
      path.pop_back();
      if (closed_.insert(path).second) listing_.left_out.push_back({path, "nested repository"});
      continue;
    }
    CachedName name;
    name.path = std::move(path);
    add(std::move(name));
  }
  for (const auto& [submodule, count] : inside)
    listing_.left_out.push_back(
        {submodule, std::to_string(count) + " new in the submodule, not carried"});
  std::sort(listing_.names.begin(), listing_.names.end(),
            [](const CachedName& a, const CachedName& b) { return a.path < b.path; });
}

// A partial clone does not have what its sparse paths hold; a tree that named them could not be
// sent. They are told by directory, because there may be very many.
result<void> Listing::drop_missing_sparse() {
  std::vector<std::string> oids;
  for (const CachedName& name : listing_.names)
    if (name.absent && name.recorded_mode != 0160000) oids.push_back(name.recorded_oid);
  if (oids.empty()) return {};
  std::sort(oids.begin(), oids.end());
  oids.erase(std::unique(oids.begin(), oids.end()), oids.end());
  auto known = store_.known(oids);
  if (!known) return known.error();
  if (known->size() == oids.size()) return {};
  std::unordered_set<std::string> here(known->begin(), known->end());
  std::map<std::string, std::size_t> missing;
  for (CachedName& name : listing_.names) {
    if (!name.absent || name.recorded_mode == 0160000 || here.contains(name.recorded_oid)) continue;
    name.absent = false;
    ++missing[name.path.substr(0, name.path.find('/'))];
  }
  for (const auto& [top, count] : missing)
    listing_.left_out.push_back(
        {top, std::to_string(count) + " sparse files whose content this partial clone lacks"});
  return {};
}

result<void> Listing::watch() {
  directories_.insert("");
  auto insert_above = [&](std::string_view path) {
    for (std::string_view up = parent_of(path); !up.empty(); up = parent_of(up))
      if (!directories_.emplace(up).second) break;
  };
  for (const CachedName& name : listing_.names) insert_above(name.path);
  for (const std::string& path : closed_) insert_above(path);
  for (const std::string& include : literal_) insert_above(include + "/x");

  std::vector<std::string> looking(directories_.begin(), directories_.end());
  while (!looking.empty()) {
    std::vector<std::string> unknown;
    for (const std::string& directory : looking) look_into(directory, unknown);
    looking.clear();
    if (unknown.empty()) break;
    auto skip = ignored(unknown);
    if (!skip) return skip.error();
    for (std::string& path : unknown) {
      if (skip->contains(path)) continue;
      if (auto special = specials_.find(path); special != specials_.end()) {
        listing_.left_out.push_back({path, special_kind(special->second)});
        continue;
      }
      directories_.insert(path);
      looking.push_back(std::move(path));
    }
    std::sort(looking.begin(), looking.end());
  }
  for (const std::string& path : closed_)
    if (auto info = walk_.info(path);
        info && *info && (*info)->kind == os::FileInfo::Kind::directory)
      listing_.watches.push_back({path, **info, is_settled(**info, begun_)});
  std::sort(listing_.unread.begin(), listing_.unread.end(),
            [](const Unread& a, const Unread& b) { return a.path < b.path; });
  std::sort(listing_.watches.begin(), listing_.watches.end(),
            [](const CachedWatch& a, const CachedWatch& b) { return a.path < b.path; });
  return {};
}

// Its being opened shows in its times, and then the names are asked for again; of other reasons
// nothing tells that they are over.
void Listing::cannot_look_into(const std::string& directory, const Failure& failure) {
  if (failure.code != Errc::denied) listing_.repeatable = false;
  listing_.unread.push_back({directory, failure.what});
}

void Listing::look_into(const std::string& directory, std::vector<std::string>& unknown) {
  auto info = walk_.info(directory);
  if (!info) return cannot_look_into(directory, info.error());
  if (!*info || (*info)->kind != os::FileInfo::Kind::directory) return;
  listing_.watches.push_back({directory, **info, is_settled(**info, begun_)});
  auto children = walk_.list(directory);
  if (!children) {
    if (children.error().code == Errc::not_found || children.error().code == Errc::refused)
      listing_.repeatable = false;  // it has just gone
    else
      cannot_look_into(directory, children.error());
    return;
  }
  for (const DirectoryWalk::Child& child : *children) {
    std::string path = join(directory, child.name);
    unsigned char type = child.type;
    if (type == DT_UNKNOWN) {
      auto looked = walk_.info(path);
      if (!looked) cannot_look_into(path, looked.error());
      type = looked && *looked ? type_of(**looked) : static_cast<unsigned char>(DT_UNKNOWN);
    }
    if (child.name == ".gitignore" && type == DT_REG) {
      if (auto looked = walk_.info(path); looked && *looked)
        listing_.watches.push_back({path, **looked, is_settled(**looked, begun_)});
    } else if (type == DT_DIR) {
      if (is_git_name(child.name) || directories_.contains(path) || closed_.contains(path))
        continue;
      if (is_own_name(child.name)) continue;
      if (is_included(path)) {
        directories_.insert(path);
        look_into(path, unknown);
      } else {
        unknown.push_back(path);
      }
    } else if (special_kind(type) != nullptr) {
      specials_[path] = type;
      unknown.push_back(path);
    }
  }
}

result<std::set<std::string>> Listing::ignored(const std::vector<std::string>& paths) {
  std::string input;
  for (const std::string& path : paths) input.append(path).push_back('\0');
  auto answer = source_.git().run({"check-ignore", "-z", "-v", "-n", "--stdin"}, input);
  if (!answer) return answer.error();
  std::set<std::string> skip;
  if (answer->exit.signal != 0 || answer->exit.status > 1) {
    // Something has become a link while we looked. What was listed is right all the same.
    listing_.repeatable = false;
    skip.insert(paths.begin(), paths.end());
    return skip;
  }
  std::vector<std::string_view> fields;  // source, line, pattern, path
  std::string_view text = answer->out;
  for (std::size_t end; (end = text.find('\0')) != std::string_view::npos;
       text.remove_prefix(end + 1)) {
    fields.push_back(text.substr(0, end));
    if (fields.size() < 4) continue;
    if (!fields[0].empty() && !fields[2].starts_with('!')) skip.emplace(fields[3]);
    fields.clear();
  }
  return skip;
}

}  // namespace

result<NameListing> list_names(const ObjectStore& store, const os::Beneath& root,
                               NameSource& source, const std::vector<std::string>& includes) {
  return Listing(store, root, source, includes).run();
}

std::string refuse_to_carry(std::string_view path) { return refuse_path(path); }

}  // namespace protocol::sync
