#include "protocol/os/frame_stream.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <unordered_map>
#include <utility>

#include "protocol/os/wakeup.h"
#include "protocol/wire/limits.h"

namespace protocol::os {

using wire::Errc;
using wire::Failure;
using wire::Frame;
using wire::FrameKind;

namespace {

constexpr std::size_t kReadBytes = 64 * 1024;
constexpr std::size_t kMaxWriteBytes = 64 * 1024;  // control that goes out in one write
constexpr std::size_t kQueuedPerStream = 2 * wire::kMaxBulkBytes;
constexpr std::size_t kMaxStreams = 4096;                     // of one peer, at a time
constexpr std::uint32_t kCreditStep = wire::kFullCredit / 4;  // less is not worth a frame

std::uint32_t initial_credit(FrameKind kind) {
  return kind == FrameKind::pack ? wire::kInitialPackCredit : wire::kInitialStreamCredit;
}

// What is in flight for a person at a terminal waits for nothing.
bool is_urgent(const Frame& frame) {
  return frame.kind == FrameKind::credit || frame.payload.starts_with("signal") ||
         frame.payload.starts_with("window");
}

struct StreamId {
  std::uint32_t request;
  FrameKind kind;
  auto operator<=>(const StreamId&) const = default;
};

struct Outgoing {
  std::uint64_t credit = 0;
  std::size_t queued = 0;  // payload bytes
};

struct Incoming {
  std::uint64_t granted = 0;     // what the peer may still send
  std::uint64_t unconsumed = 0;  // what came and was not dealt with
};

struct Item {
  std::uint64_t sequence;
  StreamId id;
  std::size_t payload_bytes;  // of a stream, to be taken off its `queued`
  bool barrier;               // control of this request has to stay behind it
  std::string bytes;
};

}  // namespace

struct FrameStream::State {
  State(executor e, std::unique_ptr<ByteStream> s) : stream(std::move(s)), changed(std::move(e)) {}

  std::unique_ptr<ByteStream> stream;
  Wakeup changed;  // queues, credit, broken: everybody looks again

  wire::FrameDecoder decoder;
  std::uint64_t undecoded = 0;
  std::string buffer;
  bool relay = false;
  std::map<StreamId, Incoming> incoming;

  std::deque<Item> control, bulk;
  std::unordered_map<std::uint32_t, int> barriers;  // per request, in `bulk`
  std::map<StreamId, Outgoing> outgoing;
  std::map<std::uint32_t, std::uint64_t> drops;  // how often a request with waiting calls dropped
  std::uint64_t drop_count = 0;
  std::uint64_t next_sequence = 0;
  std::uint64_t writing = UINT64_MAX;  // lowest sequence being written
  std::size_t queued = 0, queued_control = 0;
  bool broken = false, ending = false;

  void fail() noexcept {
    if (broken) return;
    broken = true;
    control.clear();
    bulk.clear();
    barriers.clear();
    queued = queued_control = 0;
    stream->close();
    changed.notify();
  }

  // ---- writing -------------------------------------------------------------------------------

  void push(Frame frame) {
    if (broken || ending) return;
    bool is_bulk = wire::is_bulk(frame.kind);
    auto held = barriers.find(frame.request);
    bool behind = !is_bulk && held != barriers.end() && !is_urgent(frame);
    Item item{next_sequence++,
              {frame.request, frame.kind},
              is_bulk ? frame.payload.size() : 0,
              behind || (is_bulk && frame.payload.empty()),
              {}};
    wire::append_frame(item.bytes, frame.kind, frame.request, frame.payload);
    queued += item.bytes.size();
    if (!is_bulk) queued_control += item.bytes.size();
    if (queued_control > wire::kMaxQueuedControlBytes) return fail();
    if (item.barrier) ++barriers[frame.request];
    (is_bulk || behind ? bulk : control).push_back(std::move(item));
    changed.notify();
  }

  Item take(std::deque<Item>& queue) {
    Item item = std::move(queue.front());
    queue.pop_front();
    writing = std::min(writing, item.sequence);
    if (!wire::is_bulk(item.id.kind)) queued_control -= item.bytes.size();
    if (item.barrier) {
      auto held = barriers.find(item.id.request);
      if (--held->second == 0) barriers.erase(held);
    }
    if (item.payload_bytes > 0) {
      auto stream_of = outgoing.find(item.id);
      if (stream_of != outgoing.end())
        stream_of->second.queued -= std::min(stream_of->second.queued, item.payload_bytes);
    }
    return item;
  }

