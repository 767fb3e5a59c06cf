// Knowing that a child has ended, without reaping it. For protocol/os alone.
#pragma once

#include <sys/types.h>

#include "protocol/os/fd.h"

namespace protocol::os {

// Also true of a pid that is no child of ours any more.
bool child_has_ended(pid_t pid);
// Readable when it has ended. None on an old kernel, under valgrind or on another system: there the
// caller looks again and again.
Fd open_pidfd(pid_t pid);
// Tests only: as on a system without it.
void set_portable_waits(bool portable);

}  // namespace protocol::os
