#include "protocol/sync/record.h"

#include <fcntl.h>
#include <unistd.h>

#include "protocol/os/fd.h"

namespace protocol::sync {

result<void> write_record(const std::filesystem::path& file, std::string_view bytes) {
  std::filesystem::path temporary = file;
  temporary += ".new" + std::to_string(::getpid());
  os::Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return os::errno_failure(errno, temporary.string());
  auto written = os::write_all(fd.get(), bytes);
  fd.reset();
  if (written && ::rename(temporary.c_str(), file.c_str()) != 0)
    written = os::errno_failure(errno, file.string());
  if (!written) ::unlink(temporary.c_str());
  return written;
}

}  // namespace protocol::sync
