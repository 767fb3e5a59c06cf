// SessionClient::run: one request from its lock to its release, whatever is answered.
#include <utility>

#include "cli/error.h"
#include "cli/job_records.h"
#include "cli/session_client.h"
#include "cli/step_sender.h"
#include "cli/stream_copies.h"
#include "cli/waiting_line.h"
#include "protocol/os/offload.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;
using protocol::sync::Origin;

namespace {

constexpr int kMostAttempts = 16;  // of one request: each stale, missing or queued answer costs one
constexpr std::chrono::seconds kReleaseTime{20};  // how long `released` may take after `failed`

UserError out_of_step(const std::string& peer, const std::string& what) {
  return UserError("agent", peer + " broke the protocol: " + what,
                   "Are both programs of the same version? `sandbox version` shows this one's.");
}

std::vector<std::string> haves_of(const Prepared& prepared) {
  return prepared.base.empty() ? std::vector<std::string>()
                               : std::vector<std::string>{prepared.base};
}

}  // namespace

// What one run() has in the air.
struct SessionClient::Flight {
  Flight(const os::executor& executor, SessionClient& client)
      : copies(executor, [this, &client](wire::FrameKind stream, const wire::Failure& why) {
          client.unwritable(*this, stream, why);
        }) {}
  Flight(const Flight&) = delete;
  Flight& operator=(const Flight&) = delete;
  std::shared_ptr<Origin> origin;
  Cycle cycle;
  std::shared_ptr<const Prepared> prepared;
  std::uint32_t request = 0;
  std::shared_ptr<StepSender> steps;
  StreamCopies copies;
  std::optional<WaitingLine> waiting;
  bool stale = false;
  bool settled = false;  // what the command changed is here, or it changed nothing
  bool finished = false;
  bool again = false;  // send the steps under a new request number
  std::optional<std::vector<std::string>>
      haves;  // what the box has, when it said so: the snapshot is still good
  int attempts = 1;
  std::optional<std::chrono::steady_clock::time_point> deadline;
  CycleOutcome outcome;

  // After its command has ended nothing can make a request fail: at worst its changes stay there.
  void leave_behind(const std::string& why) {
    if (!settled && outcome.not_merged.empty()) {
      outcome.not_merged = why;
    }
  }
};

os::awaitable<Prepared> SessionClient::prepare_again(std::shared_ptr<Origin> origin) {
  auto work = [origin = std::move(origin), sandbox = sandbox_] {
    return prepare(*origin, sandbox);
  };
  Prepared prepared = co_await os::offload(pool_, std::move(work));
  co_return prepared;
}

void SessionClient::begin_steps(Flight& flight, std::vector<std::string> haves) {
  flight.steps =
      StepSender::begin(executor_, pool_, session_,
                        {flight.request, flight.origin, flight.prepared, std::move(haves),
                         flight.cycle.exec, flight.cycle.sync, flight.cycle.release});
}

os::awaitable<void> SessionClient::send_again(Flight& flight) {
  if (++flight.attempts > kMostAttempts) {
    throw out_of_step(session_->peer(), "it takes none of our snapshots");
  }
  co_await flight.steps->end();
  session_->drop(flight.request);
  if (!flight.haves) {
    Prepared now = co_await prepare_again(flight.origin);
    flight.prepared = std::make_shared<const Prepared>(std::move(now));
  }
  std::vector<std::string> haves = flight.haves ? *flight.haves : haves_of(*flight.prepared);
  flight.haves.reset();
  flight.again = false;
  flight.request = session_->new_request();
  begin_steps(flight, std::move(haves));
}

void SessionClient::start_streams(Flight& flight) {
  if (flight.cycle.exec && flight.cycle.exec->detach) {
    throw UserError("agent", session_->peer() + " is older than this and cannot detach a command",
                    "Update it. The command was ended.");
  }
  if (flight.cycle.streams == nullptr || !flight.cycle.exec || job_request_ != 0) {
    throw out_of_step(session_->peer(), "a command started that nobody asked for");
  }
  phase_ = Phase::running;
  job_request_ = flight.request;
  flight.cycle.streams->begin();
  flight.copies.begin(session_, flight.request, *flight.cycle.streams,
                      flight.cycle.exec->interactive_input);
}