  static awaitable<void> write_all(std::shared_ptr<State> self) {
    while (!self->broken) {
      if (self->control.empty() && self->bulk.empty()) {
        co_await self->changed.wait();
        continue;
      }
      std::string bytes;
      while (!self->control.empty() && bytes.size() < kMaxWriteBytes)
        bytes += self->take(self->control).bytes;
      if (self->control.empty() && !self->bulk.empty()) bytes += self->take(self->bulk).bytes;
      std::size_t size = bytes.size();
      auto written = co_await self->stream->write(std::as_bytes(std::span(bytes)));
      if (self->broken) co_return;
      if (!written) co_return self->fail();
      self->queued -= size;
      self->writing = UINT64_MAX;
      self->changed.notify();
    }
  }

  bool is_written(std::uint64_t mark) const {
    return (control.empty() || control.front().sequence >= mark) &&
           (bulk.empty() || bulk.front().sequence >= mark) && writing >= mark;
  }

  static awaitable<result<void>> flush(std::shared_ptr<State> self) {
    std::uint64_t mark = self->next_sequence;
    while (!self->broken && !self->is_written(mark)) co_await self->changed.wait();
    if (self->broken) co_return Failure(Errc::gone, "the peer");
    co_return result<void>();
  }

  static awaitable<result<void>> finish(std::shared_ptr<State> self) {
    self->ending = true;
    auto flushed = co_await flush(self);
    if (!flushed) co_return flushed;
    auto ended = co_await self->stream->shutdown_write();
    co_return ended;
  }

  static awaitable<void> drained(std::shared_ptr<State> self, std::size_t bytes) {
    while (!self->broken && self->queued > bytes) co_await self->changed.wait();
  }

  Outgoing& out(StreamId id) {
    auto [place, fresh] = outgoing.try_emplace(id);
    if (fresh) place->second.credit = initial_credit(id.kind);
    return place->second;
  }

  // How the wait for a place in the queue ended; `started` is drop_count when the call began.
  result<void> state_of(std::uint32_t request, std::uint64_t started) const {
    if (broken || ending) return Failure(Errc::gone, "the peer");
    auto dropped = drops.find(request);
    if (dropped != drops.end() && dropped->second > started)
      return Failure(Errc::cancelled, "the request");
    return {};
  }

  static awaitable<result<void>> wait_sendable(std::shared_ptr<State> self, StreamId id,
                                               std::uint64_t started) {
    for (;;) {
      auto state = self->state_of(id.request, started);
      if (!state) co_return state;
      Outgoing& stream_of = self->out(id);
      if (stream_of.credit > 0 && stream_of.queued < kQueuedPerStream) co_return result<void>();
      co_await self->changed.wait();
    }
  }

  static awaitable<result<void>> sendable(std::shared_ptr<State> self, StreamId id) {
    auto state = co_await wait_sendable(self, id, self->drop_count);
    co_return state;
  }

  static awaitable<result<void>> send_bulk(std::shared_ptr<State> self, StreamId id,
                                           std::string_view bytes) {
    std::uint64_t started = self->drop_count;
    while (!bytes.empty()) {
      auto state = co_await wait_sendable(self, id, started);
      if (!state) co_return state;
      Outgoing& stream_of = self->out(id);
      std::size_t size =
          std::min({bytes.size(), wire::kMaxBulkBytes, static_cast<std::size_t>(stream_of.credit)});
      stream_of.credit -= size;
      stream_of.queued += size;
      self->push(Frame{id.kind, id.request, std::string(bytes.substr(0, size))});
      bytes.remove_prefix(size);
    }
    co_return self->state_of(id.request, started);
  }

  // ---- reading -------------------------------------------------------------------------------

  // True: the frame is for the caller.
  result<bool> account(const Frame& frame) {
    if (relay) return true;
    if (frame.kind == FrameKind::credit) {
      auto credit = wire::decode_credit(frame.payload);
      if (!credit) return credit.error();
      // Only streams that we send on: late credit of an ended one makes no new entry.
      auto stream_of = outgoing.find({frame.request, credit->stream});
      if (stream_of != outgoing.end()) {
        stream_of->second.credit =
            std::min<std::uint64_t>(stream_of->second.credit + credit->bytes, UINT32_MAX);
        changed.notify();
      }
      return false;
    }
    if (!wire::is_bulk(frame.kind)) return true;
    StreamId id{frame.request, frame.kind};
    if (frame.payload.empty()) {
      incoming.erase(id);
      return true;
    }
    auto [place, fresh] = incoming.try_emplace(id);
    Incoming& stream_of = place->second;
    if (fresh) {
      if (incoming.size() > kMaxStreams)
        return Failure(Errc::too_large, "too many streams at once");
      stream_of.granted = initial_credit(id.kind);
    }
    stream_of.granted -= std::min<std::uint64_t>(stream_of.granted, frame.payload.size());
    stream_of.unconsumed += frame.payload.size();
    if (stream_of.unconsumed > wire::kFullCredit)
      return Failure(Errc::too_large, "the peer sent more than it had credit for");
    return true;
  }

