// The program from arguments to exit status: parses, sets up loop, signals and output, runs the
// row's command, tells errors.
#pragma once

#include "cli/environment.h"

namespace cli {

// The exit status. The caller must end the process without running destructors of threads that may
// still block in a read or write of a standard stream: _exit.
int run(const Environment& environment);

}  // namespace cli
