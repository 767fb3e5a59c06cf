// sandbox: runs commands on another machine as if they ran here.
#include <unistd.h>

#include "cli/environment.h"
#include "cli/program.h"

int main(int argc, char** argv) {
  int status = cli::run(cli::process_environment(argc, argv));
  // Threads may still block in a read of stdin or a write to a reader that does not read: they are
  // not waited for.
  ::_exit(status);
}
