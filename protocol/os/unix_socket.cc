#include "protocol/os/unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "protocol/os/fd_stream.h"
#include "protocol/os/wakeup.h"

namespace protocol::os {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using wire::Errc;
using wire::Failure;

namespace {

struct Address {
  sockaddr_un name = {};
  socklen_t size = 0;
  Fd directory;  // has to stay open while the name is used
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&name); }
};

result<Address> address_of(const fs::path& path) {
  Address address;
  std::string text = path.native();
#ifdef __linux__
  if (text.size() >= sizeof address.name.sun_path) {
    fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
    address.directory = Fd(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!address.directory) return errno_failure(errno, parent.native());
    text =
        "/proc/self/fd/" + std::to_string(address.directory.get()) + "/" + path.filename().native();
  }
#endif
  if (text.size() >= sizeof address.name.sun_path)
    return Failure(Errc::bad_input, path.native() + ": too long for a socket's name");
  address.name.sun_family = AF_UNIX;
  std::memcpy(address.name.sun_path, text.data(), text.size());
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + text.size() + 1);
  return address;
}

result<Fd> make_socket() {
#ifdef SOCK_CLOEXEC
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return errno_failure(errno, "socket");
#else
  Fd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
  if (!fd) return errno_failure(errno, "socket");
  ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
  ::fcntl(fd.get(), F_SETFL, O_NONBLOCK);
#endif
  return fd;
}

// True, or errno.
bool connect_now(int fd, const Address& address) {
  int outcome;
  do outcome = ::connect(fd, address.get(), address.size);
  while (outcome != 0 && errno == EINTR);
  return outcome == 0;
}

}  // namespace

result<Peer> peer_of(int socket) {
#ifdef SO_PEERCRED
  struct ucred credentials = {};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return errno_failure(errno, "the peer of a socket");
  return Peer{credentials.uid, credentials.pid};
#else
  uid_t uid;
  gid_t gid;
  if (::getpeereid(socket, &uid, &gid) != 0) return errno_failure(errno, "the peer of a socket");
  return Peer{uid, 0};
#endif
}

awaitable<result<std::unique_ptr<ByteStream>>> connect_unix(executor ex, fs::path path) {
  auto address = address_of(path);
  if (!address) co_return address.error();
  auto fd = make_socket();
  if (!fd) co_return fd.error();
  // EAGAIN: the listener's queue is full, and there is nothing to wait on but time.
  std::chrono::milliseconds interval{1};
  while (!connect_now(fd->get(), *address)) {
    if (errno != EAGAIN || interval > std::chrono::seconds(2))
      co_return errno_failure(errno, path.native());
    co_await pause(ex, interval);
    interval *= 2;
  }
  auto peer = peer_of(fd->get());
  if (!peer) co_return peer.error();
  if (peer->uid != ::geteuid() && peer->uid != 0)
    co_return Failure(Errc::denied, path.native() + ": another user listens there");
  std::unique_ptr<ByteStream> stream = FdStream::both(ex, std::move(*fd));
  co_return stream;
}

struct UnixListener::State {
  State(executor e, fs::path p) : ex(e), path(std::move(p)), descriptor(e) {}
  executor ex;
  fs::path path;
  asio::posix::stream_descriptor descriptor;

  static awaitable<result<std::unique_ptr<ByteStream>>> accept(std::shared_ptr<State> self) {
    for (;;) {
      if (!self->descriptor.is_open()) co_return Failure(Errc::gone, "the listener");
#ifdef __linux__
      Fd fd(::accept4(self->descriptor.native_handle(), nullptr, nullptr,
                      SOCK_CLOEXEC | SOCK_NONBLOCK));
#else
      Fd fd(::accept(self->descriptor.native_handle(), nullptr, nullptr));
      if (fd) ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
#endif
      if (fd) {
        auto peer = peer_of(fd.get());
        if (!peer || (peer->uid != ::geteuid() && peer->uid != 0)) continue;
        std::unique_ptr<ByteStream> stream = FdStream::both(self->ex, std::move(fd));
        co_return stream;
      }
      if (errno == EAGAIN || errno == EWOULDBLOCK) {
        co_await self->descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                             asio::as_tuple(asio::use_awaitable));
      } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        co_await pause(self->ex, std::chrono::milliseconds(100));  // somebody will close one
      } else if (errno != EINTR && errno != ECONNABORTED) {
        co_return errno_failure(errno, self->path.native());
      }
    }
  }
};

UnixListener::UnixListener(std::shared_ptr<State> state) : state_(std::move(state)) {}
UnixListener::UnixListener(UnixListener&&) noexcept = default;
UnixListener& UnixListener::operator=(UnixListener&&) noexcept = default;
UnixListener::~UnixListener() {
  if (state_) close();
}

result<UnixListener> UnixListener::listen(executor ex, const fs::path& path) {
  auto address = address_of(path);
  if (!address) return address.error();
  auto fd = make_socket();
  if (!fd) return fd.error();
  ::fchmod(fd->get(), 0600);  // on Linux the file gets this mode from its first moment
  if (::bind(fd->get(), address->get(), address->size) != 0) {
    if (errno != EADDRINUSE) return errno_failure(errno, path.native());
    auto probe = make_socket();
    if (!probe) return probe.error();
    if (connect_now(probe->get(), *address) || errno == EAGAIN)
      return Failure(Errc::exists, path.native() + ": somebody listens there");
    if (errno != ECONNREFUSED) return errno_failure(errno, path.native());
    ::unlink(path.c_str());
    if (::bind(fd->get(), address->get(), address->size) != 0)
      return errno_failure(errno, path.native());
  }
  ::chmod(path.c_str(), 0600);
  if (::listen(fd->get(), 128) != 0) return errno_failure(errno, path.native());
  auto state = std::make_shared<State>(std::move(ex), path);
  boost::system::error_code error;
  state->descriptor.assign(fd->get(), error);
  if (error) return Failure(Errc::io, path.native() + ": " + error.message());
  fd->release();
  return UnixListener(std::move(state));
}

awaitable<result<std::unique_ptr<ByteStream>>> UnixListener::accept() {
  return State::accept(state_);
}

void UnixListener::close() noexcept {
  boost::system::error_code ignored;
  state_->descriptor.close(ignored);
}

void UnixListener::remove() noexcept { ::unlink(state_->path.c_str()); }

}  // namespace protocol::os
