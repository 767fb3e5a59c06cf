#include "protocol/os/frame_stream.h"

#include "protocol/os/wakeup.h"
#include "tests/support/catch.h"
#include "tests/support/loop.h"
#include "tests/support/memory_stream.h"

using namespace protocol;
using os::FrameStream;
using test::MemoryStream;
using wire::Errc;
using wire::Frame;
using wire::FrameKind;

namespace {

// A stream under test, and the raw bytes at its other end.
struct Ends {
  test::Loop loop;
  std::unique_ptr<FrameStream> stream;
  std::unique_ptr<MemoryStream> peer;
  std::shared_ptr<MemoryStream::Control> ours;
  MemoryStream* raw = nullptr;

  explicit Ends(std::size_t capacity = 64 * 1024) {
    auto [left, right] = MemoryStream::pair(loop.executor(), capacity);
    ours = left->control();
    raw = left.get();
    stream = std::make_unique<FrameStream>(loop.executor(), std::move(left));
    peer = std::move(right);
  }
  ~Ends() {
    stream.reset();
    peer.reset();
    loop.settle();
  }

  void put(std::string bytes) {
    auto written = loop.run(peer->write(std::as_bytes(std::span(bytes))));
    REQUIRE(written);
  }
};

// Two frame streams, back to back.
struct Both {
  test::Loop loop;
  std::unique_ptr<FrameStream> a, b;
  MemoryStream *raw_a = nullptr, *raw_b = nullptr;
  explicit Both(std::size_t capacity = 64 * 1024) {
    auto [left, right] = MemoryStream::pair(loop.executor(), capacity);
    raw_a = left.get();
    raw_b = right.get();
    a = std::make_unique<FrameStream>(loop.executor(), std::move(left));
    b = std::make_unique<FrameStream>(loop.executor(), std::move(right));
  }
  ~Both() {
    a.reset();
    b.reset();
    loop.settle();
  }
  Frame read_b() {
    auto frame = loop.run(b->read());
    REQUIRE(frame);
    REQUIRE(*frame);
    return **frame;
  }
};

std::string name_of(const Frame& frame) { return frame.payload.substr(0, frame.payload.find(' ')); }

// What a coroutine came to, once it has.
template <class T>
struct Outcome {
  std::optional<T> value;
  static os::awaitable<void> of(os::awaitable<T> work, std::shared_ptr<Outcome> out) {
    out->value.emplace(co_await std::move(work));
  }
};
template <class T>
std::shared_ptr<Outcome<T>> watch(test::Loop& loop, os::awaitable<T> work) {
  auto out = std::make_shared<Outcome<T>>();
  loop.start(Outcome<T>::of(std::move(work), out));
  loop.settle();
  return out;
}

os::awaitable<void> keep_reading(FrameStream& stream, std::vector<Frame>& frames) {
  for (;;) {
    auto frame = co_await stream.read();
    if (!frame || !*frame) co_return;
    frames.push_back(std::move(**frame));
  }
}

}  // namespace

TEST_CASE("a frame written one byte at a time arrives once, whole") {
  Both both;
  both.raw_b->control()->trickle = 1;
  both.a->send(7, wire::Signal{"INT"});
  both.a->send(8, wire::Heartbeat{});
  Frame first = both.read_b();
  CHECK(first.request == 7);
  CHECK(name_of(first) == "signal");
  Frame second = both.read_b();
  CHECK(second.request == 8);
  CHECK(name_of(second) == "heartbeat");
}

TEST_CASE("an ended stream is a clean end only between frames") {
  SECTION("between frames") {
    Ends ends;
    ends.put(wire::encode(Frame{FrameKind::output, 1, "x"}));
    REQUIRE(ends.loop.run(ends.peer->shutdown_write()));
    REQUIRE(ends.loop.run(ends.stream->read()).value()->payload == "x");
    auto end = ends.loop.run(ends.stream->read());
    REQUIRE(end);
    CHECK_FALSE(end->has_value());
  }
  SECTION("within a frame") {
    std::string bytes = wire::encode(Frame{FrameKind::output, 1, "xyz"});
    for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
      Ends ends;
      ends.put(bytes.substr(0, cut));
      REQUIRE(ends.loop.run(ends.peer->shutdown_write()));
      auto end = ends.loop.run(ends.stream->read());
      REQUIRE_FALSE(end);
      CHECK(end.error().code == Errc::gone);
    }
  }
}

