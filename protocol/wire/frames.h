// Frames: length-prefixed pieces on a byte stream, between client and agent and between agent and
// supervisor. Pure; never reads or writes a descriptor. Grammar: protocol/WIRE.md, "Frames".
//
//   frame   = length:u32 kind:u8 request:u32 payload        (big endian; length counts what follows
//   it)
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "protocol/wire/limits.h"
#include "protocol/wire/result.h"

namespace protocol::wire {

// Numbers are never reused.
enum class FrameKind : std::uint8_t {
  control = 1,      // one message (messages.h)
  credit = 2,       // stream kind:u8 bytes:u32 : so many more bytes of that stream may come
  pack = 16,        // git pack, client to box
  input = 17,       // stdin of the request's job
  output = 18,      // stdout
  error = 19,       // stderr
  result_pack = 20  // git pack, box to client
};

// An empty payload on a bulk stream (16 and up) is the end of that stream.
struct Frame {
  FrameKind kind = FrameKind::control;
  std::uint32_t request = 0;  // 0 belongs to the session itself
  std::string payload;        // bytes
};

inline constexpr std::size_t kFrameHeaderBytes = 9;  // length, kind, request

constexpr bool is_bulk(FrameKind kind) { return static_cast<std::uint8_t>(kind) >= 16; }

// Appends the frame to `out`. Requires a payload within the limit of its kind (ours to keep).
void append_frame(std::string& out, FrameKind kind, std::uint32_t request,
                  std::string_view payload);
std::string encode(const Frame& frame);

struct Credit {
  FrameKind stream;
  std::uint32_t bytes;
};
std::string encode_credit(const Credit& credit);  // payload of a credit frame
result<Credit> decode_credit(std::string_view payload);

// Collects bytes as they arrive and hands back whole frames, oldest first. A length over the limit
// of its kind is refused before anything is allocated for it; an unknown kind is handed over as it
// is (answered by whoever reads, not guessed), within the bulk limit. After an error the decoder
// stays failed and the caller is expected to hang up.
class FrameDecoder {
 public:
  void feed(std::span<const std::byte> bytes);
  // The next whole frame, std::nullopt when more bytes are needed, or Errc::too_large/bad_input.
  result<std::optional<Frame>> next();

 private:
  std::string pending_;
  std::size_t start_ = 0;
  std::optional<Failure> failed_;
};

}  // namespace protocol::wire
