// Bytes of one bulk stream on their way from the reader of frames to whoever deals with them. What
// it holds is bounded by the credit that its reader gives.
#pragma once

#include <deque>
#include <optional>
#include <string>

#include "protocol/os/wakeup.h"

namespace cli {

class BulkQueue {
 public:
  explicit BulkQueue(protocol::os::executor executor) : wakeup_(executor) {}

  // An empty payload is the end, as on the wire.
  void push(std::string bytes) {
    if (bytes.empty()) {
      ended_ = true;
    } else if (!ended_) {
      chunks_.push_back(std::move(bytes));
    }
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

  // The next bytes; std::nullopt at the end. One reader.
  protocol::os::awaitable<std::optional<std::string>> next() {
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
  protocol::os::Wakeup wakeup_;
  std::deque<std::string> chunks_;
  bool ended_ = false;
  std::optional<std::string> broken_;
};

}  // namespace cli
