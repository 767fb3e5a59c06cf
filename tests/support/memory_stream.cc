#include "tests/support/memory_stream.h"

#include <algorithm>
#include <cstring>

namespace test {

using protocol::os::awaitable;
using protocol::os::result;
using protocol::wire::Errc;
using protocol::wire::Failure;

struct MemoryStream::Link {
  Link(protocol::os::executor ex, std::size_t c) : capacity(c), changed(std::move(ex)) {}
  std::size_t capacity;
  protocol::os::Wakeup changed;
  std::string to[2];   // unread bytes, by reader
  bool ended[2] = {};  // the writer has ended, by reader
  bool gone = false;
};

std::pair<std::unique_ptr<MemoryStream>, std::unique_ptr<MemoryStream>> MemoryStream::pair(
    protocol::os::executor ex, std::size_t capacity) {
  auto link = std::make_shared<Link>(std::move(ex), capacity);
  return {std::unique_ptr<MemoryStream>(new MemoryStream(link, 0)),
          std::unique_ptr<MemoryStream>(new MemoryStream(link, 1))};
}

MemoryStream::MemoryStream(std::shared_ptr<Link> link, int end)
    : link_(std::move(link)), control_(std::make_shared<Control>()), end_(end) {}

MemoryStream::~MemoryStream() { close(); }

void MemoryStream::changed() { link_->changed.notify(); }

awaitable<result<std::size_t>> MemoryStream::read_some(std::span<std::byte> buffer) {
  auto link = link_;
  auto control = control_;
  std::string& unread = link->to[end_];
  bool& ended = link->ended[end_];
  for (;;) {
    if (link->gone || control->closed) co_return Failure(Errc::gone, "the link");
    if (control->break_after && control->bytes_read >= *control->break_after) {
      link->gone = true;
      link->changed.notify();
      continue;
    }
    if (!control->stalled && !unread.empty()) {
      std::size_t size = std::min({buffer.size(), unread.size(), control->trickle});
      if (control->break_after)
        size = std::min<std::size_t>(size, *control->break_after - control->bytes_read);
      std::memcpy(buffer.data(), unread.data(), size);
      unread.erase(0, size);
      control->bytes_read += size;
      link->changed.notify();
      co_return size;
    }
    if (!control->stalled && ended) co_return std::size_t{0};
    co_await link->changed.wait();
  }
}

awaitable<result<void>> MemoryStream::write(std::span<const std::byte> bytes) {
  auto link = link_;
  auto control = control_;
  std::string& unread = link->to[1 - end_];
  ++control->writes;
  while (!bytes.empty()) {
    if (link->gone || control->closed || control->write_ended)
      co_return Failure(Errc::gone, "the link");
    if (control->fail_write && control->bytes_written >= *control->fail_write) {
      link->gone = true;
      link->changed.notify();
      continue;
    }
    if (unread.size() < link->capacity) {
      std::size_t size = std::min(bytes.size(), link->capacity - unread.size());
      if (control->fail_write)
        size = std::min<std::size_t>(size, *control->fail_write - control->bytes_written);
      unread.append(reinterpret_cast<const char*>(bytes.data()), size);
      bytes = bytes.subspan(size);
      control->bytes_written += size;
      link->changed.notify();
      continue;
    }
    co_await link->changed.wait();
  }
  co_return result<void>();
}

awaitable<result<void>> MemoryStream::shutdown_write() {
  control_->write_ended = true;
  link_->ended[1 - end_] = true;
  link_->changed.notify();
  co_return result<void>();
}

void MemoryStream::close() noexcept {
  if (std::exchange(control_->closed, true)) return;
  // The other end reads what is there and then the end; what it writes goes nowhere.
  link_->ended[1 - end_] = true;
  if (!control_->write_ended) link_->gone = link_->to[1 - end_].empty();
  link_->changed.notify();
}

}  // namespace test