// A stream whose reader has gone is closed at the command's end as well: it gets SIGPIPE when it
// writes there, as it would here. Where something else is wrong (a full disk), the command goes on:
// what it does may be worth more than what it prints.
void SessionClient::unwritable(Flight& flight, wire::FrameKind stream, const wire::Failure& why) {
  if (why.code != wire::Errc::gone) {
    std::string& lost = flight.outcome.output_lost;
    lost += (lost.empty() ? "" : "; ") + why.what;
    output_.warn(why.what + "; the command goes on, and what else it prints there is lost");
  } else if (job_request_ != 0) {
    session_->send(job_request_,
                   wire::Signal{"PIPE", stream == wire::FrameKind::error ? "error" : "output"});
  }
}

os::awaitable<void> SessionClient::take(Flight& flight, const wire::Message& message) {
  CycleOutcome& outcome = flight.outcome;
  if (const auto* queued = std::get_if<wire::Queued>(&message)) {
    flight.steps->stop();
    if (!flight.waiting) {
      flight.waiting.emplace(executor_, output_, std::string());
    }
    flight.waiting->set(*queued);
  } else if (const auto* granted = std::get_if<wire::Granted>(&message)) {
    flight.waiting.reset();
    granted_ = *granted;
    outcome.granted = *granted;
    warn_of_bypassed();
    flight.again = granted->queued;
    outcome.not_synced = granted->shared;
    if (granted->shared && flight.cycle.exec) {
      output_.warn(
          "another command runs in this sandbox, so your work tree was not sent: this one sees the "
          "files as they are there");
    }
  } else if (const auto* refused = std::get_if<wire::Refused>(&message)) {
    flight.waiting.reset();
    outcome.refused = *refused;
    flight.finished = true;
  } else if (const auto* missing = std::get_if<wire::Missing>(&message)) {
    flight.again = true;
    flight.haves = missing->have;
  } else if (std::holds_alternative<wire::Stale>(message)) {
    flight.stale = true;
  } else if (const auto* applied = std::get_if<wire::Applied>(&message)) {
    outcome.applied = *applied;
    outcome.snapshot = applied->snapshot;
    outcome.left_out.insert(outcome.left_out.end(), applied->left_out.begin(),
                            applied->left_out.end());
    auto keep = [origin = flight.origin, sandbox = sandbox_, snapshot = applied->snapshot] {
      return origin->set_base(sandbox, snapshot);
    };
    auto kept = co_await os::offload(pool_, std::move(keep));
    static_cast<void>(kept);  // the next pack is larger than needed, nothing else
  } else if (std::holds_alternative<wire::Started>(message)) {
    start_streams(flight);
  } else if (const auto* detached = std::get_if<wire::Detached>(&message)) {
    if (!is_whole_job_id(detached->job)) {
      throw out_of_step(session_->peer(), "the command runs detached, as the job `" +
                                              wire::printable(detached->job, 80) +
                                              "`, which is no id");
    }
    outcome.job = detached->job;
    flight.settled = true;
    flight.finished = true;
  } else if (const auto* exited = std::get_if<wire::Exited>(&message)) {
    outcome.exited = *exited;
    job_request_ = 0;
    phase_ = Phase::after;
    if (flight.cycle.streams != nullptr) {
      flight.cycle.streams->end();
    }
    flight.finished = !flight.cycle.release;
  } else if (const auto* result = std::get_if<wire::Result>(&message)) {
    if (flight.stale) {
      co_await flight.steps->end();
    }
    co_await receive(flight.origin, flight.request, *result, outcome);
    if (flight.stale) {
      flight.stale = false;
      if (outcome.wants_whole) {  // all else that was sent under this request is skipped
        co_await pull_into(flight.origin, outcome);
      }
      if (!outcome.not_merged.empty()) {
        throw UserError("sync",
                        "cannot bring back what an earlier command changed: " + outcome.not_merged,
                        "Nothing was run. `sandbox pull` tries again.");
      }
      flight.again = true;
    } else {
      flight.settled = outcome.not_merged.empty();
    }
  } else if (std::holds_alternative<wire::Unchanged>(message)) {
    flight.settled = true;
  } else if (const auto* failed = std::get_if<wire::Failed>(&message)) {
    if (!is_of_a_step(*failed)) {
      co_return;
    }
    flight.waiting.reset();
    if (outcome.exited || flight.settled || !outcome.not_merged.empty()) {
      flight.leave_behind(failed->message);
    } else if (!outcome.failed) {
      outcome.failed = *failed;
    }
    flight.steps->stop();
    flight.finished = failed->step == wire::message_name(wire::LockRequested{}) ||
                      failed->step == wire::message_name(wire::LockReleased{});
    flight.deadline = std::chrono::steady_clock::now() + kReleaseTime;
  } else if (std::holds_alternative<wire::Released>(message)) {
    flight.finished = true;
  } else if (const auto* notice = std::get_if<wire::Notice>(&message)) {
    output_.warn(notice->text);
  }
}

