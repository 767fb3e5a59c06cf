// A sandbox that must be there already: what push, pull, status and ssh-config begin with. They
// never make one.
#pragma once

#include <memory>

#include "cli/connection.h"
#include "cli/session_client.h"
#include "cli/target.h"

namespace cli {

struct Existing {
  Entry entry;
  std::shared_ptr<Connection> connection;
  std::unique_ptr<SessionClient> client;           // bind was sent
  std::shared_ptr<protocol::sync::Origin> origin;  // of push and pull
  std::string url;
};

// The target's sandbox, or the one of --id. Throws UserError when there is none. `use`: it is not
// only looked at.
protocol::os::awaitable<Entry> existing_entry(Context& context, const Target& target, bool use);

// Connects and binds. `with_origin`: opens the work tree's store, too.
protocol::os::awaitable<Existing> open_existing(Context& context, const Target& target,
                                                bool with_origin);
// The same for the sandbox of this entry.
protocol::os::awaitable<Existing> open_existing(Context& context, const Target& target, Entry entry,
                                                bool with_origin);

// Ends the work with a sandbox of which bind said that it is not there: forgets it when that is
// certain. Always throws.
protocol::os::awaitable<void> not_there(Context& context, Existing& existing, BindFailed gone);

}  // namespace cli
