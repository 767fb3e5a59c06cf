// What the sessions and connections of one agent share. Made once, in agent.cc; outlives them all.
#pragma once

#include "protocol/os/async.h"
#include "protocol/wire/messages.h"

namespace agent {

class Isolation;
class Jobs;
class Lifetime;
class Limits;
class Locks;
class Notices;
class Sandboxes;
class Store;
class Supervisors;
class UserLocks;

struct Services {
  protocol::os::executor executor;
  Lifetime& lifetime;
  Store& store;
  Locks& locks;
  Supervisors& supervisors;
  Sandboxes& sandboxes;
  const Isolation& isolation;
  const Limits& limits;
  Notices& notices;
  UserLocks& user_locks;
  Jobs& jobs;
  protocol::wire::Info info;         // without `user`
  std::uint32_t slots = 0;           // 0: no limit
  bool trust_claimed_users = false;  // a client's word for its user's name is taken
};

}  // namespace agent
