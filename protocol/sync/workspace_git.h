// The workspace's .git on the box, as tools inside the sandbox see it. We write its HEAD, refs,
// shallow list and index, and read back what commits made there moved. It belongs to the sandboxed
// code: it is data, opened beneath the workspace without following a link, and git is never run on
// it. Its objects are those of the store, by alternates, and what was made inside the sandbox.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/os/beneath.h"
#include "protocol/wire/messages.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

using wire::result;

// What a repository points at.
struct RepositoryRefs {
  std::string branch;    // HEAD's branch, refs/heads/x; empty: detached
  std::string detached;  // HEAD's commit when it is detached
  // Full name to object id, `HEAD` excluded. Each stash, the older ones too, is refs/stash/ID.
  std::map<std::string, std::string> refs;
};

// A name that git itself would accept, beneath refs/.
bool is_ref_name(std::string_view name);
bool is_object_id(std::string_view text);  // 40 or 64 lower-case hex digits

class WorkspaceGit {
 public:
  // `workspace` outlives this. `objects`: the store's object directory, as processes in the sandbox
  // see it.
  WorkspaceGit(const os::Beneath& workspace, std::filesystem::path objects)
      : workspace_(workspace), objects_(std::move(objects)) {}

  // Makes HEAD, refs, tracking and shallow list what the snapshot says. `before`: the refs that we
  // wrote last time; those that are no longer wanted go, others stay. Whatever stands in the way (a
  // linked .git, a file where a directory has to be) is removed.
  result<void> write(const wire::SyncStart& sync, const RepositoryRefs& before,
                     const std::string& shallow) const;
  // Replaces .git/index.
  result<void> write_index(std::string_view bytes) const;
  std::optional<os::FileInfo> index_info() const;

  // What it points at now; what cannot be read safely is as if it were not there.
  RepositoryRefs read() const;

  // Copies the loose objects and packs that were made in the sandbox into `quarantine`, an object
  // directory: bounded by `max_bytes` (Errc::too_large), links and alternates left alone. Nothing
  // in there was checked yet.
  result<void> copy_objects(const os::Beneath& quarantine, std::uint64_t max_bytes) const;

 private:
  result<void> put(const std::string& path, std::string_view bytes) const;
  result<void> make_directory(const std::string& path) const;
  result<void> drop_ref(const std::string& name, const std::string& oid) const;
  void read_loose(const std::string& directory, int depth, RepositoryRefs& refs) const;
  void read_packed(RepositoryRefs& refs) const;
  void read_stashes(RepositoryRefs& refs) const;
  std::string tracking_config(const wire::SyncStart& sync) const;

  const os::Beneath& workspace_;
  std::filesystem::path objects_;
};

// The refs that a snapshot asks for.
RepositoryRefs wanted_refs(const wire::SyncStart& sync);

}  // namespace protocol::sync
