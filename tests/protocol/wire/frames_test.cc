#include "protocol/wire/frames.h"

#include <random>

#include "tests/support/catch.h"

using namespace protocol::wire;

namespace {

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Every whole frame; REQUIREs that there is no error.
std::vector<Frame> all(FrameDecoder& decoder) {
  std::vector<Frame> out;
  for (;;) {
    auto next = decoder.next();
    REQUIRE(next);
    if (!*next) return out;
    out.push_back(std::move(**next));
  }
}

bool same(const Frame& a, const Frame& b) {
  return a.kind == b.kind && a.request == b.request && a.payload == b.payload;
}

std::vector<Frame> samples() {
  return {{FrameKind::control, 0, "heartbeat"},
          {FrameKind::credit, 7, encode_credit({FrameKind::pack, 65536})},
          {FrameKind::pack, 0xffffffff, std::string("\0\xff\n", 3)},
          {FrameKind::output, 1, ""},
          {FrameKind::error, 2, std::string(kMaxBulkBytes, 'e')},
          {FrameKind::control, 3, std::string(kMaxControlBytes, 'c')},
          {FrameKind::input, 4, "x"}};
}

std::string header(std::uint32_t length, std::uint8_t kind) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(length >> shift);
  out += static_cast<char>(kind);
  return out;
}

Failure failure_of(const std::string& wire) {
  FrameDecoder decoder;
  decoder.feed(bytes(wire));
  const auto next = decoder.next();
  REQUIRE_FALSE(next);
  return next.error();
}

}  // namespace

TEST_CASE("a frame is length, kind, request and payload, big endian") {
  CHECK(encode(Frame{FrameKind::output, 0x01020304, "hi"}) ==
        std::string("\0\0\0\x07\x12\x01\x02\x03\x04hi", 11));
}

TEST_CASE("the numbers of frame kinds are what they were") {
  CHECK(static_cast<int>(FrameKind::control) == 1);
  CHECK(static_cast<int>(FrameKind::credit) == 2);
  CHECK(static_cast<int>(FrameKind::pack) == 16);
  CHECK(static_cast<int>(FrameKind::input) == 17);
  CHECK(static_cast<int>(FrameKind::output) == 18);
  CHECK(static_cast<int>(FrameKind::error) == 19);
  CHECK(static_cast<int>(FrameKind::result_pack) == 20);
}

TEST_CASE("frames come back as they were written, however the bytes are cut") {
  std::string wire;
  for (const Frame& frame : samples()) wire += encode(frame);
  std::mt19937 random(7);
  for (int round = 0; round < 12; ++round) {
    FrameDecoder decoder;
    std::vector<Frame> got;
    for (std::size_t at = 0; at < wire.size();) {
      const std::size_t n = round == 0 ? wire.size() : 1 + random() % (64u << round);
      decoder.feed(bytes(std::string_view(wire).substr(at, n)));
      at += n;
      for (auto& frame : all(decoder)) got.push_back(std::move(frame));
    }
    const auto sent = samples();
    REQUIRE(got.size() == sent.size());
    for (std::size_t i = 0; i < sent.size(); ++i) CHECK(same(got[i], sent[i]));
  }
}

TEST_CASE("a frame that comes one byte at a time is delivered once, whole") {
  const Frame sent{FrameKind::error, 9, "one byte at a time"};
  const std::string wire = encode(sent);
  FrameDecoder decoder;
  for (std::size_t i = 0; i < wire.size(); ++i) {
    decoder.feed(bytes(wire.substr(i, 1)));
    const auto got = all(decoder);
    REQUIRE(got.size() == (i + 1 == wire.size() ? 1 : 0));
    if (!got.empty()) CHECK(same(got[0], sent));
  }
}

TEST_CASE("a frame that is cut short is waited for, wherever it is cut") {
  const std::string wire = encode(Frame{FrameKind::control, 1, "bind {}"});
  for (std::size_t cut = 0; cut < wire.size(); ++cut) {
    FrameDecoder decoder;
    decoder.feed(bytes(wire.substr(0, cut)));
    CHECK(all(decoder).empty());
  }
}

