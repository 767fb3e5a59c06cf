#include "protocol/wire/messages.h"

#include <algorithm>
#include <boost/json.hpp>
#include <random>
#include <set>

#include "protocol/wire/limits.h"
#include "protocol/wire/message_fields.h"
#include "tests/support/catch.h"

using namespace protocol::wire;
namespace json = boost::json;

namespace {

// ---- a value that no member has by default, and that shows whose it is

void fill(const std::string& name, std::string& out) { out = name + "\n\"\xc3\xa9"; }
void fill(const std::string&, bool& out) { out = !out; }
template <std::integral T>
void fill(const std::string&, T& out) {
  out = std::numeric_limits<T>::max();
}
void fill(const std::string& name, std::map<std::string, std::string>& out) {
  out = {{name, "1"}, {"\xff=\n", "\xfe"}};
}
template <class T>
void fill(const std::string& name, std::vector<T>& out);
template <class M>
requires std::is_aggregate_v<M>
void fill(const std::string& name, M& out);
template <class T>
void fill(const std::string& name, std::optional<T>& out) {
  fill(name, out.emplace());
}
template <class M>
requires std::is_aggregate_v<M>
void fill(const std::string& name, M& out) {
  auto visit = [&](const char* member, auto& value) { fill(name + "." + member, value); };
  fields(visit, out);
}
template <class T>
void fill(const std::string& name, std::vector<T>& out) {
  out.resize(2);
  fill(name + "0", out[0]);
  fill(name + "1", out[1]);
}

// One of every kind of message, all members filled.
template <std::size_t I = 0, class F>
void for_each_message(F use) {
  if constexpr (I < std::variant_size_v<Message>) {
    std::variant_alternative_t<I, Message> message;
    fill("m", message);
    use(message);
    for_each_message<I + 1>(use);
  }
}

json::object members(const Message& message) {
  const std::string text = encode(message);
  const auto space = text.find(' ');
  if (space == text.npos) return {};
  return json::parse(text.substr(space + 1)).as_object();
}

// ---- what a member takes

// Each is refused by members of some type.
const char* const kValues[] = {"null",
                               "true",
                               "3",
                               "-1",
                               "70000",
                               "1e300",
                               "2.5",
                               "9223372036854775808",
                               "\"text\"",
                               "[]",
                               "[3]",
                               "[\"text\"]",
                               "[[\"a\",\"b\"]]",
                               "[[\"a\"]]",
                               "[{}]",
                               "{}",
                               R"({"base64":"Zm9v"})",
                               R"({"base64":"Zm9"})",
                               R"({"base64":3})"};

bool is(std::string_view value, std::initializer_list<std::string_view> of) {
  return std::find(of.begin(), of.end(), value) != of.end();
}
bool takes(const std::string&, std::string_view v) {
  return is(v, {"\"text\"", R"({"base64":"Zm9v"})"});
}
bool takes(bool, std::string_view v) { return v == "true"; }
template <std::integral T>
bool takes(T, std::string_view v) {
  if (v == "-1") return std::is_signed_v<T>;
  if (v == "70000") return sizeof(T) > 2;
  return v == "3";
}
bool takes(const std::map<std::string, std::string>&, std::string_view v) {
  return is(v, {"[]", R"([["a","b"]])"});
}
template <class M>
requires std::is_aggregate_v<M>
bool takes(const M&, std::string_view v);
template <class T>
bool takes(const std::vector<T>&, std::string_view v) {
  if (std::is_same_v<T, std::string>) return is(v, {"[]", "[\"text\"]"});
  return is(v, {"[]", "[{}]"});
}
template <class T>
bool takes(const std::optional<T>& value, std::string_view v) {
  return v == "null" || takes(*value, v);
}
template <class M>
requires std::is_aggregate_v<M>
bool takes(const M&, std::string_view v) {
  return v.front() == '{';  // members that it does not know are ignored
}

Failure refused(const std::string& payload) {
  CAPTURE(payload.substr(0, 200));
  const auto decoded = decode(payload);
  REQUIRE_FALSE(decoded);
  return decoded.error();
}

}  // namespace

TEST_CASE("every message with every member comes back as it was") {
  for_each_message([](const Message& sent) {
    const std::string text = encode(sent);
    CAPTURE(text);
    const auto got = decode(text);
    REQUIRE(got);
    CHECK(got->index() == sent.index());
    CHECK(encode(*got) == text);
    CHECK(message_name(*got) == text.substr(0, text.find(' ')));
  });
}

TEST_CASE("every member of every message is carried") {
  for_each_message([](const auto& filled) {
    const std::remove_cvref_t<decltype(filled)> empty;
    const json::object sent = members(filled);
    const json::object defaults = members(empty);
    std::size_t count = 0;
    auto visit = [&](const char* member, const auto&) {
      CAPTURE(message_name(filled), member);
      ++count;
      REQUIRE(sent.contains(member));
      CHECK(sent.at(member) != defaults.at(member));
    };
    fields(visit, filled);
    CHECK(sent.size() == count);
  });
}

