// The names of a work tree, asked anew: git says what is tracked and what is not ignored, and we
// look for what it does not list (directories to watch, sockets, what cannot be read).
#pragma once

#include <string>
#include <vector>

#include "protocol/sync/scan.h"
#include "protocol/sync/scan_cache.h"

namespace protocol::sync {

struct NameListing {
  std::vector<CachedName> names;  // sorted; only path and what is recorded
  std::vector<CachedWatch> watches;
  std::vector<wire::LeftOut> left_out;
  std::vector<Unread> unread;  // directories; what is beneath them may be missing in `names`
  std::string tree;            // the tree that what is recorded comes from, where there is one
  bool repeatable = true;      // false: the watches do not cover everything; ask again next time
};

result<NameListing> list_names(const ObjectStore& store, const os::Beneath& root,
                               NameSource& source, const std::vector<std::string>& includes);

}  // namespace protocol::sync