TEST_CASE("a frame over its limit is an error, and so is every read after it") {
  Ends ends;
  ends.put(std::string("\xff\xff\xff\xff\x12\0\0\0\0", 9));
  for (int i = 0; i < 2; ++i) {
    auto frame = ends.loop.run(ends.stream->read());
    REQUIRE_FALSE(frame);
    CHECK(frame.error().code == Errc::too_large);
  }
}

TEST_CASE("control overtakes queued bulk by at most one frame in flight") {
  Both both(1000);  // so little that the first bulk frame cannot leave at once
  std::string bytes(wire::kMaxBulkBytes * 2, 'x');
  auto sent = watch(both.loop, both.a->send_bulk(FrameKind::output, 1, bytes));
  both.a->send(2, wire::Heartbeat{});
  int bulk_before = 0;
  for (;;) {
    Frame frame = both.read_b();
    if (frame.kind == FrameKind::control) break;
    ++bulk_before;
  }
  CHECK(bulk_before <= 1);
  both.read_b();
  REQUIRE(sent->value);
  CHECK(*sent->value);
}

TEST_CASE("control of a request stays behind the end of its own stream") {
  Both both(1000);
  std::string bytes(wire::kMaxBulkBytes + 5, 'x');
  auto sent = watch(both.loop, both.a->send_bulk(FrameKind::output, 1, bytes));
  both.a->end_bulk(FrameKind::output, 1);
  both.a->send(1, wire::Exited{});
  both.a->send(1, wire::Released{});
  both.a->send(2, wire::Heartbeat{});
  both.a->send(1, wire::Signal{"INT"});
  std::vector<std::string> order;
  while (order.empty() || order.back() != "released") {
    Frame frame = both.read_b();
    order.push_back(frame.kind == FrameKind::control ? name_of(frame)
                    : frame.payload.empty()          ? "end"
                                                     : "output");
  }
  CHECK(order == std::vector<std::string>{"output", "heartbeat", "signal", "output", "end",
                                          "exited", "released"});
}

TEST_CASE("a stream stops at its credit and goes on when the reader has consumed") {
  Both both;
  std::string bytes(3 * wire::kInitialStreamCredit, 'x');
  auto sent = watch(both.loop, both.a->send_bulk(FrameKind::output, 1, bytes));
  std::vector<Frame> at_a, at_b;
  both.loop.start(keep_reading(*both.a, at_a));
  both.loop.start(keep_reading(*both.b, at_b));
  both.loop.settle();
  auto received = [&] {
    std::size_t size = 0;
    for (const Frame& frame : at_b) size += frame.payload.size();
    return size;
  };
  CHECK(received() == wire::kInitialStreamCredit);
  CHECK_FALSE(sent->value);
  both.b->consumed(FrameKind::output, 1, wire::kInitialStreamCredit);
  both.loop.settle();
  CHECK(received() == bytes.size());
  REQUIRE(sent->value);
  CHECK(*sent->value);
  CHECK(at_a.empty());  // credit is not delivered
}

TEST_CASE("streams have their credit apart, so a stalled one does not hold another") {
  Both both;
  std::string bytes(2 * wire::kInitialStreamCredit, 'x');
  auto stalled = watch(both.loop, both.a->send_bulk(FrameKind::output, 1, bytes));
  auto other = watch(both.loop, both.a->send_bulk(FrameKind::error, 1, "hello"));
  std::vector<Frame> at_b;
  both.loop.start(keep_reading(*both.b, at_b));
  both.loop.settle();
  CHECK_FALSE(stalled->value);
  REQUIRE(other->value);
  CHECK(std::any_of(at_b.begin(), at_b.end(),
                    [](const Frame& f) { return f.kind == FrameKind::error; }));
}