TEST_CASE("a message without members means its defaults") {
  for_each_message([](const auto& filled) {
    const std::remove_cvref_t<decltype(filled)> empty;
    const std::string name(message_name(filled));
    for (const std::string& text :
         {name, name + " {}", name + " {\"a later member\": [1, {\"x\": null}]}"}) {
      const auto got = decode(text);
      CAPTURE(text);
      REQUIRE(got);
      CHECK(encode(*got) == encode(Message(empty)));
    }
  });
}

TEST_CASE("a value of the wrong type or out of range is refused by the member's name") {
  for_each_message([](const auto& filled) {
    const std::string name(message_name(filled));
    auto visit = [&](const char* member, const auto& value) {
      for (const char* given : kValues) {
        const std::string text = name + " {\"" + member + "\":" + given + "}";
        CAPTURE(text);
        const auto got = decode(text);
        REQUIRE(got.has_value() == takes(value, given));
        if (got) continue;
        CHECK(got.error().code == Errc::bad_input);
        CHECK(got.error().what.find(name) != std::string::npos);
        CHECK(got.error().what.find(std::string("\"") + member + "\"") != std::string::npos);
      }
    };
    fields(visit, filled);
  });
}

TEST_CASE("a wrong member deep inside is refused by the name of the outer one") {
  const auto what = [](const char* text) { return refused(text).what; };
  CHECK(what(R"(__rwx_sandbox_sync_start__ {"refs":[{"name":"a"},{"name":3}]})").find("\"refs\"") !=
        std::string::npos);
  CHECK(what(R"(exec {"terminal":{"rows":65536}})").find("\"terminal\"") != std::string::npos);
  CHECK(what(R"(exec {"env":[["A","b"],["C"]]})").find("\"env\"") != std::string::npos);
  CHECK(what(R"(status {"sandbox":{"holders":[{"user":[]}]}})").find("\"sandbox\"") !=
        std::string::npos);
}

TEST_CASE("what is not NAME or NAME SP JSON-object is refused") {
  CHECK(refused("").code == Errc::unsupported);
  CHECK(refused(" {}").code == Errc::unsupported);
  CHECK(refused("no_such_message {}").code == Errc::unsupported);
  CHECK(refused("BIND {}").code == Errc::unsupported);
  CHECK(refused("bind{}").code == Errc::unsupported);
  CHECK(refused("bind\t{}").code == Errc::unsupported);
  CHECK(refused("spare {}").code == Errc::unsupported);
  for (const char* rest : {" ", "  ", " {", " {}}", " {} x", " []", " 3", " null", " \"x\"",
                           " {'user':1}", " {\"user\":}", " {\"user\":\"\xff\"}",
                           " {\"user\":\"a\",}", " {user:\"a\"}", " // c\n{}"}) {
    const auto failure = refused(std::string("bind") + rest);
    CHECK(failure.code == Errc::bad_input);
    CHECK(failure.what.find("bind") != std::string::npos);
  }
  CHECK(refused("\x1b[2J{}").what.find('\x1b') == std::string::npos);
}

TEST_CASE("deep nesting and long lists are refused, not followed") {
  std::string deep = "bind {\"later\":";
  for (int i = 0; i < 100000; ++i) deep += "[";
  CHECK(refused(deep).code == Errc::bad_input);
  std::string list = "missing {\"have\":[\"\"";
  for (std::size_t i = 0; i < kMaxListItems; ++i) list += ",\"\"";
  CHECK(refused(list + "]}").what.find("\"have\"") != std::string::npos);
  CHECK(refused("notice {\"text\":\"" + std::string(kMaxControlBytes, 'x') + "\"}").code ==
        Errc::too_large);
}

TEST_CASE("bytes that are not UTF-8 travel as base64, the rest as text") {
  std::string every;
  for (int i = 0; i < 256; ++i) every += static_cast<char>(i);
  CHECK(encode(Notice{"\xc3\xa9\n"}) == "notice {\"text\":\"\xc3\xa9\\n\"}");
  CHECK(encode(Notice{"\xff"}) == R"(notice {"text":{"base64":"/w=="}})");
  const auto got = decode(encode(Notice{every}));
  REQUIRE(got);
  CHECK(std::get<Notice>(*got).text == every);
  // An embedded NUL is text too.
  const std::string nul("a\0b", 3);
  CHECK(std::get<Notice>(*decode(encode(Notice{nul}))).text == nul);
}

TEST_CASE("an environment keeps its names, whatever bytes they are") {
  Exec exec;
  exec.env = {{"PATH", "/bin"}, {"\xff", "\n"}, {"", "empty"}};
  const auto got = decode(encode(exec));
  REQUIRE(got);
  CHECK(std::get<Exec>(*got).env == exec.env);
}

