#include "protocol/sync/object_id.h"

#include <bit>
#include <cstring>

namespace protocol::sync {

namespace {

std::uint32_t load(const std::uint8_t* bytes) {
  return static_cast<std::uint32_t>(bytes[0]) << 24 | static_cast<std::uint32_t>(bytes[1]) << 16 |
         static_cast<std::uint32_t>(bytes[2]) << 8 | bytes[3];
}

void store(std::uint8_t* bytes, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) bytes[i] = static_cast<std::uint8_t>(value >> (24 - 8 * i));
}

// Both hashes take blocks of 64 bytes and end with a one bit, zeros and the length in bits.
template <class Block>
void feed(std::array<std::uint8_t, 64>& pending, std::uint64_t& length, std::string_view bytes,
          Block block) {
  auto data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  std::size_t left = bytes.size();
  std::size_t used = length % 64;
  length += left;
  if (used > 0) {
    std::size_t take = std::min(left, 64 - used);
    std::memcpy(pending.data() + used, data, take);
    data += take;
    left -= take;
    if (used + take < 64) return;
    block(pending.data());
  }
  for (; left >= 64; data += 64, left -= 64) block(data);
  if (left > 0) std::memcpy(pending.data(), data, left);
}

std::string padding(std::uint64_t length) {
  std::string tail(1, '\x80');
  while ((length + tail.size()) % 64 != 56) tail.push_back('\0');
  for (int i = 0; i < 8; ++i) tail.push_back(static_cast<char>(length * 8 >> (56 - 8 * i)));
  return tail;
}

constexpr std::uint32_t kSha256[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

}  // namespace

void Sha1::update(std::string_view bytes) {
  feed(pending_, length_, bytes, [this](const std::uint8_t* data) { block(data); });
}

std::array<std::uint8_t, 20> Sha1::finish() {
  update(padding(length_));
  std::array<std::uint8_t, 20> out;
  for (std::size_t i = 0; i < 5; ++i) store(out.data() + 4 * i, state_[i]);
  return out;
}

void Sha1::block(const std::uint8_t* data) {
  std::uint32_t w[80];
  for (int i = 0; i < 16; ++i) w[i] = load(data + 4 * i);
  for (int i = 16; i < 80; ++i) w[i] = std::rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
  auto [a, b, c, d, e] = state_;
  auto round = [&](std::uint32_t f, std::uint32_t k, std::uint32_t word) {
    std::uint32_t next = std::rotl(a, 5) + f + e + k + word;
    e = d, d = c, c = std::rotl(b, 30), b = a, a = next;
  };
  for (int i = 0; i < 20; ++i) round(d ^ (b & (c ^ d)), 0x5A827999, w[i]);
  for (int i = 20; i < 40; ++i) round(b ^ c ^ d, 0x6ED9EBA1, w[i]);
  for (int i = 40; i < 60; ++i) round((b & c) | (d & (b | c)), 0x8F1BBCDC, w[i]);
  for (int i = 60; i < 80; ++i) round(b ^ c ^ d, 0xCA62C1D6, w[i]);
  state_[0] += a, state_[1] += b, state_[2] += c, state_[3] += d, state_[4] += e;
}

void Sha256::update(std::string_view bytes) {
  feed(pending_, length_, bytes, [this](const std::uint8_t* data) { block(data); });
}

std::array<std::uint8_t, 32> Sha256::finish() {
  update(padding(length_));
  std::array<std::uint8_t, 32> out;
  for (std::size_t i = 0; i < 8; ++i) store(out.data() + 4 * i, state_[i]);
  return out;
}

void Sha256::block(const std::uint8_t* data) {
  std::uint32_t w[64];
  for (int i = 0; i < 16; ++i) w[i] = load(data + 4 * i);
  for (int i = 16; i < 64; ++i) {
    std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state_;
  for (int i = 0; i < 64; ++i) {
    std::uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kSha256[i] + w[i];
    std::uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  state_[0] += a, state_[1] += b, state_[2] += c, state_[3] += d;
  state_[4] += e, state_[5] += f, state_[6] += g, state_[7] += h;
}

ObjectHash::ObjectHash(std::string_view format, std::string_view type, std::uint64_t size)
    : wide_(format == "sha256") {
  std::string header(type);
  header += ' ';
  header += std::to_string(size);
  header += '\0';
  update(header);
}

void ObjectHash::update(std::string_view bytes) {
  if (wide_)
    sha256_.update(bytes);
  else
    sha1_.update(bytes);
}

std::string ObjectHash::finish() {
  if (wide_) {
    auto digest = sha256_.finish();
    return to_hex(digest.data(), digest.size());
  }
  auto digest = sha1_.finish();
  return to_hex(digest.data(), digest.size());
}

std::string blob_id(std::string_view format, std::string_view bytes) {
  ObjectHash hash(format, "blob", bytes.size());
  hash.update(bytes);
  return hash.finish();
}

std::string to_hex(const std::uint8_t* bytes, std::size_t count) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text(2 * count, '0');
  for (std::size_t i = 0; i < count; ++i) {
    text[2 * i] = digits[bytes[i] >> 4];
    text[2 * i + 1] = digits[bytes[i] & 15];
  }
  return text;
}

}  // namespace protocol::sync
