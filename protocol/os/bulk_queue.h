// Bytes of one bulk stream on their way from the reader of frames, who never waits, to whoever
// deals with them. What it holds is bounded by the credit that its reader gives (frame_stream.h).
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "protocol/os/wakeup.h"

namespace protocol::os {

class BulkQueue {
 public:
  explicit BulkQueue(executor ex) : wakeup_(std::move(ex)) {}

  // An empty payload is the end, as on the wire.
  void push(std::string bytes) {
    if (bytes.empty()) {
      return end();
    }
    if (!ended_) {
      chunks_.push_back(std::move(bytes));
    }
    wakeup_.notify();
  }
  void end() {
    ended_ = true;
    wakeup_.notify();
  }
  // The stream is over, because of `why`, unless its end was seen already. What came before is
  // still handed out.
  void cut(const std::string& why) {
    if (!ended_) {
      ended_ = true;
      broken_ = why;
    }
    wakeup_.notify();
  }
  // Why it was cut; std::nullopt when it was not.
  const std::optional<std::string>& broken() const { return broken_; }
  bool ended() const { return ended_; }
  // Forgets what nobody took, and ends it: how many bytes.
  std::size_t drop() {
    std::size_t bytes = 0;
    for (const auto& chunk : chunks_) {
      bytes += chunk.size();
    }
    chunks_.clear();
    end();
    return bytes;
  }

  // The next bytes; std::nullopt at the end. One reader.
  awaitable<std::optional<std::string>> next() {
    while (chunks_.empty() && !ended_) {
      co_await wakeup_.wait();
    }
    std::optional<std::string> bytes;
    if (!chunks_.empty()) {
      bytes = std::move(chunks_.front());
      chunks_.pop_front();
    }
    co_return bytes;
  }

 private:
  Wakeup wakeup_;
  std::deque<std::string> chunks_;
  bool ended_ = false;
  std::optional<std::string> broken_;
};

}  // namespace protocol::os
