// What is read from a disk or a peer may be anything. Each decoder gets thousands of changed copies
// of something valid; it has to answer, and what it takes has to come back the same from its own
// encoder. Under the sanitizers every read beside the bytes ends the test.
#include <boost/json.hpp>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>

#include "agent/authorized_keys.h"
#include "cli/boxes.h"
#include "cli/local_agent.h"
#include "cli/storage.h"
#include "protocol/ssh/key.h"
#include "protocol/sync/scan_cache.h"
#include "protocol/wire/directives.h"
#include "tests/support/catch.h"

namespace {

constexpr int kRounds = 20000;

class Changes {
 public:
  explicit Changes(std::uint64_t seed) : dice_(seed) {}

  std::string of(std::string text) {
    for (std::size_t left = 1 + below(4); left > 0 && !text.empty(); --left) change(text);
    return text;
  }

 private:
  std::size_t below(std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, limit - 1)(dice_);
  }
  void change(std::string& text) {
    static const std::string kOdd[] = {
        "-1", "9223372036854775808", "null", "\"",   "{",   "]",
        "\n", std::string(1, '\0'),  "\xff", "\xc3", "../", "\\u0000"};
    std::size_t at = below(text.size());
    std::size_t length = 1 + below(std::min<std::size_t>(text.size() - at, 24));
    switch (below(6)) {
      case 0:
        text[at] = static_cast<char>(below(256));
        break;
      case 1:
        text.erase(at, length);
        break;
      case 2:
        text.resize(at);
        break;
      case 3:
        text.insert(below(text.size() + 1), text.substr(at, length));
        break;
      case 4:
        text.insert(at, kOdd[below(std::size(kOdd))]);
        break;
      default:
        text.replace(at, length, kOdd[below(std::size(kOdd))]);
        break;
    }
  }

  std::mt19937_64 dice_;
};

// In JSON the order of members says nothing.
bool same(const std::string& a, const std::string& b) {
  boost::system::error_code error;
  auto left = boost::json::parse(a, error);
  return a == b || (!error && left == boost::json::parse(b, error));
}

// `decode` is given changed copies of `valid`, which it has to take itself. It answers with what
// its encoder makes of it, or with nothing. SANDBOX_SEED=N tries one seed alone.
void feed(const std::string& valid,
          const std::function<std::optional<std::string>(const std::string&)>& decode) {
  REQUIRE(decode(valid));
  const char* given = std::getenv("SANDBOX_SEED");
  std::uint64_t first = given ? std::strtoull(given, nullptr, 10) : 0;
  for (std::uint64_t seed = first; seed < first + (given ? 1 : kRounds); ++seed) {
    std::string changed = Changes(seed).of(valid);
    INFO("SANDBOX_SEED=" << seed);
    auto taken = decode(changed);
    if (taken) {
      auto again = decode(*taken);
      REQUIRE(again);
      REQUIRE(same(*again, *taken));
    }
  }
}

// For what has no encoder.
auto taken_as_is(std::function<bool(const std::string&)> takes) {
  return [takes = std::move(takes)](const std::string& text) {
    return takes(text) ? std::optional(text) : std::nullopt;
  };
}

}  // namespace

TEST_CASE("the storage is read whatever stands in it") {
  cli::Entry entry;
  entry.key = {"rig", "", "/home/a/b \xff", 7, 1ull << 63, "main", "/home/a/.sandbox.yml"};
  entry.id = "0123456789abcdef0123456789abcdef";
  entry.state = cli::EntryState::ready;
  entry.agent = "fedcba9876543210fedcba9876543210";
  entry.created_at = entry.used_at = cli::timestamp();
  entry.ending = {"00112233445566778899aabbccddeeff"};
  feed(cli::encode_storage({entry, entry}), [](const std::string& text) {
    auto decoded = cli::decode_storage(text);
    return decoded ? std::optional(cli::encode_storage(*decoded)) : std::nullopt;
  });
}

TEST_CASE("the list of boxes is read whatever stands in it") {
  cli::Box direct, through;
  direct.name = "rig";
  direct.address = {"10.0.0.1", 43215};
  direct.host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAWOy3WpKxnOvmLd6S57hZarfrE2zh7FcT4Pb";
  through.name = "far";
  through.via_ssh = "jump";
  through.state = "~/agent";
  feed(cli::encode_boxes({direct, through}), [](const std::string& text) {
    auto decoded = cli::decode_boxes(text);
    return decoded ? std::optional(cli::encode_boxes(*decoded)) : std::nullopt;
  });
}

TEST_CASE("the scan cache is read whatever stands in it") {
  protocol::sync::ScanCache cache;
  cache.object_format = "sha1";
  cache.names_state = "state";
  cache.tree = std::string(40, 'a');
  for (const char* path : {"a", "b/c", "d\n\xff"}) {
    protocol::sync::CachedName name;
    name.path = path;
    name.mode = name.recorded_mode = 0100644;
    name.oid = name.recorded_oid = std::string(40, 'b');
    name.info.emplace();
    cache.names.push_back(name);
  }
  cache.watches.push_back({"b", {}, true});
  cache.left_out.push_back({"e", "a socket"});
  feed(protocol::sync::encode_cache(cache), [](const std::string& text) {
    auto decoded = protocol::sync::decode_cache(text);
    return decoded ? std::optional(protocol::sync::encode_cache(*decoded)) : std::nullopt;
  });
}

TEST_CASE("a directive is read whatever stands in it") {
  feed("__rwx_sandbox_session__ {\"a\": \"b c\"}", taken_as_is([](const std::string& text) {
         auto parsed = protocol::wire::parse_directive(text);
         return parsed && *parsed;
       }));
}

TEST_CASE("an agent's address is read whatever stands in it") {
  feed(R"({"Address":"127.0.0.1:4321","HostKey":"ssh-ed25519 AAAA","PID":7,"Agent":"abc"})",
       taken_as_is(
           [](const std::string& text) { return cli::parse_agent_address(text).has_value(); }));
}

TEST_CASE("a line with a key is read whatever stands in it") {
  feed(
      "user=\"ann\" ssh-ed25519 "
      "AAAAC3NzaC1lZDI1NTE5AAAAIAWOy3WpKxnOvmLd6S57hZarfrE2zh7FcT4Pb/teMIFM ann@laptop",
      taken_as_is([](const std::string& text) {
        auto line = agent::parse_key_line(text);
        return line && *line && protocol::ssh::PublicKey::parse((*line)->key);
      }));
}
