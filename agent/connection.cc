#include "agent/connection.h"

#include <algorithm>
#include <list>

#include "agent/lifetime.h"
#include "agent/log.h"
#include "agent/plain_exec.h"
#include "agent/sandboxes.h"
#include "agent/session.h"
#include "agent/stock_lock.h"
#include "agent/store.h"
#include "agent/tunnel.h"
#include "protocol/wire/directives.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"
#include "protocol/wire/scope.h"

namespace agent {
namespace {

namespace os = protocol::os;
namespace wire = protocol::wire;
using os::awaitable;
using wire::Directive;
using wire::Errc;
using wire::Failure;
using wire::result;
using Channel = std::shared_ptr<protocol::ssh::ServerChannel>;

constexpr int kBusy = 75;  // EX_TEMPFAIL
constexpr int kUnknownDirective = 127;
constexpr int kNotDone = 255;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Services& services, std::shared_ptr<protocol::ssh::ServerConnection> connection,
             std::string user)
      : services_(services),
        connection_(std::move(connection)),
        user_(std::move(user)),
        changed_(services.executor) {}

  awaitable<void> run();

 private:
  // Counts a channel that is being served.
  struct Task {
    explicit Task(std::shared_ptr<Connection> of) : connection(std::move(of)) {
      ++connection->tasks_;
    }
    ~Task() {
      --connection->tasks_;
      connection->changed_.notify();
    }
    Task(const Task&) = delete;
    Task& operator=(const Task&) = delete;
    std::shared_ptr<Connection> connection;
  };

  static awaitable<void> serve_channel(std::shared_ptr<Connection> self, Channel channel);
  static awaitable<void> serve_forward(std::shared_ptr<Connection> self,
                                       std::unique_ptr<protocol::ssh::ForwardRequest> request);
  static awaitable<void> note_activity(std::shared_ptr<Connection> self);
  static awaitable<void> leave_when_idle(std::shared_ptr<Connection> self);
  awaitable<void> serve_directive(Channel channel, wire::ParsedDirective directive);
  awaitable<void> serve_command(Channel channel, protocol::ssh::ExecRequest request);
  awaitable<void> request_lock(Channel channel);
  awaitable<void> end_sandbox(Channel channel);

  // The sandbox of this connection, the same for all its channels, also when it was ended.
  result<std::string> pick();
  StockLock& lock();
  std::optional<wire::Refused> refuses_plain();

  Services& services_;
  std::shared_ptr<protocol::ssh::ServerConnection> connection_;
  std::string user_;
  os::Wakeup changed_;
  std::shared_ptr<StockLock> lock_;  // made when first asked for
  std::string picked_;
  int sync_marks_ = 0;
  std::list<std::function<void()>> cut_tunnels_;
  std::size_t tasks_ = 0;
  bool over_ = false;
};

awaitable<void> Connection::run() {
  auto self = shared_from_this();
  Lifetime::Enlisted enlisted(
      services_.lifetime,
      [this] {
        os::spawn(services_.executor, "connection end", leave_when_idle(shared_from_this()));
      },
      true);
  os::spawn(services_.executor, "connection activity", note_activity(self));
  while (true) {
    auto request = co_await connection_->next();
    if (!request) {
      break;
    }
    if (auto* channel = std::get_if<Channel>(&*request)) {
      os::spawn(services_.executor, "channel", serve_channel(self, std::move(*channel)));
    } else {
      auto& forward = std::get<std::unique_ptr<protocol::ssh::ForwardRequest>>(*request);
      os::spawn(services_.executor, "tunnel", serve_forward(self, std::move(forward)));
    }
  }
  over_ = true;
  changed_.notify();
  for (const auto& cut : cut_tunnels_) {
    if (cut) {
      cut();
    }
  }
  if (lock_) {
    lock_->gone();
  }
  while (tasks_ > 0) {
    co_await changed_.wait();
  }
  // The lock goes only now that nothing of this connection runs.
  lock_.reset();
}

awaitable<void> Connection::leave_when_idle(std::shared_ptr<Connection> self) {
  while (self->tasks_ > 0 && !self->over_) {
    co_await self->changed_.wait();
  }
  if (!self->over_) {
    co_await self->connection_->disconnect("the agent is stopping");
  }
}

awaitable<void> Connection::note_activity(std::shared_ptr<Connection> self) {
  auto interval = std::clamp<std::chrono::steady_clock::duration>(
      std::chrono::seconds(self->services_.info.ttl_seconds) / 6, std::chrono::milliseconds(50),
      std::chrono::seconds(60));
  auto last = self->connection_->last_activity();
  while (!self->over_) {
    co_await self->changed_.wait_until(std::chrono::steady_clock::now() + interval);
    auto now = self->connection_->last_activity();
    if (now != last && self->lock_ && !self->over_) {
      last = now;
      self->services_.locks.active(self->lock_->owner());
    }
  }
}

StockLock& Connection::lock() {
  if (!lock_) {
    lock_ = std::make_shared<StockLock>(services_, [this] { connection_->close(); });
  }
  return *lock_;
}

result<std::string> Connection::pick() {
  if (picked_.empty()) {
    auto sandbox = services_.sandboxes.resolve(connection_->user(), user_);
    if (!sandbox) {
      return sandbox.error();
    }
    picked_ = sandbox->id;
  } else if (!services_.sandboxes.find(picked_, user_)) {
    // Another of that name may be the caller's latest by now: it is not what was locked here.
    return Failure(Errc::not_found,
                   "the sandbox of this connection was ended; connect anew for another");
  }
  return picked_;
}

