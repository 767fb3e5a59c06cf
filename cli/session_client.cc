#include "cli/session_client.h"

#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <utility>

#include "cli/error.h"
#include "cli/waiting_line.h"
#include "protocol/os/offload.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace asio = boost::asio;
namespace os = protocol::os;
namespace wire = protocol::wire;
using protocol::sync::MergeReport;
using protocol::sync::Origin;

namespace {

constexpr int kMostAttempts = 16;  // of one request: each stale, missing or queued answer costs one
constexpr std::chrono::seconds kReleaseTime{20};  // how long `released` may take after `failed`

void append(MergeReport& all, MergeReport one) {
  auto move_to = [](auto& to, auto& from) {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  };
  move_to(all.written, one.written);
  move_to(all.deleted, one.deleted);
  move_to(all.conflicts, one.conflicts);
  move_to(all.refused, one.refused);
  move_to(all.commits, one.commits);
}

UserError out_of_step(const std::string& peer, const std::string& what) {
  return UserError("agent", peer + " broke the protocol: " + what,
                   "Are both programs of the same version? `sandbox version` shows this one's.");
}

std::vector<std::string> haves_of(const Prepared& prepared) {
  return prepared.base.empty() ? std::vector<std::string>()
                               : std::vector<std::string>{prepared.base};
}

// Whether a message can be sent: one that is too large is encoded as another.
bool fits(const wire::Message& message) {
  std::string_view name = wire::message_name(message);
  return wire::encode(message).compare(0, name.size(), name) == 0;
}

asio::posix::stream_descriptor adopt(const os::executor& executor, os::Fd fd) {
  return asio::posix::stream_descriptor(executor, fd.release());
}

}  // namespace

Prepared prepare(Origin& origin, const std::string& sandbox) {
  Prepared prepared;
  prepared.base = origin.base(sandbox);
  prepared.merged = origin.merged(sandbox);  // before the scan: see the header
  auto snapshot = origin.snapshot();
  if (!snapshot) {
    throw UserError(
        "sync", "cannot take a snapshot of the work tree: " + snapshot.error().what,
        snapshot.error().code == wire::Errc::no_space ? "Free some space on that disk." : "");
  }
  prepared.snapshot = std::move(*snapshot);
  return prepared;
}

// ---- sending the steps of a request -----------------------------------------------------------

struct SessionClient::Steps {
  explicit Steps(os::executor executor) : ended(executor) {}
  std::uint32_t request = 0;
  std::shared_ptr<Origin> origin;
  std::shared_ptr<const Prepared> prepared;
  std::vector<std::string> haves;
  std::optional<wire::Exec> exec;
  bool cancelled = false;
  bool done = false;
  std::string failure;  // why the pack could not be made
  os::Wakeup ended;
};

namespace {

// Runs on the side of the sending: the pack's maker on a pool thread.
struct PackWriter {
  explicit PackWriter(os::executor executor) : ended(executor) {}
  bool done = false;
  wire::result<void> outcome;
  os::Wakeup ended;
};

os::awaitable<void> write_pack(asio::thread_pool* pool, std::shared_ptr<Origin> origin,
                               std::shared_ptr<const Prepared> prepared,
                               std::vector<std::string> haves, os::Fd out,
                               std::shared_ptr<PackWriter> writer) {
  auto work = [origin = std::move(origin), prepared = std::move(prepared), haves = std::move(haves),
               out = std::move(out)]() mutable -> wire::result<void> {
    return origin->write_pack(prepared->snapshot, haves, std::move(out));
  };
  std::string escaped;
  try {
    writer->outcome = co_await os::offload(*pool, std::move(work));
  } catch (const std::exception& error) {
    escaped = error.what();
  }
  if (!escaped.empty()) {
    writer->outcome = wire::Failure(wire::Errc::io, escaped);
  }
  writer->done = true;
  writer->ended.notify();
}

}  // namespace

