// Which sandboxes prune removes. Pure.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "cli/arguments.h"

namespace cli {

// What the command line asks for. Nothing of it: the orphaned ones.
struct PruneChoice {
  bool all = false;
  std::optional<std::size_t> keep;
  std::optional<std::chrono::seconds> older_than;
  bool orphaned = false;
};
// Throws UserError (status 2).
PruneChoice prune_choice(const Arguments& arguments);

struct PruneCandidate {
  std::string used_at;  // RFC 3339, UTC, whole seconds; empty: not known, then it is the oldest
  bool orphaned = false;
  bool active = false;
};

// Indexes of those to remove, last used first. Active ones never; but they count among the N to
// keep, as do those that another option leaves. `now` is RFC 3339, UTC, whole seconds.
std::vector<std::size_t> choose_to_prune(const std::vector<PruneCandidate>& candidates,
                                         const PruneChoice& choice, const std::string& now);

}  // namespace cli
