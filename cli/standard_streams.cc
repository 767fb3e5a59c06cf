#include "cli/standard_streams.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

// A descriptor for us to wait on. To wait makes an open file non-blocking for everybody who has it,
// the shell and what it runs next included: so it is opened anew where that can be done.
os::Fd of_our_own(int fd) {
  if (fd < 0) {
    return {};
  }
  struct stat status {};
  int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0 && ::fstat(fd, &status) == 0 &&
      (S_ISCHR(status.st_mode) || S_ISFIFO(status.st_mode))) {
    std::string name = "/proc/self/fd/" + std::to_string(fd);
    os::Fd anew(::open(name.c_str(), (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (anew) {
      return anew;
    }
  }
  return os::Fd(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

bool is_writable(int fd) {
  int flags = ::fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

}  // namespace

bool has_input(int fd) {
  int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) == O_WRONLY) {
    return false;
  }
  struct stat status {};
  bool null =
      ::fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3);
  return !null;
}

StandardStreams::StandardStreams(os::executor executor, Output& output, Options options)
    : output_(output),
      options_(options),
      in_(os::FdStream::pair(executor, of_our_own(options.input), os::Fd(),
                             os::FdStream::Sharing::shared)),
      out_(os::FdStream::pair(executor, os::Fd(), of_our_own(options.output),
                              os::FdStream::Sharing::shared)),
      error_(os::FdStream::pair(executor, os::Fd(), of_our_own(options.error),
                                os::FdStream::Sharing::shared)) {}

void StandardStreams::begin() {
  output_.clear_transient();
  if (options_.raw) {
    if (auto raw = os::RawTerminal::enter(options_.input)) {
      raw_.emplace(std::move(*raw));
      output_.set_raw(true);
    }
  }
}

void StandardStreams::end() {
  in_->close();
  if (raw_) {
    raw_.reset();
    output_.set_raw(false);
  }
}

os::awaitable<wire::result<void>> StandardStreams::write(wire::FrameKind stream,
                                                         std::string bytes) {
  output_.clear_transient();
  wire::result<void> written;
  bool on_error = stream == wire::FrameKind::error;
  int fd = on_error ? options_.error : options_.output;
  if (fd < 0) {
    co_return written;
  }
  std::string name = fd == STDERR_FILENO ? "stderr" : "stdout";
  if (!is_writable(fd)) {
    co_return wire::Failure(wire::Errc::denied,
                            "cannot write to " + name + ": it is not open for writing");
  }
  written = co_await (on_error ? error_ : out_)->write(std::as_bytes(std::span<const char>(bytes)));
  if (!written && written.error().code != wire::Errc::gone) {
    std::string why = written.error().what;  // "write: No space left on device"
    auto colon = why.find(": ");
    co_return wire::Failure(
        written.error().code,
        "cannot write to " + name + (colon == std::string::npos ? "" : why.substr(colon)));
  }
  co_return written;
}

os::awaitable<std::optional<std::string>> StandardStreams::read_input() {
  std::string bytes(wire::kMaxBulkBytes, '\0');
  std::optional<std::string> input;
  auto got = co_await in_->read_some(std::as_writable_bytes(std::span<char>(bytes)));
  if (got && *got != 0) {
    bytes.resize(*got);
    input = std::move(bytes);
  }
  co_return input;
}

}  // namespace cli