os::awaitable<void> SessionClient::fly(Flight& flight) {
  if (!flight.prepared && flight.cycle.sync) {
    Prepared now = co_await prepare_again(flight.origin);
    flight.prepared = std::make_shared<const Prepared>(std::move(now));
  }
  phase_ = Phase::waiting;
  flight.request = session_->new_request();
  if (flight.cycle.lock) {
    session_->send(flight.request, *flight.cycle.lock);
  } else {
    flight.outcome.granted = granted_;
  }
  begin_steps(flight, flight.prepared ? haves_of(*flight.prepared) : std::vector<std::string>());
  while (!flight.finished) {
    std::optional<Session::Incoming> incoming;
    if (flight.deadline) {
      incoming = co_await session_->next_until(*flight.deadline);
    } else {
      Session::Incoming next = co_await session_->next();
      incoming = std::move(next);
    }
    if (!incoming) {
      break;  // it failed, and the agent does not say that the lock is free: closing the session
              // frees it
    }
    if (incoming->request == 0) {
      on_session_message(incoming->message);
    } else if (incoming->request == flight.request) {  // not an answer to steps that were given up
      co_await take(flight, incoming->message);
      if (flight.again) {
        co_await send_again(flight);
      }
    }
  }
}

os::awaitable<CycleOutcome> SessionClient::run(std::shared_ptr<Origin> origin, Cycle cycle) {
  if (cycle.exec && !fits(*cycle.exec)) {
    throw UserError("arguments", "the command and its variables are too large: more than 1 MiB",
                    "Put long input into a file or on stdin.", kMisuse);
  }
  Flight flight(executor_, *this);
  flight.origin = std::move(origin);
  flight.cycle = std::move(cycle);
  if (flight.cycle.prepared) {
    flight.prepared = std::make_shared<const Prepared>(std::move(*flight.cycle.prepared));
  }
  std::exception_ptr escaped;
  bool unbound = false;
  try {
    co_await fly(flight);
  } catch (const BindFailed&) {
    escaped = std::current_exception();
    unbound = true;
  } catch (const std::exception& error) {
    if (flight.outcome.exited) {
      flight.leave_behind(error.what());
      session_->close();
    } else {
      escaped = std::current_exception();
    }
  }

  flight.waiting.reset();
  if (escaped && !unbound) {
    session_->close();
  }
  if (job_request_ != 0) {  // its end was not told, and that of its streams will not be
    flight.cycle.streams->end();
    session_->frames().drop(job_request_);
    for (auto kind : {wire::FrameKind::output, wire::FrameKind::error}) {
      session_->bulk(kind, job_request_)->cut("the command's end was not told");
    }
  }
  co_await flight.copies.finished();  // the command's last bytes are on their way to the user
  if (flight.steps) {
    co_await flight.steps->end();
  }
  session_->drop(flight.request);
  job_request_ = 0;
  phase_ = Phase::after;
  if (flight.outcome.wants_whole && !escaped) {
    try {
      co_await pull_into(flight.origin, flight.outcome);
    } catch (const std::exception& error) {
      session_->close();  // why it was not merged is known already
    }
  }
  if (flight.steps && !flight.steps->failure().empty()) {
    throw UserError("sync", "cannot send the work tree: " + flight.steps->failure());
  }
  if (escaped) {
    std::rethrow_exception(escaped);
  }
  CycleOutcome& outcome = flight.outcome;
  if (flight.cycle.sync && outcome.snapshot.empty() && !outcome.not_synced && !outcome.refused &&
      !outcome.failed) {
    throw out_of_step(session_->peer(), "the lock was given back before the work tree was there");
  }
  if (!outcome.refused && flight.prepared) {
    const auto& left_out = flight.prepared->snapshot.left_out;
    outcome.left_out.insert(outcome.left_out.begin(), left_out.begin(), left_out.end());
  }
  co_return std::move(outcome);
}

}  // namespace cli
