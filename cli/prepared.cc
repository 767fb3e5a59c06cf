#include "cli/prepared.h"

#include "cli/error.h"

namespace cli {

Prepared prepare(protocol::sync::Origin& origin, const std::string& sandbox) {
  Prepared prepared;
  prepared.base = origin.base(sandbox);
  prepared.merged = origin.merged(sandbox);  // before the scan: see the header
  auto snapshot = origin.snapshot();
  if (!snapshot) {
    std::string next;
    switch (snapshot.error().code) {
      case protocol::wire::Errc::no_space:
        next = "Free some space on that disk.";
        break;
      case protocol::wire::Errc::denied:
        next = "Make that readable for you, or the directory writable.";
        break;
      default:
        next = "`git fsck` and `git status` say whether the repository is whole. Nothing was sent.";
    }
    throw UserError("sync", "cannot take a snapshot of the work tree: " + snapshot.error().what,
                    next);
  }
  prepared.snapshot = std::move(*snapshot);
  return prepared;
}

}  // namespace cli