TEST_CASE("two busy streams share the line evenly") {
  Both both(1000);
  std::string bytes(wire::kInitialStreamCredit, 'x');
  auto one = watch(both.loop, both.a->send_bulk(FrameKind::output, 1, bytes));
  auto two = watch(both.loop, both.a->send_bulk(FrameKind::error, 1, bytes));
  int first_four[2] = {};
  for (int i = 0; i < 4; ++i) ++first_four[both.read_b().kind == FrameKind::error];
  CHECK(first_four[0] == 2);
  CHECK(first_four[1] == 2);
}

TEST_CASE("50 MB pass with the reader's memory bounded by its credit") {
  Both both;
  std::string bytes(50 << 20, 'x');
  auto sent = watch(both.loop, both.a->send_bulk(FrameKind::output, 1, bytes));
  std::vector<Frame> at_a;
  both.loop.start(keep_reading(*both.a, at_a));
  std::size_t received = 0, credits = 0;
  while (received < bytes.size()) {
    Frame frame = both.read_b();
    received += frame.payload.size();
    both.b->consumed(FrameKind::output, 1, frame.payload.size());
    credits = std::max(credits, both.a->queued_bytes());
  }
  CHECK(credits <= 3 * (wire::kMaxBulkBytes + wire::kFrameHeaderBytes));
}

TEST_CASE("a peer that sends beyond all credit is too large") {
  Ends ends;
  std::string frame = wire::encode(Frame{FrameKind::input, 1, std::string(32 * 1024, 'x')});
  ends.loop.start([](MemoryStream& peer, std::string f) -> os::awaitable<void> {
    for (std::size_t sent = 0; sent <= wire::kFullCredit + f.size(); sent += 32 * 1024)
      if (auto written = co_await peer.write(std::as_bytes(std::span(f))); !written) co_return;
  }(*ends.peer, frame));
  std::size_t received = 0;
  for (;;) {
    auto next = ends.loop.run(ends.stream->read());
    if (!next) {
      CHECK(next.error().code == Errc::too_large);
      break;
    }
    received += (*next)->payload.size();
    REQUIRE(received <= wire::kFullCredit);
  }
}

TEST_CASE("credit for a stream that is not sent on is ignored, malformed credit is bad input") {
  Ends ends;
  ends.put(wire::encode(
      Frame{FrameKind::credit, 9, wire::encode_credit({FrameKind::output, wire::kFullCredit})}));
  ends.put(wire::encode(Frame{FrameKind::credit, 9, "x"}));  // malformed
  auto frame = ends.loop.run(ends.stream->read());
  REQUIRE_FALSE(frame);
  CHECK(frame.error().code == Errc::bad_input);
}

TEST_CASE("a relay gets credit frames and hands them on") {
  Both both;
  both.b->set_relay_credit(true);
  both.a->forward(Frame{FrameKind::credit, 3, wire::encode_credit({FrameKind::output, 1000})});
  Frame frame = both.read_b();
  CHECK(frame.kind == FrameKind::credit);
  CHECK(frame.request == 3);
}

TEST_CASE("dropping a request ends its waiting calls and no others") {
  Both both;
  std::string bytes(2 * wire::kInitialStreamCredit, 'x');
  auto one = watch(both.loop, both.a->send_bulk(FrameKind::output, 1, bytes));
  auto two = watch(both.loop, both.a->send_bulk(FrameKind::output, 2, bytes));
  both.a->drop(1);
  both.loop.settle();
  REQUIRE(one->value);
  CHECK(one->value->error().code == Errc::cancelled);
  CHECK_FALSE(two->value);
}