  static awaitable<result<std::optional<Frame>>> read(std::shared_ptr<State> self) {
    for (;;) {
      if (self->broken) co_return Failure(Errc::gone, "the peer");
      auto next = self->decoder.next();
      if (!next) co_return next.error();
      if (*next) {
        Frame frame = std::move(**next);
        self->undecoded -= std::min<std::uint64_t>(self->undecoded,
                                                   wire::kFrameHeaderBytes + frame.payload.size());
        auto deliver = self->account(frame);
        if (!deliver) co_return deliver.error();
        if (*deliver) co_return std::optional<Frame>(std::move(frame));
        continue;
      }
      self->buffer.resize(kReadBytes);
      auto count =
          co_await self->stream->read_some(std::as_writable_bytes(std::span(self->buffer)));
      if (self->broken) co_return Failure(Errc::gone, "the peer");
      if (!count) co_return count.error();
      if (*count == 0) {
        if (self->undecoded > 0)
          co_return Failure(Errc::gone, "the peer, in the middle of a frame");
        co_return std::optional<Frame>();
      }
      self->undecoded += *count;
      self->decoder.feed(std::as_bytes(std::span(self->buffer.data(), *count)));
    }
  }

  void consumed(StreamId id, std::size_t bytes) {
    auto place = incoming.find(id);
    if (place == incoming.end() || relay || broken) return;
    Incoming& stream_of = place->second;
    stream_of.unconsumed -= std::min<std::uint64_t>(stream_of.unconsumed, bytes);
    std::uint64_t room =
        wire::kFullCredit -
        std::min<std::uint64_t>(wire::kFullCredit, stream_of.granted + stream_of.unconsumed);
    if (room < kCreditStep) return;
    stream_of.granted += room;
    push(Frame{FrameKind::credit, id.request,
               wire::encode_credit({id.kind, static_cast<std::uint32_t>(room)})});
  }

  void drop(std::uint32_t request) {
    auto first = outgoing.lower_bound(StreamId{request, FrameKind{0}});
    auto last = first;
    while (last != outgoing.end() && last->first.request == request) ++last;
    outgoing.erase(first, last);
    // What has come and was not yet consumed still counts: without it the peer, out of credit,
    // would wait for ever.
    std::erase_if(incoming, [request](const auto& each) {
      return each.first.request == request && each.second.unconsumed == 0;
    });
    drops[request] = ++drop_count;
    if (drops.size() > kMaxStreams) drops.erase(drops.begin());
    changed.notify();
  }
};

FrameStream::FrameStream(executor ex, std::unique_ptr<ByteStream> stream)
    : state_(std::make_shared<State>(ex, std::move(stream))) {
  spawn(ex, "frame writer", State::write_all(state_));
}

FrameStream::~FrameStream() { state_->fail(); }

awaitable<result<std::optional<Frame>>> FrameStream::read() { return State::read(state_); }

void FrameStream::send(std::uint32_t request, const wire::Message& message) {
  state_->push(Frame{FrameKind::control, request, wire::encode(message)});
}

void FrameStream::forward(Frame frame) { state_->push(std::move(frame)); }

awaitable<result<void>> FrameStream::send_bulk(FrameKind kind, std::uint32_t request,
                                               std::string_view bytes) {
  return State::send_bulk(state_, StreamId{request, kind}, bytes);
}

awaitable<result<void>> FrameStream::sendable(FrameKind kind, std::uint32_t request) {
  return State::sendable(state_, StreamId{request, kind});
}

void FrameStream::end_bulk(FrameKind kind, std::uint32_t request) {
  state_->push(Frame{kind, request, {}});
  state_->outgoing.erase(StreamId{request, kind});
}

void FrameStream::consumed(FrameKind kind, std::uint32_t request, std::size_t bytes) {
  state_->consumed(StreamId{request, kind}, bytes);
}

void FrameStream::drop(std::uint32_t request) { state_->drop(request); }
void FrameStream::set_relay_credit(bool relay) { state_->relay = relay; }
awaitable<result<void>> FrameStream::flush() { return State::flush(state_); }
awaitable<result<void>> FrameStream::finish() { return State::finish(state_); }
void FrameStream::close() noexcept { state_->fail(); }
bool FrameStream::is_open() const noexcept { return !state_->broken; }
std::size_t FrameStream::queued_bytes() const noexcept { return state_->queued; }
std::size_t FrameStream::queued_control_bytes() const noexcept { return state_->queued_control; }
awaitable<void> FrameStream::drained(std::size_t bytes) { return State::drained(state_, bytes); }

}  // namespace protocol::os
