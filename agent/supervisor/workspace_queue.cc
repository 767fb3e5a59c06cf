#include "agent/supervisor/workspace_queue.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>

namespace agent::supervisor {

namespace os = protocol::os;

result<os::Fd> make_spool(const std::filesystem::path& directory) {
#ifdef O_TMPFILE
  os::Fd fd(::open(directory.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
  if (fd) return fd;
#endif
  std::string name = (directory / ".pack-XXXXXX").native();
  os::Fd named(::mkstemp(name.data()));
  if (!named) return os::errno_failure(errno, directory.native());
  ::fcntl(named.get(), F_SETFD, FD_CLOEXEC);
  ::unlink(name.c_str());
  return named;
}

}  // namespace agent::supervisor
