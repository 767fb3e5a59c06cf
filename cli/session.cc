#include "cli/session.h"

#include <deque>
#include <map>
#include <optional>

#include "cli/error.h"

namespace cli {
namespace wire = protocol::wire;
namespace os = protocol::os;

namespace {
constexpr std::chrono::seconds kFinishTime{2};
}

bool is_of_a_step(const wire::Failed& failed) {
  return failed.step != wire::message_name(wire::Signal{}) &&
         failed.step != wire::message_name(wire::Window{});
}

struct Session::State {
  State(os::executor ex, std::unique_ptr<os::ByteStream> stream, Trace& tracer,
        std::string peer_name)
      : executor(ex),
        frames(ex, std::move(stream)),
        trace(&tracer),
        peer(std::move(peer_name)),
        news(ex),
        beat(ex) {}

  void fail(std::string why) {
    if (!failed) {
      failed = std::move(why);
    }
    for (auto& [key, queue] : streams) {
      queue->cut(*failed);
    }
    news.notify();
    beat.notify();
  }

  std::shared_ptr<os::BulkQueue> stream(wire::FrameKind kind, std::uint32_t request) {
    auto& queue = streams[{request, kind}];
    if (!queue) {
      queue = std::make_shared<os::BulkQueue>(executor);
      if (failed) {
        queue->cut(*failed);
      }
    }
    return queue;
  }

  // Returns false when the peer must not be listened to any longer.
  bool take(wire::Frame frame) {
    if (wire::is_bulk(frame.kind)) {
      if (frame.request >= oldest_request) {
        stream(frame.kind, frame.request)->push(std::move(frame.payload));
      } else {
        frames.consumed(frame.kind, frame.request, frame.payload.size());
      }
      return true;
    }
    if (frame.kind != wire::FrameKind::control) {
      return true;  // a kind of a later version: nothing that was asked for
    }
    auto message = wire::decode(frame.payload);
    if (!message) {
      if (message.error().code == wire::Errc::unsupported) {
        return true;
      }
      fail("it sent something that cannot be read: " + message.error().what);
      return false;
    }
    trace->received(frame.request, *message);
    if (frame.request >= oldest_request) {
      watch_result(frame.request, *message);
    }
    inbox.push_back({frame.request, std::move(*message)});
    news.notify();
    return true;
  }

  // The pack of a result that `failed` follows will not come to its end.
  void watch_result(std::uint32_t request, const wire::Message& message) {
    if (std::holds_alternative<wire::Result>(message)) {
      stream(wire::FrameKind::result_pack, request);
    } else if (const auto* refusal = std::get_if<wire::Failed>(&message)) {
      auto found = streams.find({request, wire::FrameKind::result_pack});
      if (found != streams.end() && is_of_a_step(*refusal)) {
        found->second->cut(refusal->message);
      }
    }
  }

  static os::awaitable<void> pump(std::shared_ptr<State> self) {
    for (;;) {
      auto frame = co_await self->frames.read();
      if (!frame) {
        self->fail(frame.error().what);
        co_return;
      }
      if (!*frame) {
        self->fail("it closed the session");
        co_return;
      }
      if (!self->take(std::move(**frame))) {
        self->frames.close();
        co_return;
      }
    }
  }

  static os::awaitable<void> heartbeat(std::shared_ptr<State> self,
                                       std::chrono::milliseconds period) {
    while (!self->failed) {
      bool woken = co_await self->beat.wait_until(std::chrono::steady_clock::now() + period);
      if (!woken && !self->failed) {
        self->frames.send(0, wire::Heartbeat{});
      }
    }
  }

  os::executor executor;
  os::FrameStream frames;
  Trace* trace;
  std::string peer;
  os::Wakeup news;
  os::Wakeup beat;
  std::deque<Incoming> inbox;
  std::map<std::pair<std::uint32_t, wire::FrameKind>, std::shared_ptr<os::BulkQueue>> streams;
  std::optional<std::string> failed;
  std::uint32_t last_request = 0;
  std::uint32_t oldest_request = 0;  // streams of earlier ones are read and dropped
  bool beating = false;
};

Session::Session(os::executor executor, std::unique_ptr<os::ByteStream> stream, Trace& trace,
                 std::string peer)
    : state_(std::make_shared<State>(executor, std::move(stream), trace, std::move(peer))) {
  os::spawn(executor, "session reader", State::pump(state_));
}

Session::~Session() { close(); }

std::uint32_t Session::new_request() { return ++state_->last_request; }

void Session::send(std::uint32_t request, const wire::Message& message) {
  state_->trace->sent(request, message);
  state_->frames.send(request, message);
}

os::awaitable<std::optional<Session::Incoming>> Session::next_until(
    std::chrono::steady_clock::time_point deadline) {
  auto state = state_;
  while (state->inbox.empty() && !state->failed) {
    bool woken = co_await state->news.wait_until(deadline);
    if (!woken && state->inbox.empty() && !state->failed) {
      co_return std::nullopt;
    }
  }
  std::optional<Incoming> incoming(co_await next());
  co_return incoming;
}

os::awaitable<Session::Incoming> Session::next() {
  auto state = state_;
  while (state->inbox.empty() && !state->failed) {
    co_await state->news.wait();
  }
  if (state->inbox.empty()) {
    throw UserError(
        "box", "lost the connection to " + state->peer + ": " + *state->failed,
        "What the command had changed there is kept; `sandbox pull` brings it once it has ended.");
  }
  Incoming incoming = std::move(state->inbox.front());
  state->inbox.pop_front();
  co_return incoming;
}

std::shared_ptr<os::BulkQueue> Session::bulk(wire::FrameKind kind, std::uint32_t request) {
  return state_->stream(kind, request);
}

void Session::drop(std::uint32_t request) {
  state_->frames.drop(request);
  auto& streams = state_->streams;
  for (auto it = streams.begin(); it != streams.end();) {
    if (it->first.first == request) {
      it->second->cut("it is not wanted any more");
      it = streams.erase(it);
    } else {
      ++it;
    }
  }
  if (request >= state_->oldest_request) {
    state_->oldest_request = request + 1;
  }
}

void Session::start_heartbeat(std::chrono::seconds ttl) {
  if (state_->beating || ttl.count() <= 0) {
    return;
  }
  state_->beating = true;
  os::spawn(state_->executor, "heartbeat",
            State::heartbeat(state_, std::chrono::milliseconds(ttl) / 3));
}

os::FrameStream& Session::frames() { return state_->frames; }
const std::string& Session::peer() const { return state_->peer; }
bool Session::is_open() const { return !state_->failed && state_->frames.is_open(); }

os::awaitable<void> Session::finish() {
  auto state = state_;
  auto finishing = [](std::shared_ptr<State> self) -> os::awaitable<void> {
    auto finished = co_await self->frames.finish();
    static_cast<void>(finished);  // the peer learns less, and nothing depends on it
    self->fail("we closed the session");
  };
  os::spawn(state->executor, "session end", finishing(state));
  auto deadline = std::chrono::steady_clock::now() + kFinishTime;
  while (!state->failed && std::chrono::steady_clock::now() < deadline) {
    co_await state->news.wait_until(deadline);
  }
  close();
}

void Session::close() noexcept {
  state_->fail("we closed the session");
  state_->frames.close();
}

}  // namespace cli
