// What could not be written into the work tree when a result was merged, by no fault of the result:
// a read-only directory, a file that another user owns. Kept on disk, so that it can be tried and
// named again until it is there. Their content is in the store, under refs/kept/.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "protocol/sync/object_store.h"

namespace protocol::sync {

struct Unwritten {
  TreeDifference difference;
  std::string result;  // the commit that has it
};

struct UnwrittenRecord {
  std::vector<Unwritten> all;
  std::filesystem::path damaged;  // where a damaged file was put aside; empty: it was none
};

// Nothing for a file that is not there. Errc::denied, io.
result<UnwrittenRecord> read_unwritten(const std::filesystem::path& file);
// On the disk when it returns. Nothing: the file goes.
result<void> write_unwritten(const std::filesystem::path& file, const std::vector<Unwritten>& all);

}  // namespace protocol::sync
