// The work tree's end of sync, on the laptop: takes snapshots, makes packs for a box, merges
// results back. Every call blocks (run it on a pool thread) and runs git only on the private store,
// never on the user's repository or work tree but to read HEAD, the index and ignore rules. Not
// thread-safe: one call at a time on an object; several processes on one store are made safe by its
// flock.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "protocol/os/fd.h"
#include "protocol/sync/snapshot.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

using wire::result;

struct OriginOptions {
  std::filesystem::path
      work_tree;                // its root: git's top level, or the directory itself without git
  std::filesystem::path store;  // private directory, made when missing (0700)
  std::vector<std::string> includes;  // sync.include
  std::uint32_t depth = 50;           // sync.depth; 0 is all
  std::string git = "git";            // program
};

// What merging a result did. Paths are relative to the work tree, bytes as they are.
struct MergeReport {
  std::vector<std::string> written;  // made or changed here as on the box (merged text included)
  std::vector<std::string> deleted;
  struct Conflict {
    std::string path;
    std::string
        saved;  // NAME.sandbox-conflict, or empty where there is nothing to save (deleted there)
    std::string why;
  };
  std::vector<Conflict> conflicts;     // ours stayed
  std::vector<wire::LeftOut> refused;  // paths that were not written: escapes, .git, folding names,
                                       // unwritable; their content stays in the store. Also
                                       // a damaged record of earlier such ones
  std::vector<std::string> commits;    // refs/sandbox/... made for commits from the sandbox
  // Where the files of a result that was not merged completely are kept: a commit with those that
  // it made or changed, and the git directory that has it. Empty when it was.
  struct Kept {
    std::string commit;
    std::filesystem::path store;
  };
  std::vector<Kept> kept;
  // Without git: what the sandbox had changed by itself. With git it is among `commits`.
  std::vector<Kept> drift;
  bool already = false;  // another process had merged it
  bool complete() const { return conflicts.empty() && refused.empty(); }
};

class Origin {
 public:
  // Errc::unsupported (git missing or older than 2.39), not_found, denied, io; bad_input for a
  // damaged id, which is left as it is.
  static result<std::unique_ptr<Origin>> open(OriginOptions options);
  virtual ~Origin() = default;

  // This work tree's id, made once: 32 hex digits.
  virtual std::string id() const = 0;

  // The work tree now. Scans again (bounded) when HEAD or the index moved meanwhile.
  virtual result<Snapshot> snapshot() = 0;

  // What this origin knows of a sandbox: the commit that the box is known to have (base for packs),
  // and the last merged result. Empty strings: nothing yet.
  virtual std::string base(const std::string& sandbox) = 0;
  virtual std::string merged(const std::string& sandbox) = 0;
  // The box has applied this snapshot.
  virtual result<void> set_base(const std::string& sandbox, const std::string& commit) = 0;
  virtual void forget(const std::string& sandbox) = 0;  // the sandbox is gone
  // Those that this work tree was sent to, and that were not forgotten.
  virtual std::vector<std::string> sandboxes() = 0;

  // Writes a thin pack of everything reachable from the snapshot (history cut as its shallow list
  // says) that is not reachable from `haves` into `out`, then closes it. Streams; blocks while
  // `out` is full. Errc::gone when the reader went away. `haves` that this store does not know are
  // passed over.
  virtual result<void> write_pack(const Snapshot& snapshot, const std::vector<std::string>& haves,
                                  os::Fd out) = 0;

  // Reads a pack from `in` to its end, checks it (index-pack --strict, size limits) and keeps its
  // objects. Nothing outside the store changes. `shallow`: of a whole pack, commits whose parents
  // are not in it. Errc::not_found: it builds on objects that are not here any more, because the
  // repository that they were borrowed from has dropped them; a whole pack is needed.
  virtual result<void> read_pack(os::Fd in, std::uint64_t max_bytes,
                                 const std::vector<std::string>& shallow) = 0;

  // Merges a result whose pack was read into the work tree: base is what was sent, theirs the box,
  // ours the files as they are now. All on disk (fsynced) when it returns; then records it as
  // merged for this sandbox. Errc::bad_input for a result that is not a commit grown from
  // `result.base`, not_found when what it grew from is not all here any more (a whole pack is
  // needed), no_space or denied with nothing lost.
  virtual result<MergeReport> merge(const std::string& sandbox, const wire::Result& result) = 0;
  // Tries again what earlier merges of this sandbox could not write; it stays refused while it
  // cannot be. An empty report: there was nothing.
  virtual result<MergeReport> merge_unwritten(const std::string& sandbox) = 0;
};

}  // namespace protocol::sync
