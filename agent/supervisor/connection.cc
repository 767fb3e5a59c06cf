#include "agent/supervisor/connection.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "agent/supervisor/connection_request.h"
#include "agent/supervisor/supervisor.h"
#include "agent/supervisor/workspace_queue.h"
#include "protocol/os/signal_names.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace agent::supervisor {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;
using wire::FrameKind;

namespace {

constexpr std::size_t kMaxPendingSignals = 8;

bool is_step(const wire::Message& message) {
  return std::holds_alternative<wire::SyncStart>(message) ||
         std::holds_alternative<wire::SyncEnd>(message) ||
         std::holds_alternative<wire::Exec>(message) ||
         std::holds_alternative<wire::LockReleased>(message) ||
         std::holds_alternative<wire::Pull>(message) ||
         std::holds_alternative<wire::Merged>(message);
}

}  // namespace

Connection::Connection(Supervisor& supervisor, std::unique_ptr<os::ByteStream> stream)
    : supervisor_(supervisor),
      frames_(supervisor.executor(), std::move(stream)),
      changed_(supervisor.executor()) {}

Connection::~Connection() = default;

void Connection::close() { frames_.close(); }

void Connection::finish() {
  if (!asked_shutdown_) begin(hang_up(shared_from_this()), "goodbye");
}

awaitable<void> Connection::run() {
  auto self = shared_from_this();
  begin(run_steps(self), "steps");
  for (;;) {
    auto frame = co_await frames_.read();
    if (greeted_ && !frame &&
        (frame.error().code == Errc::bad_input || frame.error().code == Errc::too_large)) {
      // Nothing after this can be trusted, but the agent lives: it passes the lock on when this
      // connection closes, and that must not be before what runs has ended.
      on_hangup();
      while (background_ > 0) co_await changed_.wait();
    }
    if (!frame || !*frame || ended_) break;
    on_frame(std::move(**frame));
  }
  on_end();
  while (background_ > 0) co_await changed_.wait();
  supervisor_.forget(this);
}

// ---- reading -----------------------------------------------------------------------------------

void Connection::on_frame(wire::Frame frame) {
  if (wire::is_bulk(frame.kind)) return on_bulk(std::move(frame));
  if (frame.kind != FrameKind::control) {
    return fail(frame.request, "frame",
                Failure(Errc::unsupported, "frames of kind " +
                                               std::to_string(static_cast<int>(frame.kind)) +
                                               " are not known here"));
  }
  auto message = wire::decode(frame.payload);
  if (!message) {
    std::string name = frame.payload.substr(0, frame.payload.find(' '));
    return fail(frame.request, wire::printable(name, 64), message.error());
  }
  if (!greeted_ && !std::holds_alternative<wire::Hello>(*message)) {
    fail(frame.request, wire::message_name(*message),
         Failure(Errc::refused, "a connection begins with hello"));
    return finish();
  }
  on_message(frame.request, std::move(*message));
}

void Connection::on_bulk(wire::Frame frame) {
  if (frame.kind != FrameKind::pack && frame.kind != FrameKind::input) {
    frames_.consumed(frame.kind, frame.request, frame.payload.size());
    return fail(
        frame.request, "frame",
        Failure(Errc::refused, "frames of kind " + std::to_string(static_cast<int>(frame.kind)) +
                                   " are not for a supervisor"));
  }
  Request* of = request(frame.request);
  if (!of) return;
  if (of->discarded || over()) {
    frames_.consumed(frame.kind, frame.request, frame.payload.size());
    return;
  }
  os::BulkQueue& queue = frame.kind == FrameKind::pack ? of->pack : of->input;
  if (frame.payload.empty() && frame.kind == FrameKind::pack) of->pack_complete = true;
  if (queue.ended()) return;
  buffered_ += frame.payload.size();
  queue.push(std::move(frame.payload));
  if (buffered_ > kMaxBuffered) on_hangup();
}

