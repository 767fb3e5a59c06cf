#include "cli/waiting_line.h"

#include <algorithm>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <optional>

#include "cli/ci_identity.h"
#include "cli/duration.h"
#include "protocol/wire/quoting.h"

namespace cli {
using std::chrono::steady_clock;

namespace {
constexpr std::size_t kLeastCommand = 6;  // fewer bytes of a command say nothing
}

struct WaitingLine::State {
  State(protocol::os::executor executor, Output& output_to, std::string what)
      : timer(executor), output(&output_to), text(std::move(what)) {}

  std::string now() const {
    if (!queued) {
      return text;
    }
    auto since = std::chrono::duration_cast<std::chrono::seconds>(steady_clock::now() - told);
    return describe_queue(*queued, since, output->interactive() ? output->columns() : SIZE_MAX);
  }

  // A log gets one line, a terminal one that changes.
  void show() {
    if (output->interactive()) {
      output->transient(now());
    } else if (!logged) {
      logged = true;
      output->note(now());
    }
  }

  static protocol::os::awaitable<void> tick(std::shared_ptr<State> self) {
    self->timer.expires_after(kQuietWait);
    while (!self->ended) {
      boost::system::error_code error;
      co_await self->timer.async_wait(
          boost::asio::redirect_error(boost::asio::use_awaitable, error));
      if (self->ended) {
        co_return;
      }
      self->visible = true;
      self->show();
      self->timer.expires_after(std::chrono::seconds(1));
    }
  }

  boost::asio::steady_timer timer;
  Output* output;  // cleared by the destructor's `ended`
  std::string text;
  std::optional<protocol::wire::Queued> queued;
  steady_clock::time_point told{};
  bool logged = false;
  bool visible = false;
  bool ended = false;
};

WaitingLine::WaitingLine(protocol::os::executor executor, Output& output, std::string text)
    : state_(std::make_shared<State>(executor, output, std::move(text))) {
  protocol::os::spawn(executor, "waiting line", State::tick(state_));
}

WaitingLine::~WaitingLine() {
  state_->ended = true;
  state_->timer.cancel();
  if (state_->visible) {
    state_->output->clear_transient();
  }
}

void WaitingLine::set(std::string text) {
  state_->queued.reset();
  state_->text = std::move(text);
  if (state_->visible) {
    state_->show();
  }
}

void WaitingLine::set(const protocol::wire::Queued& queued) {
  state_->queued = queued;
  state_->told = steady_clock::now();
  if (state_->visible) {
    state_->show();
  }
}

bool is_user_lock(const protocol::wire::Holder& holder) { return holder.verb == "lock"; }

std::string describe_holder(const protocol::wire::Holder& holder, std::chrono::seconds since,
                            std::size_t shown_command) {
  std::string text =
      shown_user(holder.user, holder.scope) + ": " + protocol::wire::printable(holder.verb, 32);
  if (!holder.command.empty() && shown_command != 0) {
    text += " `" + protocol::wire::printable(holder.command, shown_command) + "`";
  }
  return text + ", for " + show_duration(std::chrono::seconds(holder.held_seconds) + since);
}

std::string describe_hold(const protocol::wire::Holder& holder, std::chrono::seconds since,
                          std::size_t shown_command) {
  if (!is_user_lock(holder)) {
    return "held by " + describe_holder(holder, since, shown_command);
  }
  std::string text = "locked by " + shown_user(holder.user, holder.scope) + ", for " +
                     show_duration(std::chrono::seconds(holder.held_seconds) + since);
  if (!holder.command.empty() && shown_command != 0) {
    text += ": " + protocol::wire::printable(holder.command, shown_command);
  }
  return text;
}

namespace {

std::string queue_line(const protocol::wire::Queued& queued, std::chrono::seconds since,
                       std::size_t shown_command) {
  std::string text = "waiting for the lock: place " + std::to_string(queued.position) + " in line";
  for (std::size_t i = 0; i < queued.holders.size() && i < 3; ++i) {
    const protocol::wire::Holder& holder = queued.holders[i];
    bool another = i != 0 && !is_user_lock(holder);
    text += another ? "; and by " + describe_holder(holder, since, shown_command)
                    : "; " + describe_hold(holder, since, shown_command);
  }
  if (queued.holders.size() > 3) {
    text += "; and " + std::to_string(queued.holders.size() - 3) + " more";
  }
  return text;
}

}  // namespace

std::string describe_queue(const protocol::wire::Queued& queued, std::chrono::seconds since,
                           std::size_t columns) {
  std::size_t shown = kShownCommand;
  std::string text = queue_line(queued, since, shown);
  while (shown > kLeastCommand && text.size() > columns) {
    shown = std::max(kLeastCommand, shown - std::min(shown, text.size() - columns));
    text = queue_line(queued, since, shown);
  }
  return text.size() <= columns ? text : queue_line(queued, since, 0);
}

}  // namespace cli
