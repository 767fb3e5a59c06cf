#include "agent/stock_lock.h"

#include <utility>

#include "agent/log.h"
#include "protocol/wire/scope.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

std::string age(std::int64_t seconds) {
  if (seconds < 120) {
    return std::to_string(seconds) + " s";
  }
  return std::to_string(seconds / 60) + " min";
}

std::string who(const wire::Holder& holder) {
  std::string text = wire::shown_user(holder.user, holder.scope);
  if (!holder.command.empty()) {
    text += " (" + holder.command + ")";
  }
  return text + " for " + age(holder.held_seconds);
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

std::string queue_news(const wire::Queued& queued) {
  std::string text =
      "sandbox: waiting for the lock, place " + std::to_string(queued.position) + " in line";
  if (!queued.holders.empty()) {
    text += ", held by " + who(queued.holders.front());
  }
  return text;
}

std::string refusal_text(const wire::Refused& refused) {
  std::string text = "sandbox: refused: ";
  if (refused.why == "locked") {
    text += "this box is locked";
    if (!refused.holders.empty()) {
      const wire::Holder& holder = refused.holders.front();
      text += " by " + wire::shown_user(holder.user, holder.scope);
    }
    if (!refused.since.empty()) {
      text += " since " + refused.since;
    }
    if (!refused.reason.empty()) {
      text += ": " + refused.reason;
    }
    return text +
           "; try again when it is unlocked, or take the lock away by `sandbox boxes unlock "
           "--force`";
  }
  if (refused.why == "queue_full") {
    return text + "too many wait for this box; try again later";
  }
  text += refused.why == "expired" ? "waited too long" : "busy";
  if (!refused.holders.empty()) {
    text += ", held by " + who(refused.holders.front());
  }
  return text + "; try again when that has ended";
}

StockLock::StockLock(Services& services, std::function<void()> on_lapse)
    : services_(services),
      on_lapse_(std::move(on_lapse)),
      changed_(services.executor),
      owner_(services.locks, *this),
      enlisted_(
          services.lifetime, [this] { stop(); }, false) {}

void StockLock::stop() {
  if (ask_ && ask_->state == State::waiting) {
    release();
  }
}

os::awaitable<void> StockLock::request(std::shared_ptr<protocol::ssh::ServerChannel> channel,
                                       std::string sandbox, std::string user,
                                       wire::LockRequested wanted) {
  auto self = shared_from_this();
  channel->accept();
  if (!ask_ || ask_->state == State::refused) {
    ask_ = std::make_shared<Ask>();
    services_.locks.request(owner_.id(), sandbox, user, {}, wanted);
  }
  auto ask = ask_;
  ++ask->tellers;
  auto watch = std::make_shared<Watch>();
  os::spawn(services_.executor, "lock channel",
            [](std::shared_ptr<StockLock> lock, std::shared_ptr<protocol::ssh::ServerChannel> c,
               std::shared_ptr<Watch> w) -> os::awaitable<void> {
              co_await c->closed();
              w->closed = true;
              lock->changed_.notify();
            }(self, channel, watch));

  std::string told;
  while (ask->state == State::waiting && !watch->closed) {
    if (ask->news != told) {
      told = ask->news;
      std::string line = told + "\n";
      auto written = co_await channel->write_error(bytes_of(line));
      (void)written;  // a closed channel is seen by the watch
      continue;
    }
    co_await changed_.wait();
  }
  --ask->tellers;
  if (ask->state == State::waiting) {
    if (ask->tellers == 0 && ask_ == ask) {
      release();
    }
    co_return;
  }
  if (ask->state == State::granted) {
    auto ended = co_await channel->exit_status(0);
    (void)ended;  // the connection owns the lock, whatever becomes of the channel
    co_return;
  }
  // Stock clients read every exit status as a grant, so there is none.
  std::string line = ask->news + "\n";
  auto written = co_await channel->write_error(bytes_of(line));
  (void)written;
  channel->close();
}

void StockLock::release() {
  if (ask_ && ask_->state == State::waiting) {
    // Whoever else waits for it on another channel.
    ask_->state = State::refused;
    ask_->news = services_.lifetime.stopping()
                     ? "sandbox: refused: the agent is stopping; ask again when it is back"
                     : "sandbox: refused: the lock was given back before it was granted; ask again";
    changed_.notify();
  }
  ask_.reset();
  services_.locks.release(owner_.id());
}

void StockLock::lock_granted(const wire::Granted&) {
  if (ask_) {
    ask_->state = State::granted;
  }
  changed_.notify();
}

void StockLock::lock_queued(const wire::Queued& queued) {
  if (ask_) {
    ask_->news = queue_news(queued);
  }
  changed_.notify();
}

void StockLock::lock_refused(const wire::Refused& refused) {
  if (ask_) {
    ask_->news = refusal_text(refused);
    ask_->state = State::refused;
  }
  changed_.notify();
}

void StockLock::lock_lapsed() {
  log::peer("lock_lapsed", {{"client", "ssh"}});
  on_lapse_();
}

void StockLock::lock_bypassed(const wire::Holder&) {}  // a stock client has nowhere to hear of it

}  // namespace agent
