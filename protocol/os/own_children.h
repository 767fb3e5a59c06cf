// The children of this process that a Process stands for: nobody else reaps them. For protocol/os
// alone.
#pragma once

#include <sys/types.h>

#include <mutex>
#include <set>

namespace protocol::os {

// Locked from before a spawn until the pid is in it, so that reap_orphans never takes a child that
// is just being started.
struct OwnChildren {
  std::mutex mutex;
  std::set<pid_t> pids;
};

inline OwnChildren& own_children() {
  static auto* own = new OwnChildren;  // processes may end while statics are destroyed
  return *own;
}

}  // namespace protocol::os
