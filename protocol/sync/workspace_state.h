// What the box's end remembers of its workspace between calls, in one small file of the store.
// Written in one step. Without one the next apply looks at everything anew.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "protocol/sync/workspace_git.h"
#include "protocol/wire/messages.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

struct WorkspaceState {
  wire::SyncStart sync;    // the snapshot that was applied last; `snapshot` empty: none yet
  std::string origin;      // whose it is
  std::string generation;  // made anew when a snapshot was applied (result_message.h)
  std::string tree;        // what the workspace held when it was last known
  std::string applying;    // tree of a snapshot that was being written, when that was not finished
  // Where .git pointed when the snapshot had been applied, or when the last merged result was
  // taken.
  RepositoryRefs seen;
  std::string place;  // which directory this was said of
  std::string index;  // what .git/index was made from and how it looked then
  // Results that an origin has merged since the snapshot was applied: what its next one grows from.
  std::map<std::string, std::string> merged;
};

struct LoadedState {
  WorkspaceState state;           // empty for a file that is missing or damaged
  std::filesystem::path damaged;  // where a damaged one was put aside; empty: it was none
};
LoadedState load_state(const std::filesystem::path& file);
result<void> save_state(const std::filesystem::path& file, const WorkspaceState& state);

}  // namespace protocol::sync
