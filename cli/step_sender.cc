#include "cli/step_sender.h"

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "protocol/os/offload.h"

namespace cli {
namespace asio = boost::asio;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

// The pack's maker, on a pool thread beside the sending.
struct PackWriter {
  explicit PackWriter(os::executor executor) : ended(executor) {}
  bool done = false;
  wire::result<void> outcome;
  os::Wakeup ended;
};

os::awaitable<void> write_pack(asio::thread_pool* pool,
                               std::shared_ptr<protocol::sync::Origin> origin,
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

bool fits(const wire::Message& message) {
  std::string_view name = wire::message_name(message);
  return wire::encode(message).compare(0, name.size(), name) == 0;
}

StepSender::StepSender(const os::executor& executor, asio::thread_pool& pool,
                       std::shared_ptr<Session> session, Steps steps)
    : executor_(executor),
      pool_(pool),
      session_(std::move(session)),
      steps_(std::move(steps)),
      ended_(executor) {}

std::shared_ptr<StepSender> StepSender::begin(const os::executor& executor, asio::thread_pool& pool,
                                              std::shared_ptr<Session> session, Steps steps) {
  std::shared_ptr<StepSender> sender(
      new StepSender(executor, pool, std::move(session), std::move(steps)));
  os::spawn(executor, "send steps", send(sender));
  return sender;
}

void StepSender::stop() {
  stopped_ = true;
  session_->frames().drop(steps_.request);
}

os::awaitable<void> StepSender::end() {
  stop();
  while (!done_) {
    co_await ended_.wait();
  }
}

os::awaitable<bool> StepSender::send_pack(std::shared_ptr<StepSender> self) {
  auto pipe = os::make_pipe();
  if (!pipe) {
    self->failure_ = pipe.error().what;
    co_return false;
  }
  auto writer = std::make_shared<PackWriter>(self->executor_);
  os::spawn(self->executor_, "pack",
            write_pack(&self->pool_, self->steps_.origin, self->steps_.prepared, self->steps_.haves,
                       std::move(pipe->write), writer));
  {
    asio::posix::stream_descriptor reader(self->executor_, pipe->read.release());
    std::vector<char> buffer(wire::kMaxBulkBytes);
    for (;;) {
      boost::system::error_code error;
      std::size_t got = co_await reader.async_read_some(
          asio::buffer(buffer), asio::redirect_error(asio::use_awaitable, error));
      if (error || got == 0 || self->stopped_) {
        break;
      }
      auto queued = co_await self->session_->frames().send_bulk(
          wire::FrameKind::pack, self->steps_.request, std::string_view(buffer.data(), got));
      if (!queued) {
        self->stopped_ = true;
        break;
      }
    }
  }  // closing the pipe ends a writer that is still at it
  while (!writer->done) {
    co_await writer->ended.wait();
  }
  bool sent = writer->outcome.has_value();
  if (!sent && !self->stopped_) {
    self->failure_ = writer->outcome.error().what;
  }
  co_return sent;
}

// What is done in the sandbox once the work tree is there.
void StepSender::send_work() {
  if (steps_.exec) {
    session_->send(steps_.request, *steps_.exec);
  }
  if (steps_.release && (!steps_.exec || !steps_.exec->detach)) {
    session_->send(steps_.request, wire::LockReleased{});
  }
}

os::awaitable<void> StepSender::send(std::shared_ptr<StepSender> self) {
  if (self->steps_.sync) {
    co_await send_all(self);
  } else if (!self->stopped_) {
    self->send_work();
  }
  self->done_ = true;
  self->ended_.notify();
}

os::awaitable<void> StepSender::send_all(std::shared_ptr<StepSender> self) {
  const Steps& steps = self->steps_;
  Session& session = *self->session_;
  wire::SyncStart start = steps.prepared->snapshot.sync;
  start.base = steps.haves.empty() ? std::string() : steps.haves.front();
  start.merged = steps.prepared->merged;
  session.send(steps.request, start);

  bool sent = false;
  if (fits(start)) {
    sent = co_await send_pack(self);
  } else {
    self->failure_ = "its references and the ignore rules outside of it are more than 1 MiB";
  }
  if (!self->stopped_ && sent) {
    session.frames().end_bulk(wire::FrameKind::pack, steps.request);
    // Control frames overtake bulk ones: the steps that follow must not overtake the pack.
    auto flushed = co_await session.frames().flush();
    if (flushed && !self->stopped_) {
      session.send(steps.request, wire::SyncEnd{});
      self->send_work();
    }
  } else if (!self->stopped_) {
    session.close();  // the pack stopped in the middle: the agent must not wait for its end
  }
}

}  // namespace cli
