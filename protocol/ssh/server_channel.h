// The server's side of a session channel: the requests that come before and beside its data.
#pragma once

#include <deque>

#include "protocol/ssh/channel.h"
#include "protocol/ssh/server.h"

namespace protocol::ssh {

class SessionChannel final : public Channel {
 public:
  using Channel::Channel;

  // As in ServerChannel.
  awaitable<result<ExecRequest>> request();
  void answer(bool yes);
  awaitable<result<std::variant<WindowChange, SignalRequest>>> next_event();
  awaitable<result<void>> exit_status(int status);
  awaitable<result<void>> exit_signal(std::string name, bool core_dumped);

  // A channel request of the peer, from the pump.
  void asked(MessageHandle message);

 private:
  void releasing() override { held_request_.reset(); }
  void take_signal(std::string_view name) noexcept override;
  bool keep_env(const char* name, const char* value);
  void keep_window(ssh_message message);

  ExecRequest request_;
  std::size_t env_bytes_ = 0;
  MessageHandle held_request_;  // exec or shell, until it is answered; points at the channel
  bool asked_ = false;          // exec, shell or subsystem: there is one per channel
  bool subsystem_ = false;
  std::deque<std::variant<WindowChange, SignalRequest>> events_;
};

}  // namespace protocol::ssh
