#include "protocol/sync/unwritten.h"

#include <cerrno>
#include <optional>
#include <system_error>

#include "protocol/os/paths.h"
#include "protocol/os/set_aside.h"
#include "protocol/sync/record.h"

namespace protocol::sync {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kMagic = "sandbox unwritten 1\n";
constexpr std::size_t kMaxBytes = std::size_t{256} << 20;

// std::nullopt: damaged.
std::optional<std::vector<Unwritten>> parse(std::string_view bytes) {
  if (!bytes.starts_with(kMagic) || bytes.size() < kMagic.size() + 8) return std::nullopt;
  RecordReader sum(bytes.substr(bytes.size() - 8));
  bytes.remove_suffix(8);
  if (sum.number() != record_checksum(bytes)) return std::nullopt;
  std::vector<Unwritten> all;
  RecordReader in(bytes.substr(kMagic.size()));
  for (std::size_t count = in.count(); count > 0 && !in.failed(); --count) {
    Unwritten& one = all.emplace_back();
    one.difference.path = in.text();
    one.difference.old_mode = static_cast<std::uint32_t>(in.number());
    one.difference.old_oid = in.text();
    one.difference.new_mode = static_cast<std::uint32_t>(in.number());
    one.difference.new_oid = in.text();
    one.result = in.text();
  }
  if (!in.ended_well()) return std::nullopt;
  return all;
}

}  // namespace

result<UnwrittenRecord> read_unwritten(const fs::path& file) {
  UnwrittenRecord record;
  auto text = os::read_file(file, kMaxBytes);
  if (!text && text.error().code == wire::Errc::not_found) return record;
  if (!text && text.error().code != wire::Errc::too_large) return text.error();
  std::optional<std::vector<Unwritten>> all;
  if (text) all = parse(*text);
  if (all) {
    record.all = std::move(*all);
    return record;
  }
  auto aside = os::set_aside(file);
  if (!aside) return aside.error();
  record.damaged = std::move(*aside);
  return record;
}

result<void> write_unwritten(const fs::path& file, const std::vector<Unwritten>& all) {
  if (all.empty()) {
    std::error_code error;
    fs::remove(file, error);
    if (error) return os::errno_failure(error.value(), file.string());
    return {};
  }
  RecordWriter out;
  out.out() = kMagic;
  out.number(all.size());
  for (const Unwritten& one : all) {
    out.text(one.difference.path);
    out.number(one.difference.old_mode);
    out.text(one.difference.old_oid);
    out.number(one.difference.new_mode);
    out.text(one.difference.new_oid);
    out.text(one.result);
  }
  out.number(record_checksum(out.out()));
  auto made = os::make_private_directory(file.parent_path());
  if (!made) return made.error();
  return os::write_file(file, out.out());
}

}  // namespace protocol::sync
