// Names git gives to content: SHA-1 or SHA-256 of a header and the bytes. Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace protocol::sync {

class Sha1 {
 public:
  void update(std::string_view bytes);
  std::array<std::uint8_t, 20> finish();

 private:
  void block(const std::uint8_t* data);
  std::array<std::uint32_t, 5> state_{0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
  std::array<std::uint8_t, 64> pending_{};
  std::uint64_t length_ = 0;
};

class Sha256 {
 public:
  void update(std::string_view bytes);
  std::array<std::uint8_t, 32> finish();

 private:
  void block(const std::uint8_t* data);
  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> pending_{};
  std::uint64_t length_ = 0;
};

// Hashes an object whose size is known beforehand, piece by piece.
class ObjectHash {
 public:
  // `format`: sha1 or sha256. `type`: blob, tree or commit.
  ObjectHash(std::string_view format, std::string_view type, std::uint64_t size);
  void update(std::string_view bytes);
  std::string finish();  // hex

 private:
  bool wide_;
  Sha1 sha1_;
  Sha256 sha256_;
};

std::string blob_id(std::string_view format, std::string_view bytes);
std::string to_hex(const std::uint8_t* bytes, std::size_t count);

}  // namespace protocol::sync
