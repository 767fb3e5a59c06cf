// How much of the past goes to a box: from HEAD (and what it is compared with) down to where they
// meet, and a number of commits beyond. Where it ends, history is shallow.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "protocol/sync/object_store.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

struct History {
  // Commits that are sent without their parents.
  std::vector<std::string> shallow;
  // Objects that HEAD itself needs are not here: no history can be sent at all.
  bool impossible = false;
  // Others are not here: only HEAD is sent.
  bool head_only = false;
};

struct HistoryRequest {
  std::string head;
  std::vector<std::string> others;  // upstream, default branch
  std::uint32_t depth = 50;         // beyond where they meet; 0: everything
  bool partial = false;             // objects may be missing: look before promising
};

// The store's own shallow list has to be the user's repository's.
result<History> plan_history(const ObjectStore& store, const HistoryRequest& request);

}  // namespace protocol::sync