TEST_CASE(
    "any byte of a frame may be wrong: it is another frame, not enough, or an error, never more") {
  const std::string wire = encode(Frame{FrameKind::output, 5, "payload"});
  for (std::size_t at = 0; at < wire.size(); ++at) {
    for (int flip = 1; flip < 256; ++flip) {
      std::string damaged = wire;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      FrameDecoder decoder;
      decoder.feed(bytes(damaged));
      std::size_t delivered = 0;
      for (;;) {
        const auto next = decoder.next();
        if (!next) {
          CHECK((next.error().code == Errc::bad_input || next.error().code == Errc::too_large));
          break;
        }
        if (!*next) break;
        delivered += 1;
        CHECK((**next).payload.size() <= damaged.size());
      }
      CHECK(delivered <= 1);
    }
  }
}

TEST_CASE("a length that does not cover kind and request is refused") {
  for (std::uint32_t length = 0; length < 5; ++length) {
    CHECK(failure_of(header(length, 1)).code == Errc::bad_input);
  }
}

TEST_CASE("a length over the limit is refused as soon as it is seen") {
  CHECK(failure_of(header(5 + kMaxControlBytes + 1, 1)).code == Errc::too_large);
  CHECK(failure_of(header(0xffffffff, 1).substr(0, 4)).code == Errc::too_large);
  CHECK(failure_of(header(5 + kMaxBulkBytes + 1, 18)).code == Errc::too_large);
  CHECK(failure_of(header(5 + kMaxBulkBytes + 1, 2)).code == Errc::too_large);
}

TEST_CASE("a kind that nobody knows is handed over within the bulk limit") {
  const std::string wire = header(5 + 3, 200) + std::string("\0\0\0\x01", 4) + "abc";
  FrameDecoder decoder;
  decoder.feed(bytes(wire));
  const auto got = all(decoder);
  REQUIRE(got.size() == 1);
  CHECK(static_cast<int>(got[0].kind) == 200);
  CHECK(got[0].payload == "abc");
  CHECK(failure_of(header(5 + kMaxBulkBytes + 1, 200)).code == Errc::too_large);
}

TEST_CASE("after an error the decoder stays failed, whatever comes") {
  FrameDecoder decoder;
  decoder.feed(bytes(encode(Frame{FrameKind::control, 0, "heartbeat"})));
  decoder.feed(bytes(header(0, 1)));
  REQUIRE(decoder.next());  // what was whole before is still delivered
  CHECK_FALSE(decoder.next());
  decoder.feed(bytes(encode(Frame{FrameKind::control, 0, "heartbeat"})));
  CHECK_FALSE(decoder.next());
}

TEST_CASE("credit names a bulk stream and a sane number of bytes") {
  for (const auto stream : {FrameKind::pack, FrameKind::input, FrameKind::output, FrameKind::error,
                            FrameKind::result_pack}) {
    const auto credit = decode_credit(encode_credit({stream, kFullCredit}));
    REQUIRE(credit);
    CHECK(credit->stream == stream);
    CHECK(credit->bytes == kFullCredit);
  }
  CHECK(decode_credit("").error().code == Errc::bad_input);
  CHECK(decode_credit("1234").error().code == Errc::bad_input);
  CHECK(decode_credit("123456").error().code == Errc::bad_input);
  CHECK(decode_credit(encode_credit({FrameKind::control, 1})).error().code == Errc::bad_input);
  CHECK(decode_credit(encode_credit({FrameKind::credit, 1})).error().code == Errc::bad_input);
  CHECK(decode_credit(encode_credit({FrameKind::pack, kFullCredit + 1})).error().code ==
        Errc::too_large);
  CHECK(decode_credit(encode_credit({FrameKind::pack, 0xffffffff})).error().code ==
        Errc::too_large);
}