std::optional<wire::Refused> Connection::refuses_plain() {
  return services_.locks.refuses_plain(lock().owner(), user_);
}

awaitable<void> Connection::serve_channel(std::shared_ptr<Connection> self, Channel channel) {
  Task task(self);
  auto request = co_await channel->request();
  if (!request) {
    co_return;
  }
  if (self->services_.lifetime.stopping()) {
    channel->refuse();
    co_return;
  }
  auto directive = wire::parse_directive(request->command);
  if (!directive) {
    channel->accept();
    co_await refuse_exec(channel,
                         "sandbox: no such directive: " + wire::printable(request->command, 200),
                         kUnknownDirective);
  } else if (*directive) {
    co_await self->serve_directive(channel, std::move(**directive));
  } else {
    co_await self->serve_command(channel, std::move(*request));
  }
}

awaitable<void> Connection::serve_directive(Channel channel, wire::ParsedDirective directive) {
  switch (directive.directive) {
    case Directive::session:
      co_await serve_session(services_, channel, std::move(directive.argument), user_);
      co_return;
    case Directive::lock_requested:
      co_await request_lock(channel);
      co_return;
    case Directive::end:
      co_await end_sandbox(channel);
      co_return;
    case Directive::lock_released:
      // From one that does not hold it, waiting or not: no effect.
      if (lock_ && lock_->held()) {
        lock_->release();
      }
      break;
    case Directive::sync_start:
      ++sync_marks_;
      break;
    case Directive::sync_end:
      sync_marks_ = std::max(0, sync_marks_ - 1);
      break;
  }
  channel->accept();
  auto ended = co_await channel->exit_status(0);
  (void)ended;
}

awaitable<void> Connection::request_lock(Channel channel) {
  auto sandbox = pick();
  if (!sandbox) {
    channel->accept();
    std::string text = "sandbox: " + sandbox.error().what + "\n";
    auto written =
        co_await channel->write_error(std::as_bytes(std::span(text.data(), text.size())));
    (void)written;
    channel->close();  // stock clients read every exit status as a grant
    co_return;
  }
  wire::LockRequested wanted;
  wanted.verb = "exec";
  wanted.command = "ssh from " + connection_->peer();
  lock();
  auto held = lock_;
  co_await held->request(channel, *sandbox, user_, wanted);
}

awaitable<void> Connection::end_sandbox(Channel channel) {
  channel->accept();
  auto sandbox = pick();
  if (!sandbox) {
    auto other = services_.sandboxes.named(connection_->user());
    if (!other || other->user == user_) {
      co_await refuse_exec(channel, "sandbox: " + sandbox.error().what, kNotDone);
      co_return;
    }
    std::string text = "sandbox: " + wire::printable(connection_->user(), 80) + " is " +
                       other->user + "'s, who alone can end it";
    for (const wire::Holder& holder : services_.locks.holders(other->id)) {
      text += "; held by " + wire::shown_user(holder.user, holder.scope) + " (" +
              wire::printable(holder.command, 200) + ")";
    }
    co_await refuse_exec(channel, text, kBusy);
    co_return;
  }
  auto removed = co_await services_.sandboxes.remove(*sandbox);
  if (!removed && removed.error().code != Errc::not_found) {
    co_await refuse_exec(channel, "sandbox: " + removed.error().what, kNotDone);
    co_return;
  }
  if (lock_) {
    lock_->release();
  }
  auto ended = co_await channel->exit_status(0);
  (void)ended;
}

awaitable<void> Connection::serve_command(Channel channel, protocol::ssh::ExecRequest request) {
  auto sandbox = pick();
  std::string why;
  int status = kNotDone;
  if (!sandbox) {
    why = "sandbox: " + sandbox.error().what;
  } else if (auto refused = refuses_plain()) {
    why = refusal_text(*refused);
    status = kBusy;
  }
  if (!why.empty()) {
    channel->accept();
    co_await refuse_exec(channel, why, status);
    co_return;
  }
  if (sync_marks_ == 0) {
    services_.store.audit({services_.sandboxes.now(), user_, "exec", *sandbox,
                           wire::printable(request.command, wire::kMaxTextBytes)});
  }
  co_await serve_plain_exec(services_, channel, std::move(request), *sandbox, user_);
}

awaitable<void> Connection::serve_forward(std::shared_ptr<Connection> self,
                                          std::unique_ptr<protocol::ssh::ForwardRequest> request) {
  Task task(self);
  auto sandbox = self->pick();
  if (!sandbox || self->refuses_plain() || self->services_.lifetime.stopping()) {
    request->refuse();
    co_return;
  }
  auto cut = self->cut_tunnels_.emplace(self->cut_tunnels_.end());
  co_await serve_tunnel(self->services_, std::move(request), *sandbox, self->user_, *cut);
  self->cut_tunnels_.erase(cut);
}

}  // namespace

os::awaitable<void> serve_connection(Services& services,
                                     std::shared_ptr<protocol::ssh::ServerConnection> connection,
                                     std::string user) {
  auto served = std::make_shared<Connection>(services, std::move(connection), std::move(user));
  co_await served->run();
}

}  // namespace agent
