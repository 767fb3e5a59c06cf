#include "protocol/sync/scan_cache.h"

#include "tests/support/catch.h"

using namespace protocol::sync;
using protocol::os::FileInfo;

namespace {

FileInfo some_info(std::uint64_t inode) {
  FileInfo info;
  info.kind = FileInfo::Kind::file;
  info.mode = 0644;
  info.inode = inode;
  info.size = 12;
  info.modified_ns = 1'700'000'000'123'456'789;
  info.changed_ns = -5;
  return info;
}

ScanCache some_cache() {
  ScanCache cache;
  cache.object_format = "sha1";
  cache.device = 1;
  cache.inode = 2;
  cache.names_state = "state\n";
  cache.tree = std::string(40, 'a');
  CachedName deleted{.path = "deleted", .recorded_mode = 0100644, .recorded_oid = "r"};
  deleted.tree_mode = 0100644;
  deleted.tree_oid = "t";
  CachedName plain{.path = "new\nline \xff", .info = some_info(7), .mode = 0100755, .oid = "o"};
  plain.settled = true;
  CachedName sparse{.path = "sparse", .recorded_mode = 0100644, .recorded_oid = "s"};
  sparse.absent = true;
  sparse.mode = sparse.tree_mode = 0100644;
  sparse.oid = sparse.tree_oid = "s";
  CachedName refused{.path = ".GIT/x", .recorded_mode = 0100644, .recorded_oid = "x"};
  refused.refused = true;
  cache.names = {refused, deleted, plain, sparse};
  cache.watches = {{"", some_info(2), true}, {"dir", some_info(3), false}};
  cache.left_out = {{"nested", "nested repository"}};
  cache.unread = {{"shut", "Permission denied"}};
  return cache;
}

bool same(const CachedName& a, const CachedName& b) {
  return a.path == b.path && a.recorded_mode == b.recorded_mode &&
         a.recorded_oid == b.recorded_oid && a.absent == b.absent && a.refused == b.refused &&
         a.info.has_value() == b.info.has_value() &&
         (!a.info || (a.info->same_content(*b.info) && a.info->changed_ns == b.info->changed_ns)) &&
         a.mode == b.mode && a.oid == b.oid && a.settled == b.settled &&
         a.tree_mode == b.tree_mode && a.tree_oid == b.tree_oid;
}

}  // namespace

TEST_CASE("a scan's cache comes back as it was written") {
  ScanCache cache = some_cache();
  auto read = decode_cache(encode_cache(cache));
  REQUIRE(read);
  CHECK(read->object_format == cache.object_format);
  CHECK(read->device == 1);
  CHECK(read->inode == 2);
  CHECK(read->names_state == cache.names_state);
  CHECK(read->tree == cache.tree);
  REQUIRE(read->names.size() == cache.names.size());
  for (std::size_t i = 0; i < cache.names.size(); ++i) CHECK(same(read->names[i], cache.names[i]));
  REQUIRE(read->watches.size() == 2);
  CHECK(read->watches[0].settled);
  CHECK_FALSE(read->watches[1].settled);
  REQUIRE(read->unread.size() == 1);
  CHECK(read->unread[0].path == "shut");
  CHECK(read->unread[0].why == "Permission denied");
  CHECK(read->watches[1].path == "dir");
  REQUIRE(read->left_out.size() == 1);
  CHECK(read->left_out[0].why == "nested repository");
}

TEST_CASE("a cache that is cut or changed anywhere is no cache") {
  std::string bytes = encode_cache(some_cache());
  for (std::size_t size = 0; size < bytes.size(); ++size)
    CHECK_FALSE(decode_cache(std::string_view(bytes).substr(0, size)));
  CHECK_FALSE(decode_cache(bytes + "x"));
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 0x20);
    CHECK_FALSE(decode_cache(changed));
  }
}

TEST_CASE("content is settled once its times are older than the clock is coarse") {
  constexpr std::int64_t second = 1'000'000'000;
  FileInfo info = some_info(1);
  info.modified_ns = info.changed_ns = 100 * second + 1;
  CHECK_FALSE(is_settled(info, 100 * second + 1));
  CHECK_FALSE(is_settled(info, 100 * second + 10'000'000));
  CHECK(is_settled(info, 101 * second));
  SECTION("a change of the inode alone counts too") {
    info.changed_ns = 101 * second + 5;
    CHECK_FALSE(is_settled(info, 101 * second + 10));
  }
  SECTION("a file system of whole seconds") {
    info.modified_ns = 100 * second;
    CHECK_FALSE(is_settled(info, 101 * second));
    CHECK(is_settled(info, 103 * second));
  }
  SECTION("a time in the future is never settled") {
    info.modified_ns = 200 * second;
    CHECK_FALSE(is_settled(info, 101 * second));
  }
}
