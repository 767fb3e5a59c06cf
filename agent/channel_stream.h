// A server channel as the byte stream that a FrameStream owns, while others still need the channel.
#pragma once

#include <memory>

#include "protocol/os/byte_stream.h"
#include "protocol/ssh/server.h"

namespace agent {

class ChannelStream : public protocol::os::ByteStream {
 public:
  explicit ChannelStream(std::shared_ptr<protocol::ssh::ServerChannel> channel)
      : channel_(std::move(channel)) {}

  protocol::os::awaitable<protocol::wire::result<std::size_t>> read_some(
      std::span<std::byte> buffer) override {
    return channel_->read_some(buffer);
  }
  protocol::os::awaitable<protocol::wire::result<void>> write(
      std::span<const std::byte> bytes) override {
    return channel_->write(bytes);
  }
  protocol::os::awaitable<protocol::wire::result<void>> shutdown_write() override {
    return channel_->shutdown_write();
  }
  void close() noexcept override { channel_->close(); }

 private:
  std::shared_ptr<protocol::ssh::ServerChannel> channel_;
};

}  // namespace agent
