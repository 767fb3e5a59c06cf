// Merging a result from a box into the work tree. The box is not trusted: every path is judged
// before a file is touched, and what cannot be written is named and stays in the store. Nothing
// that was edited here is lost: a file that is not what it was when it was compared is compared
// again.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "protocol/os/beneath.h"
#include "protocol/sync/git.h"
#include "protocol/sync/object_store.h"
#include "protocol/sync/origin.h"
#include "protocol/sync/scan.h"
#include "protocol/sync/unwritten.h"
#include "protocol/wire/messages.h"

namespace protocol::sync {

// All references outlive the call. The caller holds the store's lock.
struct MergeContext {
  const os::Beneath& root;        // the work tree
  ObjectStore& store;             // has the result: its pack was read
  WorkTree& cache;                // knows what is sparse; told what was written, and saved
  std::optional<Git> repository;  // the user's; commits made in the sandbox become refs/sandbox/...
                                  // in it. std::nullopt: without git
  std::filesystem::path
      journal;               // in the store's directory: where a killed merge left temporary files
  bool trusts_modes = true;  // the executable bit on the disk means something
};

// `merged`: the last result of this sandbox that was merged, or empty. Everything is on the disk
// when it returns; the caller then records `result` as merged. Errc::bad_input for a result that is
// not a commit grown from `result.base`; no_space, denied, io: what was not yet written is as it
// was, and merging again goes on from there.
// `unwritten`: what earlier merges could not write; this result's version takes the place of an
// earlier one. On return what cannot be written now, the result's own included.
result<MergeReport> merge_result(const MergeContext& context, const std::string& merged,
                                 const wire::Result& result, std::vector<Unwritten>& unwritten);

// Tries all of `unwritten` again, and leaves in it what still cannot be written. Errors as above,
// but for Errc::not_found: the store has lost something of it.
result<MergeReport> merge_unwritten(const MergeContext& context, std::vector<Unwritten>& unwritten);

}  // namespace protocol::sync