std::shared_ptr<SessionClient::Steps> SessionClient::begin_steps(
    std::uint32_t request, std::shared_ptr<Origin> origin, std::shared_ptr<const Prepared> prepared,
    std::vector<std::string> haves, const std::optional<wire::Exec>& exec) {
  auto steps = std::make_shared<Steps>(executor_);
  steps->request = request;
  steps->origin = std::move(origin);
  steps->prepared = std::move(prepared);
  steps->haves = std::move(haves);
  steps->exec = exec;
  os::spawn(executor_, "send steps", send_steps(session_, &pool_, executor_, steps));
  return steps;
}

os::awaitable<void> SessionClient::send_steps(std::shared_ptr<Session> session,
                                              asio::thread_pool* pool, os::executor executor,
                                              std::shared_ptr<Steps> steps) {
  wire::SyncStart start = steps->prepared->snapshot.sync;
  start.base = steps->haves.empty() ? std::string() : steps->haves.front();
  start.merged = steps->prepared->merged;
  session->send(steps->request, start);

  bool sent = false;
  auto pipe = os::make_pipe();
  if (!fits(start)) {
    steps->failure = "its references and the ignore rules outside of it are more than 1 MiB";
  } else if (pipe) {
    auto writer = std::make_shared<PackWriter>(executor);
    os::spawn(executor, "pack",
              write_pack(pool, steps->origin, steps->prepared, steps->haves, std::move(pipe->write),
                         writer));
    {
      auto reader = adopt(executor, std::move(pipe->read));
      std::vector<char> buffer(wire::kMaxBulkBytes);
      for (;;) {
        boost::system::error_code error;
        std::size_t got = co_await reader.async_read_some(
            asio::buffer(buffer), asio::redirect_error(asio::use_awaitable, error));
        if (error || got == 0 || steps->cancelled) {
          break;
        }
        auto queued = co_await session->frames().send_bulk(wire::FrameKind::pack, steps->request,
                                                           std::string_view(buffer.data(), got));
        if (!queued) {
          steps->cancelled = true;
          break;
        }
      }
    }  // closing the pipe ends a writer that is still at it
    while (!writer->done) {
      co_await writer->ended.wait();
    }
    sent = writer->outcome.has_value();
    if (!sent && !steps->cancelled) {
      steps->failure = writer->outcome.error().what;
    }
  } else {
    steps->failure = pipe.error().what;
  }
  if (!steps->cancelled && sent) {
    session->frames().end_bulk(wire::FrameKind::pack, steps->request);
    // Control frames overtake bulk ones: the steps that follow must not overtake the pack.
    auto flushed = co_await session->frames().flush();
    if (flushed && !steps->cancelled) {
      session->send(steps->request, wire::SyncEnd{});
      if (steps->exec) {
        session->send(steps->request, *steps->exec);
      }
      session->send(steps->request, wire::LockReleased{});
    }
  } else if (!steps->cancelled) {
    session->close();  // the pack stopped in the middle: the agent must not wait for its end
  }
  steps->done = true;
  steps->ended.notify();
}

os::awaitable<void> SessionClient::cancel(std::shared_ptr<Steps> steps) {
  if (steps) {
    steps->cancelled = true;
    session_->frames().drop(steps->request);
    while (!steps->done) {
      co_await steps->ended.wait();
    }
  }
}

// ---- the command's streams ---------------------------------------------------------------------

struct SessionClient::Running {
  explicit Running(os::executor executor) : ended(executor) {}
  int copying = 0;
  bool broken_pipe_told = false;
  os::Wakeup ended;

  static os::awaitable<void> copy_out(std::shared_ptr<Running> self,
                                      std::shared_ptr<Session> session, std::uint32_t request,
                                      wire::FrameKind kind, CommandStreams* streams) {
    auto queue = session->bulk(kind, request);
    bool writable = true;
    for (;;) {
      std::optional<std::string> bytes = co_await queue->next();
      if (!bytes) {
        break;
      }
      std::size_t size = bytes->size();
      if (writable) {
        auto written = co_await streams->write(kind, std::move(*bytes));
        writable = written.has_value();
        if (!writable && !self->broken_pipe_told) {
          self->broken_pipe_told = true;
          session->send(request, wire::Signal{"PIPE"});  // what would have happened to it here
        }
      }
      session->frames().consumed(kind, request, size);
    }
    --self->copying;
    self->ended.notify();
  }

