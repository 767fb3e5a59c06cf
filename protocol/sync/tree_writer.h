// Makes files of a work tree what a tree object says: only those named, each in one step, in an
// order in which files may become directories and directories files. Does not decide what to write:
// apply (on the box) and merge (on the laptop) do. Never follows a link, never touches what it was
// not told of; directories whose last file it took are removed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/os/beneath.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

using wire::result;

// git's modes.
inline constexpr std::uint32_t kModeFile = 0100644;
inline constexpr std::uint32_t kModeProgram = 0100755;
inline constexpr std::uint32_t kModeLink = 0120000;
inline constexpr std::uint32_t kModeSubmodule = 0160000;

struct Wanted {
  std::uint32_t mode = kModeFile;
  std::string oid;
  bool operator==(const Wanted&) const = default;
};

struct Change {
  std::string path;
  std::optional<Wanted> to;              // std::nullopt: it goes
  std::optional<os::FileInfo> expected;  // what is there now; std::nullopt: nothing
  bool only_mode = false;                // the content is there already
  bool unconditional = false;            // whatever is there, as long as it is no directory
};

struct ChangeOutcome {
  enum class State {
    done,
    moved_on,    // something else than `expected` is there by now: untouched
    obstructed,  // a directory with other files, or a link or file on the way: untouched
    failed,      // see `failure`
  };
  State state = State::done;
  wire::Failure failure;
  std::optional<os::FileInfo> info;  // done: the file as it is now
};

struct TreeWriterOptions {
  // Everything is on the disk before run() returns.
  bool durable = false;
  // The tree is ours alone: read-only directories are made writable for a moment, directories in
  // the way are moved to NAME.sandbox-conflict.
  bool force = false;
  // A file that says, while we write, where temporary files may have been left by a kill; empty:
  // none.
  std::filesystem::path journal;
};

class TreeWriter {
 public:
  // Streams a blob's bytes into `sink`, stopping at its first failure.
  using Sink = std::function<result<void>(std::string_view)>;
  using ReadBlob = std::function<result<void>(const std::string& oid, const Sink& sink)>;

  // `root` outlives the writer.
  TreeWriter(const os::Beneath& root, ReadBlob read_blob, TreeWriterOptions options);

  // One outcome per change, in their order. Errc::no_space or an unreadable blob ends it early:
  // what was not yet done is as it was.
  result<std::vector<ChangeOutcome>> run(const std::vector<Change>& changes);

  // Directories that stood in the way and where they are now (`force` only).
  const std::map<std::string, std::string>& moved_aside() const { return moved_aside_; }

  // Removes the temporary files that a killed run left behind, as its journal says.
  static result<void> clean_up(const os::Beneath& root, const std::filesystem::path& journal);

 private:
  struct Staged;
  result<void> write_journal(const std::vector<Change>& changes);
  ChangeOutcome remove(const Change& change);
  result<std::optional<Staged>> stage(const Change& change, std::size_t index,
                                      ChangeOutcome& outcome);
  ChangeOutcome set_mode(const Change& change);
  result<void> place(std::vector<Staged>& staged, const std::vector<Change>& changes,
                     std::vector<ChangeOutcome>& outcomes);
  ChangeOutcome place(Staged& staged, const Change& change);
  bool clear_way(const std::string& path);
  bool remove_empty_directories(const std::string& path);
  bool make_writable(const std::string& path);
  void prune(const std::string& path);
  result<void> sync_directories();

  const os::Beneath& root_;
  ReadBlob read_blob_;
  TreeWriterOptions options_;
  std::set<std::string> touched_;                       // directories to sync
  std::set<std::string> emptied_;                       // directories that a file was taken from
  std::map<std::string, std::uint32_t> made_writable_;  // their modes before
  std::map<std::string, std::string> moved_aside_;
};

}  // namespace protocol::sync
