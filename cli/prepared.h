// A snapshot of the work tree that is about to be sent to a sandbox.
#pragma once

#include <string>

#include "protocol/sync/origin.h"

namespace cli {

// A snapshot, and what was known of the sandbox before it was taken: a result that is merged while
// the scan runs must not be claimed as part of it.
struct Prepared {
  std::string base;
  std::string merged;
  protocol::sync::Snapshot snapshot;
};
// Blocks. Throws UserError when there can be no snapshot.
Prepared prepare(protocol::sync::Origin& origin, const std::string& sandbox);

}  // namespace cli