TEST_CASE("numbers keep their sign and their range") {
  for (const std::int64_t n : {std::int64_t{0}, std::int64_t{-1}, INT64_MAX, INT64_MIN}) {
    CHECK(std::get<LockRequested>(*decode(encode(LockRequested{.wait_seconds = n}))).wait_seconds ==
          n);
  }
  CHECK(std::get<Dial>(*decode(R"(dial {"port":65535})")).port == 65535);
  CHECK(refused(R"(dial {"port":65536})").what.find("\"port\"") != std::string::npos);
  CHECK(refused(R"(info {"protocol":4294967296})").what.find("\"protocol\"") != std::string::npos);
}

TEST_CASE("the forms that other implementations write by hand") {
  CHECK(encode(Heartbeat{}) == "heartbeat");
  CHECK(encode(LockReleased{}) == "__rwx_sandbox_lock_released__");
  CHECK(
      encode(Granted{.fence = "3.7", .ttl_seconds = 1800}) ==
      R"(granted {"fence":"3.7","ttl_seconds":1800,"queued":false,"bypassed":[],"shared":false})");
  CHECK(encode(SessionStart{.version = 1}) == R"(session {"version":1})");
  CHECK(encode(Detach{}) == "detach");
  CHECK(encode(Killed{.jobs = {"ab"}}) == R"(killed {"jobs":["ab"]})");
  CHECK(encode(UserUnlocked{}) == R"(user_unlocked {"was":null})");
  CHECK(std::get<UserUnlockRequest>(*decode(R"(user_unlock {"force":true})")).force);
  CHECK(std::get<Kill>(*decode(R"(kill {"all":true})")).all);
  CHECK(std::get<Exec>(*decode(R"(exec {"script":"make","detach":true})")).detach);
  const auto exec = decode(
      R"(exec {"argv":["make","test"],"cwd":"src","terminal":{"term":"xterm","rows":50,"columns":120}})");
  REQUIRE(exec);
  const auto& e = std::get<Exec>(*exec);
  CHECK(e.argv == std::vector<std::string>{"make", "test"});
  CHECK(e.cwd == "src");
  REQUIRE(e.terminal);
  CHECK(e.terminal->columns == 120);
  CHECK(e.interactive_input);
  const auto lock = decode(R"(__rwx_sandbox_lock_requested__ {"verb":"exec","command":"make"})");
  REQUIRE(lock);
  CHECK(std::get<LockRequested>(*lock).wait_seconds == -1);
}

TEST_CASE("messages have different names, and directives have theirs") {
  std::set<std::string> names;
  for_each_message([&](const Message& message) {
    CHECK(names.insert(std::string(message_name(message))).second);
  });
  CHECK(names.size() == std::variant_size_v<Message>);
  for (const char* directive :
       {"__rwx_sandbox_lock_requested__", "__rwx_sandbox_lock_released__",
        "__rwx_sandbox_sync_start__", "__rwx_sandbox_sync_end__", "__rwx_sandbox_end__"}) {
    CHECK(names.contains(directive));
  }
}

// A tree full of unreadable files must not make a message that nobody can send.
TEST_CASE("a long list of what was left out is cut, and says how much is missing") {
  Applied applied{.snapshot = "s"};
  for (int i = 0; i < 50000; ++i)
    applied.left_out.push_back({std::string(100, '\x01'), "unreadable"});
  const std::string text = encode(applied);
  CHECK(text.size() <= kMaxControlBytes);
  const auto got = decode(text);
  REQUIRE(got);
  const auto& list = std::get<Applied>(*got).left_out;
  REQUIRE(list.size() > 500);
  CHECK(list.back().path.empty());
  CHECK(list.back().why == "and " + std::to_string(50000 - (list.size() - 1)) + " more");
}

TEST_CASE("a message that cannot fit becomes the failure of its step") {
  Exec exec;
  exec.argv = {std::string(kMaxControlBytes, 'x')};
  const auto got = decode(encode(exec));
  REQUIRE(got);
  const auto& failed = std::get<Failed>(*got);
  CHECK(failed.step == "exec");
  CHECK(failed.code == "too_large");
}

// Every message, cut at every byte and with every byte damaged, is read or refused; what is read
// can be written again.
TEST_CASE("damaged messages are read or refused, never followed out of bounds") {
  std::mt19937 random(19);
  for_each_message([&](const Message& message) {
    const std::string good = encode(message);
    for (std::size_t at = 0; at < good.size(); at += 1 + good.size() / 200) {
      (void)decode(good.substr(0, at));
      for (int i = 0; i < 4; ++i) {
        std::string bad = good;
        switch (i) {
          case 0:
            bad[at] = static_cast<char>(random());
            break;
          case 1:
            bad.erase(at, 1 + random() % 5);
            break;
          case 2:
            bad.insert(at, 1 + random() % 3, "{}[]\",:0-e\\u"[random() % 12]);
            break;
          default:
            bad.insert(at, good.substr(random() % good.size(), random() % 20));
            break;
        }
        if (const auto got = decode(bad)) {
          const auto again = decode(encode(*got));
          REQUIRE(again);
          REQUIRE(encode(*again) == encode(*got));
        }
      }
    }
  });
}
