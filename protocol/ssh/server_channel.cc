#include "protocol/ssh/server_channel.h"

#include <algorithm>

// libssh calls its message mode deprecated; its callbacks cannot put off an answer.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace protocol::ssh {

using wire::Errc;

namespace {

constexpr std::size_t kMaxEnvBytes = 64 * 1024;  // names and values of one channel
constexpr std::size_t kMaxEvents = 64;           // not yet taken
constexpr std::size_t kMaxSignalName = 32;
constexpr std::size_t kMaxTermName = 255;

std::uint16_t dimension(int value) {
  return static_cast<std::uint16_t>(std::clamp(value, 0, 0xffff));
}

std::string text(const char* value) { return value != nullptr ? value : ""; }

}  // namespace

void SessionChannel::asked(MessageHandle message) {
  ssh_message m = message.get();
  bool yes = false;
  switch (ssh_message_subtype(m)) {
    case SSH_CHANNEL_REQUEST_ENV:
      yes = !asked_ && keep_env(ssh_message_channel_request_env_name(m),
                                ssh_message_channel_request_env_value(m));
      break;
    case SSH_CHANNEL_REQUEST_PTY:
      yes = !asked_;
      if (yes) {
        request_.terminal =
            wire::Terminal{text(ssh_message_channel_request_pty_term(m)).substr(0, kMaxTermName),
                           dimension(ssh_message_channel_request_pty_height(m)),
                           dimension(ssh_message_channel_request_pty_width(m))};
      }
      break;
    case SSH_CHANNEL_REQUEST_WINDOW_CHANGE:
      keep_window(m);
      yes = true;
      break;
    case SSH_CHANNEL_REQUEST_EXEC:
    case SSH_CHANNEL_REQUEST_SHELL:
      if (asked_) break;
      asked_ = true;
      if (ssh_message_subtype(m) == SSH_CHANNEL_REQUEST_EXEC) {
        request_.command = text(ssh_message_channel_request_command(m));
      }
      held_request_ = std::move(message);
      changed().notify();
      return;
    case SSH_CHANNEL_REQUEST_SUBSYSTEM:
      subsystem_ = !asked_;
      asked_ = true;
      changed().notify();
      break;
    default:
      break;
  }
  if (yes) {
    ssh_message_channel_request_reply_success(m);
  } else {
    ssh_message_reply_default(m);
  }
  pump().kick();
}

bool SessionChannel::keep_env(const char* name, const char* value) {
  const std::string key = text(name);
  const std::string content = text(value);
  env_bytes_ += key.size() + content.size();
  if (env_bytes_ > kMaxEnvBytes || key.empty() || key.find('=') != std::string::npos) return false;
  request_.env[key] = content;
  return true;
}

// Only the last size matters.
void SessionChannel::keep_window(ssh_message message) {
  const WindowChange window{dimension(ssh_message_channel_request_pty_height(message)),
                            dimension(ssh_message_channel_request_pty_width(message))};
  if (!asked_) {
    if (request_.terminal) {
      request_.terminal->rows = window.rows;
      request_.terminal->columns = window.columns;
    }
    return;
  }
  std::erase_if(events_,
                [](const auto& event) { return std::holds_alternative<WindowChange>(event); });
  events_.emplace_back(window);
  changed().notify();
}

void SessionChannel::take_signal(std::string_view name) noexcept {
  if (events_.size() >= kMaxEvents || name.size() > kMaxSignalName) return;
  events_.emplace_back(SignalRequest{std::string(name)});
}

awaitable<result<ExecRequest>> SessionChannel::request() {
  const auto self = shared_from_this();
  while (open() && !asked_) co_await changed().wait();
  if (subsystem_) co_return Failure(Errc::unsupported, "there are no subsystems");
  if (!open() || !held_request_) co_return failure();
  co_return request_;
}

void SessionChannel::answer(bool yes) {
  const MessageHandle message = std::move(held_request_);
  if (!message || !open() || !pump().alive()) return;
  if (yes) {
    ssh_message_channel_request_reply_success(message.get());
  } else {
    ssh_message_reply_default(message.get());
  }
  pump().kick();
}

awaitable<result<std::variant<WindowChange, SignalRequest>>> SessionChannel::next_event() {
  const auto self = shared_from_this();
  while (open() && events_.empty()) co_await changed().wait();
  if (!open()) co_return failure();
  auto event = std::move(events_.front());
  events_.pop_front();
  co_return event;
}

awaitable<result<void>> SessionChannel::exit_status(int status) {
  const auto self = shared_from_this();
  co_await writers_gone();
  if (!open() || !pump().alive()) co_return failure();
  ssh_channel_request_send_exit_status(handle(), status);
  close();
  co_return result<void>();
}

awaitable<result<void>> SessionChannel::exit_signal(std::string name, bool core_dumped) {
  const auto self = shared_from_this();
  co_await writers_gone();
  if (!open() || !pump().alive()) co_return failure();
  ssh_channel_request_send_exit_signal(handle(), name.c_str(), core_dumped ? 1 : 0, "", "");
  close();
  co_return result<void>();
}

}  // namespace protocol::ssh
