// What the sessions and connections of one agent share. Made once, in agent.cc; outlives them all.
#pragma once

#include "protocol/os/async.h"
#include "protocol/wire/messages.h"

namespace agent {

class Lifetime;
class Locks;
class Sandboxes;
class Store;
class Supervisors;

struct Services {
  protocol::os::executor executor;
  Lifetime& lifetime;
  Store& store;
  Locks& locks;
  Supervisors& supervisors;
  Sandboxes& sandboxes;
  protocol::wire::Info info;         // without `user`
  bool trust_claimed_users = false;  // a client's word for its user's name is taken
};

}  // namespace agent