  static os::awaitable<void> copy_in(std::shared_ptr<Running> self,
                                     std::shared_ptr<Session> session, std::uint32_t request,
                                     CommandStreams* streams) {
    for (;;) {
      std::optional<std::string> bytes = co_await streams->read_input();
      if (!bytes) {
        break;
      }
      auto queued = co_await session->frames().send_bulk(wire::FrameKind::input, request, *bytes);
      if (!queued) {
        break;
      }
    }
    session->frames().end_bulk(wire::FrameKind::input, request);
    --self->copying;
    self->ended.notify();
  }
};

// ---- results ---------------------------------------------------------------------------------

os::awaitable<void> SessionClient::receive(std::shared_ptr<Origin> origin, std::uint32_t request,
                                           wire::Result result, CycleOutcome& outcome) {
  auto queue = session_->bulk(wire::FrameKind::result_pack, request);
  outcome.left_out.insert(outcome.left_out.end(), result.left_out.begin(), result.left_out.end());
  auto pipe = os::make_pipe();
  if (!pipe) {
    outcome.not_merged = pipe.error().what;
    co_return;
  }
  struct Reading {
    explicit Reading(os::executor executor) : ended(executor) {}
    bool done = false;
    wire::result<void> outcome;
    os::Wakeup ended;
  };
  auto reading = std::make_shared<Reading>(executor_);
  auto read = [](asio::thread_pool* pool, std::shared_ptr<Origin> to, os::Fd in,
                 std::shared_ptr<Reading> state) -> os::awaitable<void> {
    auto work = [to, in = std::move(in)]() mutable -> wire::result<void> {
      return to->read_pack(std::move(in), wire::kMaxPackBytes);
    };
    std::string escaped;
    try {
      state->outcome = co_await os::offload(*pool, std::move(work));
    } catch (const std::exception& error) {
      escaped = error.what();
    }
    if (!escaped.empty()) {
      state->outcome = wire::Failure(wire::Errc::io, escaped);
    }
    state->done = true;
    state->ended.notify();
  };
  os::spawn(executor_, "result pack", read(&pool_, origin, std::move(pipe->read), reading));
  {
    auto writer = adopt(executor_, std::move(pipe->write));
    bool open = true;
    for (;;) {
      std::optional<std::string> bytes = co_await queue->next();
      if (!bytes) {
        break;
      }
      if (open) {
        boost::system::error_code error;
        co_await asio::async_write(writer, asio::buffer(*bytes),
                                   asio::redirect_error(asio::use_awaitable, error));
        open = !error;
      }
      session_->frames().consumed(wire::FrameKind::result_pack, request, bytes->size());
    }
  }
  while (!reading->done) {
    co_await reading->ended.wait();
  }
  if (!reading->outcome) {
    outcome.not_merged = reading->outcome.error().what;
    co_return;
  }
  auto merge = [origin, sandbox = sandbox_, result] { return origin->merge(sandbox, result); };
  auto report = co_await os::offload(pool_, std::move(merge));
  if (!report) {
    outcome.not_merged = report.error().what;
    co_return;
  }
  append(outcome.merged, std::move(*report));
  session_->send(0, wire::Merged{result.result});
}

// ---- the session itself ------------------------------------------------------------------------

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
    output_.note("sandbox: " + notice->text);
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

os::awaitable<Prepared> SessionClient::prepare_again(std::shared_ptr<Origin> origin) {
  auto work = [origin = std::move(origin), sandbox = sandbox_] {
    return prepare(*origin, sandbox);
  };
  Prepared prepared = co_await os::offload(pool_, std::move(work));
  co_return prepared;
}

