// The client's side of a session channel that runs one command. Opening costs one round trip; the
// command is asked for as soon as the channel is open, and what is written then travels with the
// request.
#pragma once

#include <functional>

#include "protocol/ssh/channel.h"

namespace protocol::ssh {

class CommandChannel final : public Channel {
 public:
  using OnError = std::function<void(std::string_view)>;
  CommandChannel(std::shared_ptr<Pump> pump, ssh_channel handle, std::string command,
                 OnError on_error);

  // Returns when the channel is open and the command was asked for.
  awaitable<result<void>> opened();

  void stepped() override;

 private:
  enum class Phase { opening, asked, running, refused };

  void advance();
  void refuse(std::string why);
  bool refused() const override { return phase_ == Phase::refused; }
  Failure failure() const override;
  void take_error(std::string_view bytes) noexcept override;

  Phase phase_ = Phase::opening;
  std::string command_;
  OnError on_error_;
  std::string error_;  // stderr, since the last step
  std::string why_;    // refused
};

}  // namespace protocol::ssh
