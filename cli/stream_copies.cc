#include "cli/stream_copies.h"

#include <utility>

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

struct StreamCopies::State {
  State(const os::executor& ex, Unwritable tell)
      : executor(ex), unwritable(std::move(tell)), ended(ex) {}
  os::executor executor;
  Unwritable unwritable;
  int copying = 0;
  os::Wakeup ended;

  static os::awaitable<void> copy_out(std::shared_ptr<State> self, std::shared_ptr<Session> session,
                                      std::uint32_t request, wire::FrameKind kind,
                                      CommandStreams* streams) {
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
        if (!writable) {
          self->unwritable(kind, written.error());
        }
      }
      session->frames().consumed(kind, request, size);
    }
    --self->copying;
    self->ended.notify();
  }

  static os::awaitable<void> copy_in(std::shared_ptr<State> self, std::shared_ptr<Session> session,
                                     std::uint32_t request, CommandStreams* streams) {
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

StreamCopies::StreamCopies(const os::executor& executor, Unwritable unwritable)
    : state_(std::make_shared<State>(executor, std::move(unwritable))) {}

void StreamCopies::begin(const std::shared_ptr<Session>& session, std::uint32_t request,
                         CommandStreams& streams, bool with_input) {
  state_->copying = with_input ? 3 : 2;
  os::spawn(state_->executor, "stdout",
            State::copy_out(state_, session, request, wire::FrameKind::output, &streams));
  os::spawn(state_->executor, "stderr",
            State::copy_out(state_, session, request, wire::FrameKind::error, &streams));
  if (with_input) {
    os::spawn(state_->executor, "stdin", State::copy_in(state_, session, request, &streams));
  }
}

os::awaitable<void> StreamCopies::finished() {
  auto state = state_;
  while (state->copying > 0) {
    co_await state->ended.wait();
  }
}

}  // namespace cli