// What one run() has in the air.
struct SessionClient::Flight {
  explicit Flight(os::executor executor) : running(std::make_shared<Running>(executor)) {}
  std::shared_ptr<Origin> origin;
  Cycle cycle;
  std::shared_ptr<const Prepared> prepared;
  std::uint32_t request = 0;
  std::shared_ptr<Steps> steps;
  std::shared_ptr<Running> running;
  std::optional<WaitingLine> waiting;
  bool stale = false;
  bool finished = false;
  bool again = false;  // send the steps under a new request number
  std::optional<std::vector<std::string>>
      haves;  // what the box has, when it said so: the snapshot is still good
  int attempts = 1;
  std::optional<std::chrono::steady_clock::time_point> deadline;
  CycleOutcome outcome;
};

os::awaitable<void> SessionClient::send_again(Flight& flight) {
  if (++flight.attempts > kMostAttempts) {
    throw out_of_step(session_->peer(), "it takes none of our snapshots");
  }
  co_await cancel(flight.steps);
  session_->drop(flight.request);
  if (!flight.haves) {
    Prepared now = co_await prepare_again(flight.origin);
    flight.prepared = std::make_shared<const Prepared>(std::move(now));
  }
  std::vector<std::string> haves = flight.haves ? *flight.haves : haves_of(*flight.prepared);
  flight.haves.reset();
  flight.again = false;
  flight.request = session_->new_request();
  flight.steps = begin_steps(flight.request, flight.origin, flight.prepared, std::move(haves),
                             flight.cycle.exec);
}

void SessionClient::start_streams(Flight& flight) {
  if (flight.cycle.streams == nullptr || !flight.cycle.exec || job_request_ != 0) {
    throw out_of_step(session_->peer(), "a command started that nobody asked for");
  }
  phase_ = Phase::running;
  job_request_ = flight.request;
  CommandStreams* streams = flight.cycle.streams;
  streams->begin();
  auto running = flight.running;
  running->copying += 2;
  os::spawn(executor_, "stdout",
            Running::copy_out(running, session_, flight.request, wire::FrameKind::output, streams));
  os::spawn(executor_, "stderr",
            Running::copy_out(running, session_, flight.request, wire::FrameKind::error, streams));
  if (flight.cycle.exec->interactive_input) {
    ++running->copying;
    os::spawn(executor_, "stdin", Running::copy_in(running, session_, flight.request, streams));
  }
}

os::awaitable<void> SessionClient::take(Flight& flight, const wire::Message& message) {
  CycleOutcome& outcome = flight.outcome;
  if (const auto* queued = std::get_if<wire::Queued>(&message)) {
    flight.steps->cancelled = true;
    session_->frames().drop(flight.request);
    if (!flight.waiting) {
      flight.waiting.emplace(executor_, output_, std::string());
    }
    flight.waiting->set(*queued);
  } else if (const auto* granted = std::get_if<wire::Granted>(&message)) {
    flight.waiting.reset();
    outcome.granted = *granted;
    for (const auto& holder : granted->bypassed) {
      output_.warn("the lock was taken although held by " + describe_holder(holder, {}));
    }
    flight.again = granted->queued;
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
  } else if (const auto* exited = std::get_if<wire::Exited>(&message)) {
    outcome.exited = *exited;
    job_request_ = 0;
    phase_ = Phase::after;
    if (flight.cycle.streams != nullptr) {
      flight.cycle.streams->end();
    }
  } else if (const auto* result = std::get_if<wire::Result>(&message)) {
    if (flight.stale) {
      co_await cancel(flight.steps);
    }
    co_await receive(flight.origin, flight.request, *result, outcome);
    if (flight.stale) {
      flight.stale = false;
      if (!outcome.not_merged.empty()) {
        throw UserError("sync",
                        "cannot bring back what an earlier command changed: " + outcome.not_merged,
                        "Nothing was run. `sandbox pull` tries again.");
      }
      flight.again = true;
    }
  } else if (const auto* failed = std::get_if<wire::Failed>(&message)) {
    flight.waiting.reset();
    if (!outcome.failed) {
      outcome.failed = *failed;
    }
    flight.steps->cancelled = true;
    flight.finished = failed->step == wire::message_name(wire::LockRequested{}) ||
                      failed->step == wire::message_name(wire::LockReleased{});
    flight.deadline = std::chrono::steady_clock::now() + kReleaseTime;
  } else if (std::holds_alternative<wire::Released>(message)) {
    flight.finished = true;
  } else if (const auto* notice = std::get_if<wire::Notice>(&message)) {
    output_.note("sandbox: " + notice->text);
  }
}