void Connection::on_message(std::uint32_t number, wire::Message message) {
  auto self = shared_from_this();
  if (is_step(message)) return queue(number, std::move(message));
  if (auto* hello = std::get_if<wire::Hello>(&message)) return on_hello(*hello);
  if (auto* signal = std::get_if<wire::Signal>(&message)) return on_signal(number, *signal);
  if (auto* window = std::get_if<wire::Window>(&message)) {
    Request* of = request(number);
    if (of && of->job) of->job->resize({window->rows, window->columns});
    if (of && !of->job) of->window = *window;
    return;
  }
  if (std::holds_alternative<wire::Heartbeat>(message)) return;
  if (std::holds_alternative<wire::Hangup>(message)) {
    hangup_request_ = number;
    return on_hangup();
  }
  if (std::holds_alternative<wire::StatusRequest>(message))
    return begin(answer_status(self, number), "status");
  if (std::holds_alternative<wire::UnpulledRequest>(message))
    return begin(answer_unpulled(self, number), "unpulled");
  if (std::holds_alternative<wire::Shutdown>(message))
    return begin(shut_down(self, number), "shutdown");
  if (auto* end = std::get_if<wire::EndJob>(&message))
    return begin(end_job(self, number, *end), "end job");
  if (auto* job = std::get_if<wire::WatchJob>(&message))
    return begin(watch_job(self, number, job->job), "watch job");
  if (std::holds_alternative<wire::Detach>(message)) return on_detach(number);
  if (auto* job = std::get_if<wire::Attach>(&message))
    return begin(attach(self, number, job->job), "attach");
  if (auto* tunnel = std::get_if<wire::Dial>(&message))
    return begin(dial(self, number, tunnel->port), "dial");
  fail(number, wire::message_name(message), Failure(Errc::refused, "not for a supervisor"));
}

void Connection::on_hello(const wire::Hello& hello) {
  if (std::exchange(greeted_, true))
    return fail(0, "hello", Failure(Errc::refused, "there was a hello already"));
  if (!supervisor_.follow(hello.epoch)) {
    fail(0, "hello", Failure(Errc::refused, "a later agent has this sandbox"));
    return on_hangup();
  }
  hello_ = hello;
  wire::Hello answer;
  answer.version = supervisor_.options().version;
  answer.pid = supervisor_.options().pid;
  answer.jobs = supervisor_.running_jobs();
  frames_.send(0, answer);
}

void Connection::on_signal(std::uint32_t number, const wire::Signal& signal) {
  auto value = os::signal_number(signal.name);
  if (!value) {
    return fail(number, "signal",
                Failure(Errc::bad_input, "\"" + wire::printable(signal.name, 64) +
                                             "\" is not the name of a signal"));
  }
  Request* of = request(number);
  if (!of) return;
  if (of->job && *value == SIGPIPE && !signal.stream.empty())
    of->job->close_stream(signal.stream == "error" ? FrameKind::error : FrameKind::output);
  else if (of->job)
    of->job->signal(*value);
  else if (!of->failed && of->signals.size() < kMaxPendingSignals)
    of->signals.push_back(*value);  // it overtook its job
}

void Connection::queue(std::uint32_t number, wire::Message message) {
  if (over()) return;
  if (steps_.size() >= kMaxSteps) {
    fail(number, wire::message_name(message), Failure(Errc::too_large, "too many steps ahead"));
    return on_hangup();
  }
  steps_.push_back({number, std::move(message)});
  changed_.notify();
}

void Connection::on_hangup() {
  if (std::exchange(hung_up_, true)) return;
  if (current_) current_->end();
  stop_streams();
}

void Connection::on_end() {
  ended_ = true;
  frames_.close();
  stop_streams();
}

// Nobody takes what they bring any more. What a client has merged still counts, and so does that a
// result was to be taken; nothing new begins.
void Connection::stop_streams() {
  std::erase_if(
      steps_, [](const Step& step) { return !std::holds_alternative<wire::Merged>(step.message); });
  for (JournalReader* reader : readers_) reader->stop();
  for (const auto& cut : dialling_)
    if (cut) cut();
  for (const auto& tunnel : dialled_) {
    if (auto stream = tunnel.lock()) stream->close();
  }
  for (auto& [number, of] : requests_) {
    frames_.drop(number);
    of->pack.end();
    of->input.end();
  }
  changed_.notify();
}

Connection::Request* Connection::request(std::uint32_t number) {
  auto found = requests_.find(number);
  if (found != requests_.end()) return found->second.get();
  if (requests_.size() >= kMaxRequests) {
    close();
    return nullptr;
  }
  auto fresh = std::make_unique<Request>(supervisor_.executor());
  return requests_.emplace(number, std::move(fresh)).first->second.get();
}

void Connection::discard_streams(std::uint32_t number, Request& of) {
  of.discarded = true;
  for (auto [queue, kind] :
       {std::pair(&of.pack, FrameKind::pack), std::pair(&of.input, FrameKind::input)}) {
    std::size_t bytes = queue->drop();
    buffered_ -= bytes;
    frames_.consumed(kind, number, bytes);
  }
}

