#include "protocol/sync/index_file.h"

#include <algorithm>

namespace protocol::sync {

namespace {

constexpr std::size_t kLongName = 0xFFF;

void append32(std::string& out, std::uint64_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>((value >> shift) & 0xFF);
}

int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

void append_time(std::string& out, std::int64_t nanoseconds) {
  append32(out, static_cast<std::uint64_t>(nanoseconds / 1'000'000'000));
  append32(out, static_cast<std::uint64_t>(nanoseconds % 1'000'000'000));
}

void append_entry(std::string& out, const IndexEntry& entry) {
  std::size_t begin = out.size();
  os::FileInfo info = entry.info.value_or(os::FileInfo{});
  append_time(out, info.changed_ns);
  append_time(out, info.modified_ns);
  append32(out, info.device);
  append32(out, info.inode);
  append32(out, entry.mode);
  append32(out, info.uid);
  append32(out, info.gid);
  append32(out, info.size);
  for (std::size_t i = 0; i + 1 < entry.oid.size(); i += 2)
    out += static_cast<char>(digit(entry.oid[i]) << 4 | digit(entry.oid[i + 1]));
  std::size_t length = std::min(entry.path.size(), kLongName);
  out += static_cast<char>(length >> 8);
  out += static_cast<char>(length & 0xFF);
  out += entry.path;
  // One to eight NULs, up to a multiple of eight.
  out.append(8 - (out.size() - begin) % 8, '\0');
}

}  // namespace

std::string encode_index(std::span<const IndexEntry> entries) {
  std::string out = "DIRC";
  out.reserve(entries.size() * 112);
  append32(out, 2);
  append32(out, entries.size());
  for (const IndexEntry& entry : entries) append_entry(out, entry);
  return out;
}

}  // namespace protocol::sync
