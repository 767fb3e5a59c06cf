// The workspace's operations, one after the other on a thread of their own, so that jobs' output
// and other connections go on meanwhile. Packs are files while they travel: a slow client never
// holds the workspace.
#pragma once

#include <boost/asio/thread_pool.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "protocol/os/async.h"
#include "protocol/os/fd.h"
#include "protocol/os/offload.h"
#include "protocol/sync/workspace.h"

namespace agent::supervisor {

using protocol::os::awaitable;
using protocol::wire::result;

class WorkspaceQueue {
 public:
  explicit WorkspaceQueue(std::unique_ptr<protocol::sync::Workspace> workspace)
      : workspace_(std::move(workspace)) {}
  // Waits for the operation that runs.
  ~WorkspaceQueue() { pool_.join(); }

  // `work(Workspace&)` on the queue's thread, after all that were asked for before. It must own
  // what it uses.
  template <class F>
  auto run(F work) {
    auto* workspace = workspace_.get();
    return protocol::os::offload(
        pool_, [workspace, work = std::move(work)]() mutable { return work(*workspace); });
  }

  // What status shows without waiting in line: as of the last operation that told.
  struct Known {
    std::string snapshot;
    std::map<std::string, bool> unmerged;  // by origin
  };
  Known known;

 private:
  std::unique_ptr<protocol::sync::Workspace> workspace_;
  boost::asio::thread_pool pool_{1};
};

// A file without a name, in `directory`, for a pack on its way. Errc::no_space, denied, io.
result<protocol::os::Fd> make_spool(const std::filesystem::path& directory);

}  // namespace agent::supervisor
