// What a work tree holds: every path that is not ignored, with type, mode, size and object id.
// Names come from git, content is read by us beneath the root (no link is followed) and stored
// unfiltered. A cache on disk remembers what was seen, so that unchanged files are never read
// again, and git is not asked again for names while no directory and no ignore file has changed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/os/beneath.h"
#include "protocol/sync/object_store.h"
#include "protocol/sync/object_writer.h"
#include "protocol/sync/unread.h"
#include "protocol/wire/messages.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

struct ScanEntry {
  std::string path;
  std::uint32_t mode = 0;  // git's: 0100644, 0100755, 0120000, 0160000
  std::string oid;
  os::FileInfo info;  // as it was when its content was read; a submodule has none
  // False: what it holds by now is not known, `mode` and `oid` are what it held when last read.
  bool read = true;
};

struct Scan {
  std::vector<ScanEntry> entries;  // sorted by path bytes
  std::string tree;                // of all of them
  std::vector<wire::LeftOut> left_out;
  std::vector<Unread> unread;  // by path; not in `left_out`
  // The cached tree was good as it was: nothing has changed since the last scan.
  bool unchanged = false;
};

// A path that belongs to the tree although an ignore rule may name it.
struct TrackedPath {
  std::string path;
  std::uint32_t mode = 0;  // as recorded; 0160000 is kept as it is
  std::string oid;
  bool absent = false;  // sparse: when it is not on the disk it counts as unchanged, not as deleted
};

// Who knows the names.
class NameSource {
 public:
  struct Names {
    std::vector<TrackedPath> tracked;  // any order, a path once
    std::vector<std::string> others;   // not tracked, not ignored; "dir/" is a nested repository
    std::vector<wire::LeftOut> left_out;
    std::string tree;  // a tree that holds exactly what is tracked, or empty
  };
  virtual ~NameSource() = default;
  // Changes when the names may be others although no directory and no .gitignore has changed:
  // ignore rules from outside the tree, the index.
  virtual std::string state() = 0;
  virtual result<Names> list() = 0;
  // A git that answers `check-ignore` for this tree.
  virtual Git git() = 0;
  // The executable bit on the disk means something.
  virtual bool trusts_modes() const { return true; }
};

// Names of a tree whose repository is the store itself: the box's workspace, and a work tree
// without git. `tracked`: what the last snapshot or result held.
class StoreNames : public NameSource {
 public:
  // `store` outlives this. `excludes`: ignore rules from outside the tree (SyncStart::excludes),
  // written to the store's info/exclude.
  StoreNames(const ObjectStore& store, std::filesystem::path root, std::string tracked_tree,
             std::string excludes);
  std::string state() override;
  result<Names> list() override;
  Git git() override;

 private:
  const ObjectStore& store_;
  std::filesystem::path root_;
  std::string tracked_tree_, excludes_;
};

// One work tree and its cache. One process at a time: ObjectStore::lock.
class WorkTree {
 public:
  // A cache that is missing, damaged or of another tree is made anew. `store` and `root` outlive
  // this.
  static WorkTree open(const ObjectStore& store, const os::Beneath& root,
                       std::filesystem::path cache);
  ~WorkTree();
  WorkTree(WorkTree&&) noexcept;

  // Lists, hashes what changed and writes it through `writer` (finish it before using the tree).
  // Only what the system says is not there counts as gone: what cannot be looked at stays in the
  // tree as it was last known (read or written by us, else as recorded) and is in Scan::unread.
  // `includes`: ignored paths to carry all the same (a file, a directory, or a git glob).
  result<Scan> scan(NameSource& names, const std::vector<std::string>& includes,
                    ObjectWriter& writer);

  // We have just written this file and know what it holds: it need not be read again.
  void wrote(const std::string& path, const os::FileInfo& info, std::uint32_t mode,
             const std::string& oid);
  void removed(const std::string& path);
  // When the names were last listed, `path` was tracked, and the user's sparse checkout need not
  // have it on the disk (TrackedPath::absent).
  bool may_be_absent(const std::string& path) const;
  // Forgets everything: the next scan reads and stores every file.
  void forget();
  // Writes the cache, if it has changed.
  result<void> save();

 private:
  struct State;
  explicit WorkTree(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Why a path of a work tree never travels (a spelling of .git, a file that only we make); empty: it
// may.
std::string refuse_to_carry(std::string_view path);

}  // namespace protocol::sync
