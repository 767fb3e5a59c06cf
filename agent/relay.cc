#include "agent/relay.h"

#include "agent/deadline.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr std::chrono::seconds kFlushLimit{10};

}  // namespace

Relay::Relay(os::executor ex) : changed_(ex), ex_(ex) {}

void Relay::start(Supervisors& supervisors, std::filesystem::path directory, wire::Hello hello,
                  OnFrame on_frame, OnGone on_gone) {
  on_frame_ = std::move(on_frame);
  on_gone_ = std::move(on_gone);
  os::spawn(ex_, "relay",
            [](std::shared_ptr<Relay> self, Supervisors& s, std::filesystem::path d,
               wire::Hello h) -> awaitable<void> {
              co_await self->run(s, std::move(d), std::move(h));
              // They hold the session, which holds this.
              self->on_frame_ = nullptr;
              self->on_gone_ = nullptr;
            }(shared_from_this(), supervisors, std::move(directory), std::move(hello)));
}

awaitable<void> Relay::run(Supervisors& supervisors, std::filesystem::path directory,
                           wire::Hello hello) {
  wire::Failure failure(wire::Errc::gone, "the sandbox's supervisor ended");
  auto opened = co_await supervisors.connect(std::move(directory), std::move(hello));
  if (opened) {
    frames_ = std::move(opened->frames);
    frames_->set_relay_credit(true);
    state_ = State::open;
    for (wire::Frame& frame : early_) {
      frames_->forward(std::move(frame));
    }
    early_.clear();
    early_bytes_ = early_control_bytes_ = 0;
    changed_.notify();
    while (true) {
      auto frame = co_await frames_->read();
      if (!frame || !*frame) {
        break;
      }
      co_await on_frame_(std::move(**frame));
    }
    frames_->close();
  } else {
    failure = opened.error();
  }
  state_ = State::gone;
  early_.clear();
  changed_.notify();
  if (!finishing_) {
    on_gone_(failure);
  }
}

void Relay::send(std::uint32_t request, const wire::Message& message) {
  forward({wire::FrameKind::control, request, wire::encode(message)});
}

void Relay::forward(wire::Frame frame) {
  if (state_ == State::open) {
    frames_->forward(std::move(frame));
  } else if (state_ == State::opening) {
    std::size_t size = frame.payload.size() + wire::kFrameHeaderBytes;
    early_bytes_ += size;
    early_control_bytes_ += wire::is_bulk(frame.kind) ? 0 : size;
    early_.push_back(std::move(frame));
  }
}

bool Relay::has_room(const wire::Frame& frame) const {
  bool open = state_ == State::open;
  std::size_t size = frame.payload.size() + wire::kFrameHeaderBytes;
  std::size_t queued = open ? frames_->queued_bytes() : early_bytes_;
  std::size_t control = open ? frames_->queued_control_bytes() : early_control_bytes_;
  return queued + size <= kMaxRelayBytes &&
         (wire::is_bulk(frame.kind) || control + size <= kMaxRelayControlBytes);
}

awaitable<bool> Relay::hang_up() {
  auto self = shared_from_this();
  if (!std::exchange(hung_up_, true)) {
    send(0, wire::Hangup{});
  }
  while (!ended_ && state_ != State::gone) {
    co_await changed_.wait();
  }
  co_return ended_;
}

void Relay::ended() {
  ended_ = true;
  changed_.notify();
}

awaitable<void> Relay::flush(std::shared_ptr<Relay> self) {
  auto flushed = co_await self->frames_->flush();
  (void)flushed;  // gone is as good: nothing is left to write
}

awaitable<void> Relay::finish() {
  auto self = shared_from_this();
  finishing_ = true;
  while (state_ == State::opening) {
    co_await changed_.wait();
  }
  if (state_ == State::gone) {
    co_return;
  }
  std::function<void()> cut = [self] { self->frames_->close(); };
  co_await within(ex_, kFlushLimit, flush(self), cut);
  frames_->close();
}

}  // namespace agent
