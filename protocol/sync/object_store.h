// A private bare git repository: objects, refs, packs in and out. Every filter and conversion is
// turned off in it. It never looks at a work tree and never at the configuration of the user or the
// system. Not thread-safe; several processes on one store take lock() around what belongs together.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/os/fd.h"
#include "protocol/os/flock.h"
#include "protocol/sync/git.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

using wire::result;

// What a pack that somebody sends may cost.
struct ImportLimits {
  std::uint64_t bytes = wire::kMaxPackBytes;
  std::uint64_t objects = 20'000'000;
  std::uint64_t expanded_bytes = 256ull << 30;  // sum of what its objects hold
  std::uint64_t object_bytes = 8ull << 30;      // one object
  std::uint32_t processor_seconds = 1800;
};

struct TreeDifference {
  std::string path;
  std::uint32_t old_mode = 0;  // 0: not there
  std::string old_oid;         // empty: not there
  std::uint32_t new_mode = 0;
  std::string new_oid;
};
struct TreeEntry {
  std::string path;
  std::uint32_t mode = 0;
  std::string oid;
};
inline constexpr std::size_t kMaxTreeEntries = 5'000'000;  // one tree, all directories
inline constexpr std::size_t kMaxTreeBytes = 1ull << 30;   // of paths and ids in one listing

struct Commit {
  std::string tree;
  std::vector<std::string> parents;
  std::string message;
};

// Streams blobs out of a store: one long-lived `git cat-file --batch`. Starts when first used.
class BlobReader {
 public:
  using Sink = std::function<result<void>(std::string_view)>;
  // The objects that read() will be asked for, in that order: they are fetched ahead.
  void expect(std::vector<std::string> oids);
  // Calls `sink` with the bytes piece by piece (not at all for an empty blob) and stops at its
  // first failure. Errc::not_found: no such object; bad_input: not a blob.
  result<void> read(const std::string& oid, const Sink& sink);
  // A whole blob. Errc::too_large above `limit`.
  result<std::string> read_all(const std::string& oid, std::size_t limit);
  ~BlobReader();
  BlobReader(BlobReader&&) noexcept;

 private:
  friend class ObjectStore;
  struct State;
  explicit BlobReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Author and committer of every commit that we make, with their date.
inline constexpr std::string_view kCommitIdentity = "sandbox <sandbox@localhost> 0 +0000";

// A directory's line in git's list of object directories to borrow from.
std::string alternates_line(const std::filesystem::path& objects);

// What a merge could not write: the only copy of somebody's work.
inline constexpr std::string_view kKeptRefs = "refs/kept/";
inline constexpr std::string_view kCopied = "-files";  // after one: the copy of its files

class ObjectStore {
 public:
  struct Options {
    std::filesystem::path directory;  // made when missing; itself the git directory
    std::string object_format = "sha1";
    // Object directories to borrow from (the user's repository's); never written.
    std::vector<std::filesystem::path> alternates;
    // What a crash of the machine may lose can be had again: nothing is fsynced.
    bool cache = false;
  };
  // A directory that is not a store, or one of another object format, is made anew where `cache`
  // is set (what was in it is moved aside and removed), and Errc::bad_input otherwise.
  static result<ObjectStore> open(const Git& git, Options options);

  const Git& git() const { return git_; }  // its repository is this one
  const std::filesystem::path& directory() const { return options_.directory; }
  std::filesystem::path objects() const { return options_.directory / "objects"; }
  const std::string& object_format() const { return options_.object_format; }
  std::string empty_tree() const;
  std::size_t oid_digits() const { return options_.object_format == "sha256" ? 64 : 40; }
  // Exclusive; blocks until the other process is done.
  result<os::FileLock> lock() const;

  // ---- refs: loose files, written in one step; no other program packs them. Names have to be
  // beneath refs/ and ones that git accepts (Errc::bad_input).
  result<void> set_ref(const std::string& name, const std::string& oid);
  std::string get_ref(const std::string& name) const;  // empty: not there
  void delete_ref(const std::string& name);
  // (name, oid) of all beneath a prefix that ends in '/', sorted by name.
  std::vector<std::pair<std::string, std::string>> list_refs(const std::string& prefix) const;

  // ---- objects
  bool has(const std::string& oid) const;
  // Those of `oids` that are here (one process for all).
  result<std::vector<std::string>> known(const std::vector<std::string>& oids) const;
  // Everything that the commit reaches is here.
  bool is_complete(const std::string& commit) const;
  result<Commit> read_commit(const std::string& oid) const;
  result<std::string> tree_of(const std::string& commit) const;
  // An empty `a` is the empty tree. Renames are not looked for. Errc::too_large: kMaxTreeEntries.
  result<std::vector<TreeDifference>> diff_trees(const std::string& a, const std::string& b) const;
  // Files, links and submodules of a tree or commit, sorted by path bytes.
  result<std::vector<TreeEntry>> list_tree(const std::string& tree) const;
  BlobReader blob_reader() const;
  // Stores what the descriptor holds, or these bytes. To write many, use ObjectWriter.
  result<std::string> write_blob(int fd) const;
  result<std::string> write_blob(std::string_view bytes) const;
  // Author, committer and dates are always the same, so that equal content has an equal id.
  result<std::string> write_commit(const std::string& tree, const std::vector<std::string>& parents,
                                   const std::string& message) const;
  // Three-way merge of text; empty `base`: none. The merged blob's id; std::nullopt: they conflict,
  // or one is binary or larger than 64 MiB.
  result<std::optional<std::string>> merge_file(const std::string& base, const std::string& ours,
                                                const std::string& theirs) const;

  // ---- history that ends here: commits whose parents are not to be looked for
  std::vector<std::string> shallow() const;
  result<void> set_shallow(std::vector<std::string> commits);

  // ---- packs
  // Thin pack of all that `tips` reach and `haves` do not, into `out`, which is then closed.
  // Writes nothing at all when there is nothing to send. `haves` that are not here are passed over;
  // history ends at `shallow` as well as at shallow(). Errc::gone: the reader went away;
  // not_found: an object is missing, and nothing was written.
  result<void> write_pack(const std::vector<std::string>& tips,
                          const std::vector<std::string>& haves,
                          const std::vector<std::string>& shallow, os::Fd out) const;
  // Reads a pack from `in` to its end (no bytes at all is fine) and keeps its objects once all of
  // them were checked; before that they are in a quarantine that no other call looks at. `shallow`
  // is added to shallow(). Errc::bad_input, too_large, no_space: nothing was kept.
  result<void> read_pack(os::Fd in, const std::vector<std::string>& shallow,
                         const ImportLimits& limits = {});
  // The same for what `tips` reach in somebody else's object directory, which was copied to a
  // place that they cannot change. Its packs' indexes are made here.
  result<void> adopt(const std::filesystem::path& objects, const std::vector<std::string>& tips,
                     const ImportLimits& limits = {});

  // Keeps a copy of all that `commit` reaches, for as long as the store is there, also of what is
  // borrowed.
  result<void> copy_borrowed(const std::string& commit);
  // Packs loose objects and small packs together, drops what no ref reaches. Takes a while. In a
  // cache a ref goes when what it reaches was borrowed and is gone, unless it is in kKeptRefs
  // and has no copy.
  result<void> tidy();
  // Removes object files that a crash of the machine has left empty, so that what they held can be
  // stored anew.
  void drop_empty_objects();
  // Number of packs and a guess at the number of loose objects: when tidy() pays.
  std::size_t clutter() const;

 private:
  ObjectStore(Git git, Options options);
  Git git_;
  Options options_;
};

}  // namespace protocol::sync
