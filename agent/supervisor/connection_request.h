// What a connection knows of one request; for the connection's own sources.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "agent/supervisor/connection.h"
#include "protocol/os/bulk_queue.h"

namespace agent::supervisor {

// Kept for the life of the connection, so that late frames of an ended request are told from those
// of a new one.
struct Connection::Request {
  explicit Request(protocol::os::executor ex) : pack(ex), input(ex) {}
  bool failed = false;     // later steps are skipped
  bool discarded = false;  // its streams are read and forgotten
  bool pack_complete = false;
  std::optional<protocol::wire::SyncStart> sync;  // received, waits for sync_end
  protocol::os::BulkQueue pack, input;
  std::shared_ptr<Job> job;
  bool detached = false;     // the job is on its own
  std::vector<int> signals;  // came before the job
  std::optional<protocol::wire::Window> window;
};

}  // namespace agent::supervisor
