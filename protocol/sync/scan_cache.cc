#include "protocol/sync/scan_cache.h"

#include <chrono>

#include "protocol/sync/record.h"

namespace protocol::sync {

namespace {

constexpr std::string_view kMagic = "sandbox scan 2\n";
constexpr std::int64_t kSecond = 1'000'000'000;
// A kernel that ticks 100 times a second gives all changes within a tick one time.
constexpr std::int64_t kTick = 25'000'000;
constexpr std::int64_t kCoarse = 2'100'000'000;  // file systems that tell whole (or even) seconds

// Flags of a name. Most names have one id, told once.
constexpr std::uint64_t kAbsent = 1, kHasInfo = 2, kSettled = 4, kAsRecorded = 8, kAsInTree = 16,
                        kRefused = 32;
constexpr std::uint64_t kNone = 0;

}  // namespace

std::int64_t file_clock_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

bool is_settled(const os::FileInfo& info, std::int64_t seen) {
  auto old = [&](std::int64_t time) {
    return time < seen - (time % kSecond == 0 ? kCoarse : kTick);
  };
  return old(info.modified_ns) && old(info.changed_ns);
}

std::string encode_cache(const ScanCache& cache) {
  RecordWriter writer;
  writer.out().reserve(256 + 200 * (cache.names.size() + cache.watches.size()));
  writer.out() = kMagic;
  writer.text(cache.object_format);
  writer.number(cache.device);
  writer.number(cache.inode);
  writer.text(cache.names_state);
  writer.text(cache.tree);
  writer.number(cache.names.size());
  for (const CachedName& name : cache.names) {
    bool as_recorded = name.oid == name.recorded_oid && name.mode == name.recorded_mode;
    bool as_in_tree = name.oid == name.tree_oid && name.mode == name.tree_mode;
    writer.text(name.path);
    writer.number((name.absent ? kAbsent : kNone) | (name.info ? kHasInfo : kNone) |
                  (name.settled ? kSettled : kNone) | (as_recorded ? kAsRecorded : kNone) |
                  (as_in_tree ? kAsInTree : kNone) | (name.refused ? kRefused : kNone));
    writer.number(name.mode);
    writer.text(name.oid);
    if (name.info) writer.info(*name.info);
    if (!as_recorded) {
      writer.number(name.recorded_mode);
      writer.text(name.recorded_oid);
    }
    if (!as_in_tree) {
      writer.number(name.tree_mode);
      writer.text(name.tree_oid);
    }
  }
  writer.number(cache.watches.size());
  for (const CachedWatch& watch : cache.watches) {
    writer.text(watch.path);
    writer.info(watch.info);
    writer.number(watch.settled);
  }
  writer.number(cache.left_out.size());
  for (const wire::LeftOut& left : cache.left_out) {
    writer.text(left.path);
    writer.text(left.why);
  }
  writer.number(cache.unread.size());
  for (const Unread& unread : cache.unread) {
    writer.text(unread.path);
    writer.text(unread.why);
  }
  writer.number(record_checksum(writer.out()));
  return std::move(writer.out());
}

std::optional<ScanCache> decode_cache(std::string_view bytes) {
  if (!bytes.starts_with(kMagic) || bytes.size() < kMagic.size() + 8) return std::nullopt;
  std::string_view body = bytes.substr(0, bytes.size() - 8);
  if (RecordReader(bytes.substr(body.size())).number() != record_checksum(body))
    return std::nullopt;
  RecordReader reader(body.substr(kMagic.size()));
  ScanCache cache;
  cache.object_format = reader.text();
  cache.device = reader.number();
  cache.inode = reader.number();
  cache.names_state = reader.text();
  cache.tree = reader.text();
  cache.names.resize(reader.count());
  for (CachedName& name : cache.names) {
    name.path = reader.text();
    std::uint64_t flags = reader.number();
    name.absent = flags & kAbsent;
    name.settled = flags & kSettled;
    name.refused = flags & kRefused;
    name.mode = static_cast<std::uint32_t>(reader.number());
    name.oid = reader.text();
    if (flags & kHasInfo) name.info = reader.info();
    bool as_recorded = flags & kAsRecorded, as_in_tree = flags & kAsInTree;
    name.recorded_mode = as_recorded ? name.mode : static_cast<std::uint32_t>(reader.number());
    name.recorded_oid = as_recorded ? name.oid : reader.text();
    name.tree_mode = as_in_tree ? name.mode : static_cast<std::uint32_t>(reader.number());
    name.tree_oid = as_in_tree ? name.oid : reader.text();
    if (reader.failed()) return std::nullopt;
  }
  cache.watches.resize(reader.count());
  for (CachedWatch& watch : cache.watches) {
    watch.path = reader.text();
    watch.info = reader.info();
    watch.settled = reader.number() != 0;
    if (reader.failed()) return std::nullopt;
  }
  cache.left_out.resize(reader.count());
  for (wire::LeftOut& left : cache.left_out) {
    left.path = reader.text();
    left.why = reader.text();
  }
  cache.unread.resize(reader.count());
  for (Unread& unread : cache.unread) {
    unread.path = reader.text();
    unread.why = reader.text();
  }
  if (!reader.ended_well()) return std::nullopt;
  return cache;
}

}  // namespace protocol::sync