void Connection::fail(std::uint32_t number, std::string_view step, const Failure& failure) {
  frames_.send(number, wire::Failed{std::string(step), wire::name(failure.code), failure.what});
}

void Connection::begin(awaitable<void> work, const char* name) {
  ++background_;
  os::spawn(supervisor_.executor(), name, counted(shared_from_this(), std::move(work)));
}

awaitable<void> Connection::counted(std::shared_ptr<Connection> self, awaitable<void> work) {
  struct Count {
    Connection& connection;
    ~Count() {
      --connection.background_;
      connection.changed_.notify();
    }
  } count{*self};
  co_await std::move(work);
}

// ---- steps -------------------------------------------------------------------------------------

awaitable<void> Connection::run_steps(std::shared_ptr<Connection> self) {
  for (;;) {
    while (self->steps_.empty() && !self->over()) co_await self->changed_.wait();
    if (self->steps_.empty()) break;
    Step step = std::move(self->steps_.front());
    self->steps_.pop_front();
    co_await self->run_step(std::move(step));
  }
  co_await self->take_quietly();
  if (self->hung_up_ && !self->ended_) {
    self->frames_.send(self->hangup_request_, wire::Ended{});
    co_await hang_up(self);
  }
}

awaitable<void> Connection::run_step(Step step) {
  Request* of = request(step.request);
  if (!of) co_return;
  if (auto* news = std::get_if<wire::Merged>(&step.message)) {
    co_await merged(std::move(*news));
  } else if (of->failed) {
    // A sync is one step: its end has no answer of its own.
    if (!std::holds_alternative<wire::SyncEnd>(step.message))
      frames_.send(step.request, wire::Skipped{std::string(wire::message_name(step.message))});
  } else if (auto* start = std::get_if<wire::SyncStart>(&step.message)) {
    co_await receive(step.request, std::move(*start));
  } else if (std::holds_alternative<wire::SyncEnd>(step.message)) {
    co_await apply(step.request);
  } else if (auto* command = std::get_if<wire::Exec>(&step.message)) {
    co_await exec(step.request, std::move(*command));
  } else if (auto* question = std::get_if<wire::Pull>(&step.message)) {
    co_await pull(step.request, std::move(*question));
  } else {
    co_await take_result(step.request);
  }
  if (of->failed && !of->discarded) discard_streams(step.request, *of);
}

awaitable<void> Connection::answer_status(std::shared_ptr<Connection> self, std::uint32_t number) {
  wire::Status status;
  status.jobs = self->supervisor_.all_jobs();
  auto& queue = self->supervisor_.workspace();
  std::string origin = self->hello_.origin;
  status.snapshot = queue.known.snapshot;
  bool owed = self->supervisor_.is_owed(origin);
  auto known = queue.known.unmerged.find(origin);
  if (known != queue.known.unmerged.end()) {
    status.unmerged = known->second;
  } else if (!origin.empty()) {
    auto asked = queue.run([origin](protocol::sync::Workspace& workspace) {
      return workspace.unmerged(origin, {}).has_value();
    });
    status.unmerged = co_await std::move(asked);
    queue.known.unmerged.emplace(origin, status.unmerged);
  }
  status.unmerged |= owed;
  self->frames_.send(number, status);
}

awaitable<void> Connection::answer_unpulled(std::shared_ptr<Connection> self,
                                            std::uint32_t number) {
  auto& queue = self->supervisor_.workspace();
  auto asked = queue.run([](protocol::sync::Workspace& workspace) { return workspace.unpulled(); });
  auto lost = co_await std::move(asked);
  queue.known.unmerged.clear();  // a result may have been taken: status asks again
  if (!lost) {
    self->fail(number, "unpulled_request", lost.error());
    co_return;
  }
  self->frames_.send(number, *lost);
}

awaitable<void> Connection::shut_down(std::shared_ptr<Connection> self, std::uint32_t number) {
  self->asked_shutdown_ = true;
  co_await self->supervisor_.shut_down();
  self->frames_.send(number, wire::Ended{});
  co_await hang_up(self);
}

awaitable<void> Connection::hang_up(std::shared_ptr<Connection> self) {
  auto flushed = co_await self->frames_.flush();
  (void)flushed;
  self->frames_.close();
}

}  // namespace agent::supervisor
