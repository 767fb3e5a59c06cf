// Bytes of a stream between the one who reads frames, who never waits, and the one who deals with
// them. Bounded by the credit that the peer has (protocol/os/frame_stream.h).
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "protocol/os/wakeup.h"

namespace agent::supervisor {

class Inbox {
 public:
  explicit Inbox(protocol::os::executor ex) : changed_(std::move(ex)) {}

  void push(std::string bytes) {
    if (ended_) return;
    pieces_.push_back(std::move(bytes));
    changed_.notify();
  }
  void end() {
    ended_ = true;
    changed_.notify();
  }
  bool ended() const { return ended_; }
  // Forgets what nobody took: how many bytes.
  std::size_t clear() {
    std::size_t bytes = 0;
    for (const std::string& piece : pieces_) bytes += piece.size();
    pieces_.clear();
    return bytes;
  }

  // The oldest piece, waiting for it; std::nullopt at the end. The Inbox must live until then.
  protocol::os::awaitable<std::optional<std::string>> next() {
    while (pieces_.empty() && !ended_) co_await changed_.wait();
    if (pieces_.empty()) co_return std::nullopt;
    std::string bytes = std::move(pieces_.front());
    pieces_.pop_front();
    co_return bytes;
  }

 private:
  protocol::os::Wakeup changed_;
  std::deque<std::string> pieces_;
  bool ended_ = false;
};

}  // namespace agent::supervisor
