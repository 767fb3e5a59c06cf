// What the last scan of a work tree saw, on disk. A file that is missing, cut, changed by anybody
// else or of another tree is an empty cache: then everything is looked at anew.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/os/beneath.h"
#include "protocol/sync/unread.h"
#include "protocol/wire/messages.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

using wire::result;

// Nanoseconds since 1970 of the system's clock, as file times are told.
std::int64_t file_clock_now();
// Content that was seen at `seen` and had these times cannot have changed since without changing
// them: they are older than the clock of the file system is coarse.
bool is_settled(const os::FileInfo& info, std::int64_t seen);

// One name, and what was known of it when it was last looked at.
struct CachedName {
  std::string path;
  std::uint32_t recorded_mode = 0;  // as tracked; 0: not tracked
  std::string recorded_oid;
  bool absent = false;               // sparse
  bool refused = false;              // its name must not travel: never part of the tree
  std::optional<os::FileInfo> info;  // std::nullopt: was not there, or was never looked at
  std::uint32_t mode = 0;            // git's; 0: nothing that a tree can hold
  std::string oid;
  bool settled = false;         // `mode` and `oid` are right as long as `info` is
  std::uint32_t tree_mode = 0;  // what ScanCache::tree has
  std::string tree_oid;
};

// A directory or an ignore file whose change means that the names may be others.
struct CachedWatch {
  std::string path;
  os::FileInfo info;
  bool settled = false;
};

struct ScanCache {
  std::string object_format;
  std::uint64_t device = 0, inode = 0;  // of the root
  std::string names_state;              // what the names were made from; empty: ask again
  std::string tree;                     // of all names; empty: not known
  std::vector<CachedName> names;        // sorted by path
  std::vector<CachedWatch> watches;     // sorted by path
  std::vector<wire::LeftOut> left_out;  // found while listing
  std::vector<Unread> unread;           // directories whose names nobody can list, by path
};

std::string encode_cache(const ScanCache& cache);
// std::nullopt: not one of ours, or damaged.
std::optional<ScanCache> decode_cache(std::string_view bytes);

}  // namespace protocol::sync
