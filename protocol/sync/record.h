// Small binary records of our own on disk: numbers, texts and what lstat said, with a checksum.
// Only for what this machine writes and reads itself, and can make anew.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>

#include "protocol/os/beneath.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

using wire::result;

// Guards against damage, not against people.
inline std::uint64_t record_checksum(std::string_view bytes) {
  std::uint64_t hash = 0x9E3779B97F4A7C15ull ^ bytes.size();
  auto mix = [&](std::uint64_t word) {
    hash = (hash ^ word) * 0xFF51AFD7ED558CCDull;
    hash ^= hash >> 32;
  };
  while (bytes.size() >= 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data(), 8);
    mix(word);
    bytes.remove_prefix(8);
  }
  std::uint64_t word = 0;
  std::memcpy(&word, bytes.data(), bytes.size());
  mix(word);
  return hash;
}

class RecordWriter {
 public:
  void number(std::uint64_t value) {
    char bytes[8];
    std::memcpy(bytes, &value, 8);
    out_.append(bytes, 8);
  }
  void text(std::string_view value) {
    number(value.size());
    out_.append(value);
  }
  void info(const os::FileInfo& info) {
    number(static_cast<std::uint64_t>(info.kind) << 32 | info.mode);
    number(static_cast<std::uint64_t>(info.uid) << 32 | info.gid);
    number(info.device);
    number(info.inode);
    number(info.size);
    number(static_cast<std::uint64_t>(info.modified_ns));
    number(static_cast<std::uint64_t>(info.changed_ns));
  }
  std::string& out() { return out_; }
  const std::string& out() const { return out_; }

 private:
  std::string out_;
};

class RecordReader {
 public:
  explicit RecordReader(std::string_view bytes) : bytes_(bytes) {}
  std::uint64_t number() {
    if (bytes_.size() < 8) {
      failed_ = true;
      return 0;
    }
    std::uint64_t value;
    std::memcpy(&value, bytes_.data(), 8);
    bytes_.remove_prefix(8);
    return value;
  }
  std::string text() {
    std::uint64_t size = number();
    if (size > bytes_.size()) {
      failed_ = true;
      return {};
    }
    std::string value(bytes_.substr(0, size));
    bytes_.remove_prefix(size);
    return value;
  }
  // How many things follow; each takes at least 8 bytes, so that no count is believed that is not
  // borne out.
  std::size_t count() {
    std::uint64_t value = number();
    if (value > bytes_.size() / 8) {
      failed_ = true;
      return 0;
    }
    return value;
  }
  os::FileInfo info() {
    os::FileInfo info;
    std::uint64_t kind = number();
    if (kind >> 32 > static_cast<std::uint64_t>(os::FileInfo::Kind::other)) failed_ = true;
    info.kind = static_cast<os::FileInfo::Kind>(kind >> 32 & 3);
    info.mode = static_cast<std::uint32_t>(kind);
    std::uint64_t owner = number();
    info.uid = static_cast<std::uint32_t>(owner >> 32);
    info.gid = static_cast<std::uint32_t>(owner);
    info.device = number();
    info.inode = number();
    info.size = number();
    info.modified_ns = static_cast<std::int64_t>(number());
    info.changed_ns = static_cast<std::int64_t>(number());
    return info;
  }
  std::string_view rest() const { return bytes_; }
  bool ended_well() const { return !failed_ && bytes_.empty(); }
  bool failed() const { return failed_; }

 private:
  std::string_view bytes_;
  bool failed_ = false;
};

// Replaces a file in one step, without fsync: what a crash damages fails its checksum.
result<void> write_record(const std::filesystem::path& file, std::string_view bytes);

}  // namespace protocol::sync
