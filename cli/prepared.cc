#include "cli/prepared.h"

#include "cli/error.h"

namespace cli {

Prepared prepare(protocol::sync::Origin& origin, const std::string& sandbox) {
  Prepared prepared;
  prepared.base = origin.base(sandbox);
  prepared.merged = origin.merged(sandbox);  // before the scan: see the header
  auto snapshot = origin.snapshot();
  if (!snapshot) {
    throw UserError("sync", "cannot take a snapshot of the work tree: " + snapshot.error().what,
                    snapshot.error().code == protocol::wire::Errc::no_space
                        ? "Free some space on that disk."
                        : "");
  }
  prepared.snapshot = std::move(*snapshot);
  return prepared;
}

}  // namespace cli
