#include "protocol/sync/object_id.h"

#include "tests/support/catch.h"

using namespace protocol::sync;

namespace {

template <class Hash>
std::string digest(std::string_view bytes, std::size_t piece) {
  Hash hash;
  for (; bytes.size() > piece; bytes.remove_prefix(piece)) hash.update(bytes.substr(0, piece));
  hash.update(bytes);
  auto sum = hash.finish();
  return to_hex(sum.data(), sum.size());
}

}  // namespace

TEST_CASE("the hashes are those of the standard, in whatever pieces the bytes come") {
  const std::string million(1'000'000, 'a');
  struct {
    std::string_view bytes;
    const char *sha1, *sha256;
  } known[] = {
      {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709",
       "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d",
       "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {million, "34aa973cd4c4daa4f61eeb2bdbad27316534016f",
       "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
  };
  for (const auto& one : known) {
    for (std::size_t piece : {std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{65},
                              std::size_t{1000}, million.size()}) {
      if (piece == 1 && one.bytes.size() > 1000) continue;
      CHECK(digest<Sha1>(one.bytes, piece) == one.sha1);
      CHECK(digest<Sha256>(one.bytes, piece) == one.sha256);
    }
  }
}

TEST_CASE("a blob has the id that git gives it") {
  CHECK(blob_id("sha1", "") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
  CHECK(blob_id("sha1", "hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a");
  CHECK(blob_id("sha256", "") ==
        "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813");
  CHECK(ObjectHash("sha1", "tree", 0).finish() == "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
}
