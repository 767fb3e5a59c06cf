#include "protocol/ssh/client_channel.h"

#include <utility>

namespace protocol::ssh {

using wire::Errc;

CommandChannel::CommandChannel(std::shared_ptr<Pump> pump, ssh_channel handle, std::string command,
                               OnError on_error)
    : Channel(std::move(pump), handle),
      command_(std::move(command)),
      on_error_(std::move(on_error)) {
  set_opened(false);
}

awaitable<result<void>> CommandChannel::opened() {
  const auto self = shared_from_this();
  advance();
  while (phase_ == Phase::opening && handle() != nullptr && !pump().ended()) {
    co_await changed().wait();
  }
  if (phase_ == Phase::opening || phase_ == Phase::refused) co_return failure();
  co_return result<void>();
}

void CommandChannel::stepped() {
  advance();
  Channel::stepped();
  if (!error_.empty()) {
    const std::string bytes = std::exchange(error_, {});
    if (on_error_ && !closing()) on_error_(bytes);
  }
}

// libssh's calls that wait for an answer are repeated, with the same arguments, until they have it.
void CommandChannel::advance() {
  if (handle() == nullptr || !pump().alive()) return;
  if (phase_ == Phase::opening) {
    const int rc = ssh_channel_open_session(handle());
    pump().kick();
    if (rc == SSH_AGAIN) return;
    if (rc != SSH_OK) {
      refuse("the channel was not opened: " + std::string(ssh_get_error(pump().session())));
      drop();
      return;
    }
    set_opened(true);
    phase_ = Phase::asked;
    changed().notify();
    if (closing()) {
      hang_up();  // nobody wants it any more
      return;
    }
    open_window();
  }
  if (phase_ == Phase::asked && open()) {
    const int rc = ssh_channel_request_exec(handle(), command_.c_str());
    pump().kick();
    if (rc == SSH_AGAIN) return;
    phase_ = Phase::running;
    if (rc != SSH_OK) refuse("the command was refused");
  }
}

void CommandChannel::refuse(std::string why) {
  phase_ = Phase::refused;
  why_ = std::move(why);
  hang_up();
  changed().notify();
}

Failure CommandChannel::failure() const {
  if (phase_ == Phase::refused) return Failure(Errc::refused, why_);
  return Channel::failure();
}

void CommandChannel::take_error(std::string_view bytes) noexcept {
  if (on_error_) error_.append(bytes);
}

}  // namespace protocol::ssh