TEST_CASE("closing ends every waiting call with gone") {
  Both both(1000);
  std::string bytes(2 * wire::kInitialStreamCredit, 'x');
  auto bulk = watch(both.loop, both.a->send_bulk(FrameKind::output, 1, bytes));
  auto read = watch(both.loop, both.a->read());
  auto flush = watch(both.loop, both.a->flush());
  auto drained = watch(both.loop, both.a->sendable(FrameKind::output, 1));
  SECTION("by close") { both.a->close(); }
  SECTION("by the destructor") { both.a.reset(); }
  SECTION("by a broken link") {
    both.raw_b->control()->break_after = 10;
    auto frame = both.loop.run(both.b->read());
    CHECK_FALSE(frame);
  }
  both.loop.settle();
  REQUIRE(bulk->value);
  CHECK(bulk->value->error().code == Errc::gone);
  REQUIRE(read->value);
  CHECK(read->value->error().code == Errc::gone);
  REQUIRE(flush->value);
  CHECK(flush->value->error().code == Errc::gone);
  REQUIRE(drained->value);
  CHECK_FALSE(*drained->value);
  if (both.a) CHECK_FALSE(both.a->is_open());
}

TEST_CASE("a stream may be destroyed with its loop while coroutines wait on it") {
  auto both = std::make_unique<Both>(1000);
  std::string bytes(wire::kInitialStreamCredit * 2, 'x');
  auto bulk = watch(both->loop, both->a->send_bulk(FrameKind::output, 1, bytes));
  auto read = watch(both->loop, both->a->read());
  CHECK_FALSE(bulk->value);
  CHECK_FALSE(read->value);
  // Only the sanitizers can tell whether this is right.
  both.reset();
}

TEST_CASE("a peer that never reads cannot make control pile up") {
  Both both(1000);
  std::string text(64 * 1024, 'x');
  for (int i = 0; i < 100 && both.a->is_open(); ++i) both.a->send(1, wire::Notice{text});
  CHECK_FALSE(both.a->is_open());
  CHECK(both.a->queued_bytes() == 0);
}

TEST_CASE("flush returns when what was queued is written, and finish ends the direction after it") {
  Both both(1000);
  auto sent = watch(both.loop, both.a->send_bulk(FrameKind::output, 1, std::string(30000, 'x')));
  both.a->end_bulk(FrameKind::output, 1);
  auto flushed = watch(both.loop, both.a->flush());
  CHECK_FALSE(flushed->value);
  auto finished = watch(both.loop, both.a->finish());
  both.read_b();
  both.read_b();
  auto end = both.loop.run(both.b->read());
  REQUIRE(end);
  CHECK_FALSE(end->has_value());
  both.loop.settle();
  REQUIRE(flushed->value);
  CHECK(*flushed->value);
  REQUIRE(finished->value);
  CHECK(*finished->value);
}

TEST_CASE("drained waits until the queue is short enough") {
  Both both(1000);
  for (int i = 0; i < 10; ++i)
    both.a->forward(Frame{FrameKind::output, 1, std::string(10000, 'x')});
  auto drained = watch(both.loop, [](FrameStream& s) -> os::awaitable<os::result<void>> {
    co_await s.drained(30000);
    co_return os::result<void>();
  }(*both.a));
  CHECK_FALSE(drained->value);
  for (int i = 0; i < 10; ++i) both.read_b();
  both.loop.settle();
  CHECK(drained->value);
  CHECK(both.a->queued_bytes() == 0);
}

TEST_CASE("the link may break after any byte, and the reader always gets an answer") {
  std::string bytes;
  wire::append_frame(bytes, FrameKind::control, 1, wire::encode(wire::Message(wire::Heartbeat{})));
  wire::append_frame(bytes, FrameKind::output, 1, "hello");
  wire::append_frame(bytes, FrameKind::output, 1, "");
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    Ends ends;
    ends.ours->break_after = at;
    ends.put(bytes);
    int frames = 0;
    for (;;) {
      auto frame = ends.loop.run(ends.stream->read());
      if (!frame) {
        CHECK(frame.error().code == Errc::gone);
        break;
      }
      REQUIRE(*frame);
      ++frames;
    }
    CHECK(frames <= 2);
  }
}
