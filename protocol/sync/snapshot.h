// A snapshot: the exact content of a work tree at one moment, named by one git commit id. Equal
// content has an equal id.
#pragma once

#include <string>
#include <vector>

#include "protocol/wire/messages.h"

namespace protocol::sync {

struct Snapshot {
  wire::SyncStart
      sync;  // all that the box needs to know, but base and merged (filled in by whoever sends)
  std::string tree;  // the work tree's tree id
  std::vector<wire::LeftOut>
      left_out;  // nested repositories, unreadable files, sockets, ...: to be named to the user
};

}  // namespace protocol::sync
