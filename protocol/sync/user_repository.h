// The user's own repository, read and never written: where HEAD is, what is staged, which paths are
// tracked, what its ignore rules outside the tree say. Worktrees, submodule checkouts (.git is a
// file), shallow, partial and sparse clones are repositories like any other.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "protocol/sync/git.h"
#include "protocol/sync/repository_facts.h"
#include "protocol/sync/scan.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

class UserRepository : public NameSource {
 public:
  // std::nullopt inside: there is no .git at the root, or it is not a repository (`why` says so).
  // `memory`: a file that keeps facts while nothing that they came from has changed.
  static result<std::unique_ptr<UserRepository>> open(const Git& git,
                                                      const std::filesystem::path& work_tree,
                                                      std::filesystem::path memory,
                                                      std::string* why = nullptr);

  const std::filesystem::path& git_dir() const { return git_dir_; }
  // A git whose repository it is, and that may write objects and refs to it.
  const Git& repository() const { return git_; }
  std::filesystem::path objects() const { return common_dir_ / "objects"; }
  const std::string& object_format() const { return facts_.object_format; }

  // Reads what has changed since the last call. Errc::io when git fails on it.
  result<void> refresh();
  const RepositoryFacts& facts() const { return facts_; }
  // How HEAD, the index and the refs look on the disk right now: the same text before and after
  // something means that they did not move meanwhile.
  std::string stamp() const;

  std::string state() override;
  result<Names> list() override;
  Git git() override;
  bool trusts_modes() const override { return facts_.trusts_modes; }

 private:
  UserRepository(const Git& git, std::filesystem::path work_tree, std::filesystem::path memory);
  result<bool> locate(std::string* why);
  bool recall();
  void remember() const;
  std::vector<std::filesystem::path> sources() const;

  Git git_;  // its repository is the user's
  std::filesystem::path work_tree_, memory_, git_dir_, common_dir_;
  RepositoryFacts facts_;
  std::map<std::string, std::string> looks_;  // of every source when it was read
};

}  // namespace protocol::sync
