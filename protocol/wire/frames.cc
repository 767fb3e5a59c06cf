#include "protocol/wire/frames.h"

#include <cassert>

namespace protocol::wire {
namespace {

// What a length counts besides the payload: kind and request.
constexpr std::uint32_t kCounted = 5;

void append_u32(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>((value >> shift) & 0xff));
  }
}

std::uint32_t read_u32(const char* bytes) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = (value << 8) | static_cast<unsigned char>(bytes[i]);
  return value;
}

std::size_t max_payload(FrameKind kind) {
  return kind == FrameKind::control ? kMaxControlBytes : kMaxBulkBytes;
}

}  // namespace

void append_frame(std::string& out, FrameKind kind, std::uint32_t request,
                  std::string_view payload) {
  assert(payload.size() <= max_payload(kind));
  out.reserve(out.size() + kFrameHeaderBytes + payload.size());
  append_u32(out, kCounted + static_cast<std::uint32_t>(payload.size()));
  out.push_back(static_cast<char>(kind));
  append_u32(out, request);
  out.append(payload);
}

std::string encode(const Frame& frame) {
  std::string out;
  append_frame(out, frame.kind, frame.request, frame.payload);
  return out;
}

std::string encode_credit(const Credit& credit) {
  std::string out;
  out.push_back(static_cast<char>(credit.stream));
  append_u32(out, credit.bytes);
  return out;
}

result<Credit> decode_credit(std::string_view payload) {
  if (payload.size() != 5) return Failure(Errc::bad_input, "credit frame: not 5 bytes");
  const auto stream = static_cast<FrameKind>(payload[0]);
  if (!is_bulk(stream)) return Failure(Errc::bad_input, "credit frame: not for a bulk stream");
  const auto bytes = read_u32(payload.data() + 1);
  if (bytes > kFullCredit) return Failure(Errc::too_large, "credit frame: more than full credit");
  return Credit{stream, bytes};
}

void FrameDecoder::feed(std::span<const std::byte> bytes) {
  if (failed_) return;
  // What was handed out is dropped only when it outweighs what is left: one move per byte at most.
  if (start_ > pending_.size() / 2) {
    pending_.erase(0, start_);
    start_ = 0;
  }
  pending_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

result<std::optional<Frame>> FrameDecoder::next() {
  if (failed_) return *failed_;
  const auto fail = [this](Errc code, const char* what) {
    failed_ = Failure(code, what);
    pending_.clear();
    start_ = 0;
    return *failed_;
  };
  const std::size_t ready = pending_.size() - start_;
  if (ready < 4) return std::optional<Frame>();
  const char* at = pending_.data() + start_;
  const std::uint32_t length = read_u32(at);
  if (length < kCounted) return fail(Errc::bad_input, "frame: length below its own header");
  if (length - kCounted > kMaxControlBytes) return fail(Errc::too_large, "frame: over any limit");
  if (ready < 5) return std::optional<Frame>();
  const auto kind = static_cast<FrameKind>(at[4]);
  if (length - kCounted > max_payload(kind)) {
    return fail(Errc::too_large, "frame: over the limit of its kind");
  }
  if (ready < 4u + length) return std::optional<Frame>();
  Frame frame{kind, read_u32(at + 5), std::string(at + kFrameHeaderBytes, length - kCounted)};
  start_ += 4u + length;
  if (start_ == pending_.size()) {
    pending_.clear();
    start_ = 0;
  }
  return std::optional<Frame>(std::move(frame));
}

}  // namespace protocol::wire