os::awaitable<void> SessionClient::fly(Flight& flight) {
  if (!flight.prepared) {
    Prepared now = co_await prepare_again(flight.origin);
    flight.prepared = std::make_shared<const Prepared>(std::move(now));
  }
  phase_ = Phase::waiting;
  flight.request = session_->new_request();
  if (flight.cycle.lock) {
    session_->send(flight.request, *flight.cycle.lock);
  }
  flight.steps = begin_steps(flight.request, flight.origin, flight.prepared,
                             haves_of(*flight.prepared), flight.cycle.exec);
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
  Flight flight(executor_);
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
  } catch (...) {
    escaped = std::current_exception();
  }

  flight.waiting.reset();
  if (escaped && !unbound) {
    session_->close();
  }
  if (job_request_ != 0) {  // its end was not told, and that of its streams will not be
    flight.cycle.streams->end();
    session_->frames().drop(job_request_);
    session_->bulk(wire::FrameKind::output, job_request_)->cut();
    session_->bulk(wire::FrameKind::error, job_request_)->cut();
  }
  while (flight.running->copying >
         0) {  // the command's last bytes are still on their way to the user
    co_await flight.running->ended.wait();
  }
  co_await cancel(flight.steps);
  session_->drop(flight.request);
  job_request_ = 0;
  phase_ = Phase::after;
  if (flight.steps && !flight.steps->failure.empty()) {
    throw UserError("sync", "cannot send the work tree: " + flight.steps->failure);
  }
  if (escaped) {
    std::rethrow_exception(escaped);
  }
  CycleOutcome& outcome = flight.outcome;
  if (outcome.snapshot.empty() && !outcome.refused && !outcome.failed) {
    throw out_of_step(session_->peer(), "the lock was given back before the work tree was there");
  }
  if (!outcome.refused) {
    const auto& left_out = flight.prepared->snapshot.left_out;
    outcome.left_out.insert(outcome.left_out.begin(), left_out.begin(), left_out.end());
  }
  co_return std::move(outcome);
}

os::awaitable<CycleOutcome> SessionClient::pull(std::shared_ptr<Origin> origin) {
  CycleOutcome outcome;
  for (int round = 0; round < kMostAttempts; ++round) {
    std::uint32_t request = session_->new_request();
    auto ask_merged = [origin, sandbox = sandbox_] { return origin->merged(sandbox); };
    std::string merged = co_await os::offload(pool_, std::move(ask_merged));
    session_->send(request, wire::Pull{merged});
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
        std::string before = result->result;
        co_await receive(origin, request, *result, outcome);
        more = outcome.not_merged.empty();
        answered = true;
      } else if (std::holds_alternative<wire::Unchanged>(incoming.message)) {
        answered = true;
      } else if (const auto* failed = std::get_if<wire::Failed>(&incoming.message)) {
        outcome.failed = *failed;
        answered = true;
      }
    }
    session_->drop(request);
    if (!more) {
      break;
    }
  }
  co_return outcome;
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
    } else if (std::holds_alternative<wire::Granted>(incoming.message)) {
      co_return refused;
    } else if (const auto* no = std::get_if<wire::Refused>(&incoming.message)) {
      refused = *no;
      co_return refused;
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
