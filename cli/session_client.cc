#include "cli/session_client.h"

#include <utility>

#include "cli/error.h"
#include "cli/ids.h"
#include "cli/result_receiver.h"
#include "cli/waiting_line.h"
#include "protocol/os/offload.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace asio = boost::asio;
namespace os = protocol::os;
namespace wire = protocol::wire;
using protocol::sync::MergeReport;
using protocol::sync::Origin;

namespace {

constexpr int kMostPulls = 16;  // results that one pull brings

}  // namespace

void append(MergeReport& all, MergeReport one) {
  auto move_to = [](auto& to, auto& from) {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  };
  move_to(all.written, one.written);
  move_to(all.deleted, one.deleted);
  move_to(all.conflicts, one.conflicts);
  move_to(all.refused, one.refused);
  move_to(all.commits, one.commits);
  move_to(all.kept, one.kept);
  move_to(all.drift, one.drift);
}

SessionClient::SessionClient(os::executor executor, asio::thread_pool& pool,
                             std::unique_ptr<Session> session, Output& output)
    : executor_(executor), pool_(pool), session_(std::move(session)), output_(output) {}

SessionClient::~SessionClient() {
  if (session_) {
    session_->close();
  }
}

void SessionClient::bind(const wire::Bind& bind) {
  sandbox_ = bind.sandbox;
  session_->send(0, bind);
}

void SessionClient::create(const wire::Create& create) {
  sandbox_ = create.sandbox;
  session_->send(0, create);
}

void SessionClient::on_session_message(const wire::Message& message) {
  if (const auto* bound = std::get_if<wire::Bound>(&message)) {
    if (!bound->agent.empty() && !is_plain_id(bound->agent)) {
      throw UserError("agent",
                      session_->peer() + " broke the protocol: `" +
                          wire::printable(bound->agent, 80) + "` is no agent's id",
                      "Is that a box's agent? Nothing was sent or run.");
    }
    bound_ = *bound;
    session_->start_heartbeat(std::chrono::seconds(bound->ttl_seconds));
    if (check_bound_) {
      check_bound_(*bound);
    }
  } else if (const auto* failed = std::get_if<wire::Failed>(&message)) {
    bool ended =
        failed->step == "session";  // the agent takes leave; the sandbox may have been ended
    bool ran = phase_ == Phase::running || phase_ == Phase::after;
    if (!ended || (wire::errc_from_name(failed->code) == wire::Errc::gone && !ran)) {
      throw BindFailed(*failed);
    }
    throw UserError(
        "agent", session_->peer() + " ended the session: " + wire::printable(failed->message, 400),
        ran ? "What the command had changed is kept on the box while the sandbox is there; "
              "`sandbox pull` brings it."
            : "");
  } else if (const auto* notice = std::get_if<wire::Notice>(&message)) {
    // Told once: a script that reads --json has to get it as well. The agent does not know what its
    // box is called here.
    output_.warn(session_->peer() + ": " + wire::printable(notice->text, wire::kMaxTextBytes));
  }
}

os::awaitable<wire::Bound> SessionClient::bound() {
  while (!bound_) {
    auto incoming = co_await session_->next();
    on_session_message(incoming.message);
  }
  wire::Bound answer = *bound_;
  co_return answer;
}

os::awaitable<wire::Message> SessionClient::ask(const wire::Message& question) {
  session_->send(0, question);
  for (;;) {
    auto incoming = co_await session_->next();
    if (std::holds_alternative<wire::Bound>(incoming.message) &&
        !std::holds_alternative<wire::Ready>(question)) {
      on_session_message(incoming.message);
      continue;
    }
    if (std::holds_alternative<wire::Notice>(incoming.message)) {
      on_session_message(incoming.message);
      continue;
    }
    if (incoming.request == 0) {
      co_return incoming.message;
    }
  }
}

os::awaitable<void> SessionClient::receive(std::shared_ptr<Origin> origin, std::uint32_t request,
                                           wire::Result result, CycleOutcome& outcome) {
  outcome.left_out.insert(outcome.left_out.end(), result.left_out.begin(), result.left_out.end());
  Received received = co_await receive_result(executor_, pool_, session_, request,
                                              std::move(origin), sandbox_, result);
  if (!received) {
    outcome.not_merged = received.error().what;
    outcome.wants_whole = received.error().code == wire::Errc::not_found;
    co_return;
  }
  append(outcome.merged, std::move(*received));
  session_->send(0, wire::Merged{result.result});
}

