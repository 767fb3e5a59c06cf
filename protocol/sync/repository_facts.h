// What is read from the user's own repository, by asking git once. Nothing here knows when that has
// to be done again (user_repository.h).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "protocol/sync/git.h"
#include "protocol/sync/object_writer.h"
#include "protocol/sync/record.h"
#include "protocol/wire/messages.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

// What a repository says at one moment.
struct RepositoryFacts {
  std::string object_format = "sha1";
  std::string head;                  // HEAD's commit; empty: unborn
  std::string head_tree;             // and its tree
  std::string branch;                // refs/heads/x; empty: detached
  std::string upstream;              // refs/remotes/origin/x that branch tracks, where it is there
  std::string remote_head;           // what refs/remotes/origin/HEAD points to
  std::vector<wire::Ref> refs;       // branch, upstream, default branch
  std::vector<std::string> shallow;  // the user's own shallow list
  std::vector<TreeChange> staged;    // the index against head_tree
  std::vector<wire::LeftOut> left_out;          // unmerged entries, a HEAD that points nowhere, ...
  std::string excludes;                         // core.excludesFile and info/exclude, joined
  std::string excludes_file;                    // core.excludesFile, or where git would look for it
  bool trusts_modes = true;                     // core.fileMode
  bool partial = false;                         // a clone that lacks objects on purpose
  std::vector<std::filesystem::path> settings;  // files that settings came from
};

// Where a repository is: its work tree, its own directory, and the one that it shares with its
// other work trees.
struct RepositoryPlace {
  std::filesystem::path work_tree, git_dir, common_dir;
};

// `git` is one whose repository it is. Errc::io when git fails on it.
result<RepositoryFacts> read_facts(const Git& git, const RepositoryPlace& place,
                                   std::string object_format);

void write_facts(const RepositoryFacts& facts, RecordWriter& out);
// Whether it went well, `in` knows.
RepositoryFacts parse_facts(RecordReader& in);

}  // namespace protocol::sync
