// The box's end of sync, run by the supervisor: makes the workspace equal a snapshot, takes
// results, keeps them until merged. Every call blocks (run it on a pool thread). Never trusts the
// workspace: its .git, links and nested repositories are data; git runs only on the private store.
// One call at a time on an object.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/os/fd.h"
#include "protocol/wire/messages.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

using wire::result;

// Whether this may be the id of an origin: letters and digits. No result is taken for others.
bool is_origin(std::string_view origin);

struct WorkspaceOptions {
  std::filesystem::path workspace;  // the work tree on the box; made when missing
  std::filesystem::path store;      // store.git, private; made when missing
  std::string git = "git";
};

class Workspace {
 public:
  static result<std::unique_ptr<Workspace>> open(WorkspaceOptions options);
  virtual ~Workspace() = default;

  virtual std::string snapshot() = 0;  // last applied one; empty: none yet
  // Commits that packs may build on, newest first, at most 20.
  virtual std::vector<std::string> have() = 0;
  virtual bool has(const std::string& commit) = 0;

  // Call with each sync before its pack is read: a store that is still empty takes on the
  // snapshot's object format. Errc::unsupported when it holds objects of another one.
  virtual result<void> begin(const wire::SyncStart&) { return {}; }

  // Reads a pack to its end and keeps its objects, checked and bounded. The shallow list belongs to
  // it: commits whose parents are not there.
  virtual result<void> read_pack(os::Fd in, std::uint64_t max_bytes,
                                 const std::vector<std::string>& shallow) = 0;

  // The latest result of `origin` later than `merged` (the origin's last merged one); std::nullopt:
  // none.
  virtual std::optional<wire::Result> unmerged(const std::string& origin,
                                               const std::string& merged) = 0;

  // Call before a pull: drift that no result carries yet becomes part of one, without a look at the
  // files, which a command may be changing.
  virtual result<void> offer_drift(const std::string&) { return {}; }

  // Makes the workspace equal the snapshot (whose pack was read): drift is kept first, only
  // differing files are written, ignored ones stay, .git shows head, branch, staged and unstaged
  // state. Errc::no_space, denied, bad_input; a failed one leaves files that the next apply puts
  // right, and loses nothing.
  virtual result<wire::Applied> apply(const std::string& origin, const wire::SyncStart& sync) = 0;

  // What the workspace holds now against the last snapshot or result, kept under a ref for
  // `origin`. std::nullopt: nothing changed since the last applied snapshot (or since the last
  // result that was taken).
  virtual result<std::optional<wire::Result>> take_result(const std::string& origin) = 0;

  // Thin pack of a result against what its origin has (its base and `merged`), into `out`, which is
  // then closed.
  virtual result<void> write_pack(const wire::Result& result, const std::string& merged,
                                  os::Fd out) = 0;
  // The same against nothing: all that the result and `merged` reach. The commits among them whose
  // parents are not here.
  virtual result<std::vector<std::string>> write_whole_pack(const wire::Result& result,
                                                            const std::string& merged,
                                                            os::Fd out) = 0;

  // What would be lost with the workspace: results that no origin has merged, one that is taken now
  // included, and drift.
  virtual result<wire::Unpulled> unpulled() = 0;

  // The origin has it on disk: its refs and all earlier ones of that origin may go, and the drift
  // that it carried.
  virtual void merged(const std::string& origin, const std::string& result) = 0;

  // Tidies the store (old snapshots, gc). Call when idle.
  virtual void tidy() = 0;
};

}  // namespace protocol::sync
