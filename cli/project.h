// Which work tree this is, and where its HEAD is. Reads .git with a tiny reader of its own, so that
// no variable, hook or configuration of the user's git has a say; git itself is asked about
// ancestry only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/environment.h"

namespace cli {

struct Project {
  std::filesystem::path root;  // real path: git's top level, or the directory itself without git
  std::filesystem::path directory;  // real path of where the user is, in root or below
  std::uint64_t device = 0;         // of root: another tree at the same path is another project
  std::uint64_t inode = 0;
  bool git = false;
  std::string branch;  // "main", "detached@<12 hex digits>", or empty without git

  // Where the user is, from the root: "" or "a/b".
  std::string subdirectory() const;
};

// Of `directory`, or of the current one when that is empty. Throws UserError when there is no such
// directory.
Project find_project(const Environment& environment, const std::string& directory);

// The commit of "detached@<commit>"; std::nullopt for a branch.
std::optional<std::string> detached_commit(const std::string& branch);

// Of `commits`, those that HEAD of the work tree descends from. Blocks; runs git. Empty when git
// cannot say.
std::vector<std::string> ancestors_of_head(const std::filesystem::path& root,
                                           const std::vector<std::string>& commits,
                                           const Environment& environment);

}  // namespace cli