os::awaitable<CycleOutcome> SessionClient::pull(std::shared_ptr<Origin> origin) {
  CycleOutcome outcome;
  auto try_again = [origin, sandbox = sandbox_] { return origin->merge_unwritten(sandbox); };
  Received unwritten = co_await os::offload(pool_, std::move(try_again));
  if (unwritten) {
    append(outcome.merged, std::move(*unwritten));
  } else {
    outcome.not_merged = unwritten.error().what;
  }
  co_await pull_into(std::move(origin), outcome);
  co_return outcome;
}

os::awaitable<void> SessionClient::pull_into(std::shared_ptr<Origin> origin,
                                             CycleOutcome& outcome) {
  for (int round = 0; round < kMostPulls; ++round) {
    std::uint32_t request = session_->new_request();
    auto ask_merged = [origin, sandbox = sandbox_] { return origin->merged(sandbox); };
    std::string merged = co_await os::offload(pool_, std::move(ask_merged));
    bool whole = std::exchange(outcome.wants_whole, false);
    session_->send(request, wire::Pull{merged, whole});
    bool more = false;
    for (bool answered = false; !answered;) {
      auto incoming = co_await session_->next();
      if (incoming.request == 0) {
        on_session_message(incoming.message);
        continue;
      }
      if (incoming.request != request) {
        continue;
      }
      if (const auto* result = std::get_if<wire::Result>(&incoming.message)) {
        if (whole) {
          outcome.not_merged.clear();
        }
        co_await receive(origin, request, *result, outcome);
        outcome.wants_whole = outcome.wants_whole && !whole;
        more = outcome.not_merged.empty() || outcome.wants_whole;
        answered = true;
      } else if (std::holds_alternative<wire::Unchanged>(incoming.message)) {
        if (whole) {
          outcome.not_merged.clear();
        }
        answered = true;
      } else if (const auto* failed = std::get_if<wire::Failed>(&incoming.message)) {
        if (outcome.not_merged.empty()) {
          outcome.failed = *failed;
        }
        answered = true;
      }
    }
    session_->drop(request);
    if (!more) {
      break;
    }
  }
}

os::awaitable<std::optional<wire::Refused>> SessionClient::lock(const wire::LockRequested& lock) {
  std::uint32_t request = session_->new_request();
  session_->send(request, lock);
  phase_ = Phase::waiting;
  std::optional<WaitingLine> waiting;
  for (;;) {
    auto incoming = co_await session_->next();
    if (incoming.request == 0) {
      on_session_message(incoming.message);
      continue;
    }
    std::optional<wire::Refused> refused;
    if (const auto* queued = std::get_if<wire::Queued>(&incoming.message)) {
      if (!waiting) {
        waiting.emplace(executor_, output_, std::string());
      }
      waiting->set(*queued);
    } else if (const auto* granted = std::get_if<wire::Granted>(&incoming.message)) {
      granted_ = *granted;
      warn_of_bypassed();
      co_return refused;
    } else if (const auto* no = std::get_if<wire::Refused>(&incoming.message)) {
      refused = *no;
      co_return refused;
    } else if (const auto* failed = std::get_if<wire::Failed>(&incoming.message)) {
      throw BindFailed(*failed);
    }
  }
}

void SessionClient::warn_of_bypassed() {
  for (const auto& holder : granted_.bypassed) {
    output_.warn("the lock was taken although " + describe_hold(holder, {}));
  }
}

os::awaitable<void> SessionClient::release() {
  session_->send(session_->new_request(), wire::LockReleased{});
  for (;;) {
    auto incoming = co_await session_->next();
    if (incoming.request == 0) {
      on_session_message(incoming.message);
    } else if (std::holds_alternative<wire::Released>(incoming.message)) {
      phase_ = Phase::before;
      co_return;
    } else if (const auto* failed = std::get_if<wire::Failed>(&incoming.message)) {
      throw BindFailed(*failed);
    }
  }
}

void SessionClient::signal(const std::string& name) {
  if (job_request_ != 0) {
    session_->send(job_request_, wire::Signal{name});
  }
}

void SessionClient::window(std::uint16_t rows, std::uint16_t columns) {
  if (job_request_ != 0) {
    session_->send(job_request_, wire::Window{rows, columns});
  }
}

os::awaitable<void> SessionClient::finish() { co_await session_->finish(); }

}  // namespace cli
