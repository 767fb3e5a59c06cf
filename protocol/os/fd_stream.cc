#include "protocol/os/fd_stream.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <optional>

#include "protocol/os/signals.h"

namespace protocol::os {

namespace asio = boost::asio;
using wire::Errc;
using wire::Failure;
using Descriptor = asio::posix::stream_descriptor;

namespace {

// A pipe that polls writable takes this much without blocking.
constexpr std::size_t kSharedPiece = 4096;

struct Side {
  explicit Side(executor ex) : descriptor(std::move(ex)) {}
  Descriptor descriptor;
  bool socket = false;
  bool pollable = true;  // false: a regular file and the like, which never makes anybody wait

  void assign(Fd fd, FdStream::Sharing sharing) {
    struct stat status = {};
    ::fstat(fd.get(), &status);
    socket = S_ISSOCK(status.st_mode);
    pollable = !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode) && !S_ISBLK(status.st_mode);
    if (sharing == FdStream::Sharing::own)
      ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
    boost::system::error_code error;
    descriptor.assign(fd.get(), error);
    if (!error) fd.release();
  }
};

}  // namespace

struct FdStream::State {
  State(executor e, Sharing s) : ex(e), sharing(s), reading(e) {}

  executor ex;
  Sharing sharing;
  Side reading;
  std::optional<Side> writing;  // none: the same descriptor writes
  bool closed = false, write_ended = false;

  Side& writer() { return writing ? *writing : reading; }

  // False: closed meanwhile.
  static awaitable<bool> ready(std::shared_ptr<State> self, Side& side,
                               Descriptor::wait_type what) {
    if (self->closed) co_return false;
    if (side.pollable) {
      auto [error] = co_await side.descriptor.async_wait(what, asio::as_tuple(asio::use_awaitable));
      // epoll knows nothing of /dev/null and the like: they never wait.
      if (error == asio::error::operation_not_supported) side.pollable = false;
    } else {
      co_await asio::post(self->ex, asio::use_awaitable);  // others get their turn
    }
    co_return !self->closed && side.descriptor.is_open();
  }

  // A shared descriptor may be blocking, and another process may have taken what there was.
  bool would_block(Side& side, short events) const {
    if (sharing == Sharing::own || !side.pollable) return false;
    pollfd asked = {side.descriptor.native_handle(), events, 0};
    return ::poll(&asked, 1, 0) == 0;
  }

  result<std::size_t> read_now(std::span<std::byte> buffer) {
    if (closed) return Failure(Errc::gone, "the stream");
    if (!reading.descriptor.is_open()) return 0;
    if (would_block(reading, POLLIN)) return Failure(Errc::busy, "nothing to read");
    ssize_t count;
    do count = ::read(reading.descriptor.native_handle(), buffer.data(), buffer.size());
    while (count < 0 && errno == EINTR);
    if (count >= 0) return static_cast<std::size_t>(count);
    if (errno == EAGAIN || errno == EWOULDBLOCK) return Failure(Errc::busy, "nothing to read");
    if (errno == EIO) return 0;  // a pty whose last slave was closed
    return errno_failure(errno, "read");
  }

  static awaitable<result<std::size_t>> read_some(std::shared_ptr<State> self,
                                                  std::span<std::byte> buffer) {
    for (;;) {
      auto count = self->read_now(buffer);
      if (count && !self->reading.pollable)
        co_await asio::post(self->ex, asio::use_awaitable);  // a big file is no reason to hog
      if (count || count.error().code != Errc::busy) co_return count;
      bool open = co_await ready(self, self->reading, Descriptor::wait_read);
      if (!open) co_return Failure(Errc::gone, "the stream");
    }
  }

  static awaitable<result<void>> write(std::shared_ptr<State> self,
                                       std::span<const std::byte> bytes) {
    Side& side = self->writer();
    while (!bytes.empty()) {
      if (self->closed || self->write_ended || !side.descriptor.is_open())
        co_return Failure(Errc::gone, "the stream");
      ssize_t count = -1;
      errno = EAGAIN;
      if (!self->would_block(side, POLLOUT)) {
        int fd = side.descriptor.native_handle();
        std::size_t size = bytes.size();
        if (self->sharing == Sharing::shared && side.pollable) size = std::min(size, kSharedPiece);
        count = side.socket ? ::send(fd, bytes.data(), size, MSG_NOSIGNAL | MSG_DONTWAIT)
                            : ::write(fd, bytes.data(), size);
      }
      if (count >= 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(count));
        continue;
      }
      if (errno == EINTR) continue;
      if (errno == EIO) co_return Failure(Errc::gone, "the terminal");
      if (errno != EAGAIN && errno != EWOULDBLOCK) co_return errno_failure(errno, "write");
      bool open = co_await ready(self, side, Descriptor::wait_write);
      if (!open) co_return Failure(Errc::gone, "the stream");
    }
    co_return result<void>();
  }
};

FdStream::FdStream(std::shared_ptr<State> state) : state_(std::move(state)) { ignore_sigpipe(); }

std::unique_ptr<FdStream> FdStream::both(executor ex, Fd fd, Sharing sharing) {
  auto state = std::make_shared<State>(std::move(ex), sharing);
  state->reading.assign(std::move(fd), sharing);
  return std::unique_ptr<FdStream>(new FdStream(std::move(state)));
}

std::unique_ptr<FdStream> FdStream::pair(executor ex, Fd read, Fd write, Sharing sharing) {
  auto state = std::make_shared<State>(std::move(ex), sharing);
  state->writing.emplace(state->ex);
  if (read) state->reading.assign(std::move(read), sharing);
  if (write) state->writing->assign(std::move(write), sharing);
  return std::unique_ptr<FdStream>(new FdStream(std::move(state)));
}

FdStream::~FdStream() { close(); }

awaitable<result<std::size_t>> FdStream::read_some(std::span<std::byte> buffer) {
  return State::read_some(state_, buffer);
}

awaitable<result<void>> FdStream::write(std::span<const std::byte> bytes) {
  return State::write(state_, bytes);
}

awaitable<result<void>> FdStream::shutdown_write() {
  if (state_->closed) co_return Failure(Errc::gone, "the stream");
  if (std::exchange(state_->write_ended, true)) co_return result<void>();
  Side& side = state_->writer();
  if (side.socket) {
    ::shutdown(side.descriptor.native_handle(), SHUT_WR);
  } else if (state_->writing) {
    boost::system::error_code ignored;
    side.descriptor.close(ignored);
  }
  co_return result<void>();
}

void FdStream::close() noexcept {
  if (std::exchange(state_->closed, true)) return;
  boost::system::error_code ignored;
  state_->reading.descriptor.close(ignored);
  if (state_->writing) state_->writing->descriptor.close(ignored);
}

result<std::size_t> FdStream::read_now(std::span<std::byte> buffer) {
  return state_->read_now(buffer);
}

awaitable<void> FdStream::readable() {
  auto state = state_;
  co_await State::ready(state, state->reading, Descriptor::wait_read);
}

void FdStream::cancel_waits() noexcept {
  boost::system::error_code ignored;
  state_->reading.descriptor.cancel(ignored);
  if (state_->writing) state_->writing->descriptor.cancel(ignored);
}

int FdStream::read_fd() const noexcept { return state_->reading.descriptor.native_handle(); }

}  // namespace protocol::os
