// Which paths of a pulled result may be written here. A box is not trusted: whatever its trees name
// is judged before a file is touched. Pure: strings in, reasons out; no file is looked at.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace protocol::sync {

// Files that a merge leaves beside one that it could not merge. They are never synced.
inline constexpr std::string_view kConflictSuffix = ".sandbox-conflict";

// True for every spelling by which some file system reaches `.git`: letter case, trailing dots and
// spaces, NTFS short names (git~1) and streams (.git::$INDEX_ALLOCATION), code points that HFS+
// ignores, behind a backslash.
bool is_git_name(std::string_view component);

// True for names that only our own programs make: temporary and conflict files. They are never
// synced.
bool is_own_name(std::string_view component);

// Why a path must not be written, whatever else is there; empty: it may be. Refused are absolute
// paths, empty, `.` and `..` components, NUL bytes, every spelling of `.git`, and names that only
// we make.
std::string refuse_path(std::string_view path);

// The names of a work tree as a file system sees them that takes `README` and `readme` for one.
// First every path that is there (and belongs there, so it is not judged) is `known`, then every
// new one is `add`ed, then each new one is judged.
class NameSet {
 public:
  void known(std::string_view path) { insert(path, false); }
  void add(std::string_view path) { insert(path, true); }
  // Why a path that was added must not be written: a name in it folds to the same as another one
  // and is not known, or a file or link of the same set stands where it needs a directory. Empty:
  // it may be.
  std::string judge(std::string_view path) const;

 private:
  void insert(std::string_view path, bool added);
  struct Spelling {
    std::string path;
    bool known;
  };
  std::unordered_map<std::string, std::vector<Spelling>> spellings_;  // by folded prefix
  std::unordered_set<std::string> files_;                             // added, folded
  std::unordered_set<std::string> directories_;  // above something added, folded
};

}  // namespace protocol::sync
