#include "protocol/wire/quoting.h"

#include <random>
#include <vector>

#include "tests/support/catch.h"

using namespace protocol::wire;

namespace {

// How a POSIX shell splits a line in which only single quotes and backslashes quote. REQUIREs that
// nothing in it is special to a shell outside quotes.
std::vector<std::string> shell_words(const std::string& line) {
  std::vector<std::string> words;
  bool open = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == ' ') {
      open = false;
      continue;
    }
    if (!open) words.emplace_back();
    open = true;
    if (c == '\'') {
      const auto end = line.find('\'', i + 1);
      REQUIRE(end != line.npos);
      words.back() += line.substr(i + 1, end - i - 1);
      i = end;
    } else if (c == '\\') {
      REQUIRE(i + 1 < line.size());
      words.back() += line[++i];
    } else {
      const std::string_view special = "|&;<>()$`\"*?[#~!{}^ \t\n\r\v\f";
      REQUIRE(special.find(c) == special.npos);
      REQUIRE(static_cast<unsigned char>(c) < 0x80);
      words.back() += c;
    }
  }
  return words;
}

}  // namespace

TEST_CASE("plain words stay as they are, the rest is quoted") {
  const std::pair<std::string, std::string> table[] = {
      {"make", "make"},
      {"--flag=a,b", "--flag=a,b"},
      {"/usr/bin/x-1.2_3@h:4%+", "/usr/bin/x-1.2_3@h:4%+"},
      {"", "''"},
      {"a b", "'a b'"},
      {"it's", "'it'\\''s'"},
      {"'", "''\\'''"},
      {"$HOME", "'$HOME'"},
      {"~", "'~'"},
      {"a\nb", "'a\nb'"},
      {"\xff", "'\xff'"},
      {"*", "'*'"},
      {"#x", "'#x'"},
      {"{a,b}", "'{a,b}'"}};
  for (const auto& [word, quoted] : table) CHECK(shell_quote(word) == quoted);
}

TEST_CASE("a command line reads back as the words that it was made of") {
  const std::string bytes = "ab' \\\"$`\n\t*?~#;&|<>()[]{}!=\xc3\xa9\xff-";
  std::mt19937 random(11);
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> argv(1 + random() % 5);
    for (auto& word : argv) {
      for (auto n = random() % 6; n > 0; --n) word += bytes[random() % bytes.size()];
    }
    const std::string line = shell_join(argv);
    CAPTURE(line);
    REQUIRE(shell_words(line) == argv);
  }
}

TEST_CASE("a command that looks like an assignment is quoted, its arguments need not be") {
  CHECK(shell_join(std::vector<std::string>{"A=b", "C=d"}) == "'A=b' C=d");
  CHECK(shell_join(std::vector<std::string>{}) == "");
  CHECK(shell_join(std::vector<std::string>{""}) == "''");
}

TEST_CASE("what is printed can neither move the cursor nor forge a line") {
  const std::pair<std::string, std::string> table[] = {
      {"plain é 漢 😀", "plain é 漢 😀"},
      {"a\nb\tc\rd", "a\\nb\\tc\\rd"},
      {"\x1b[31mred", "\\x1b[31mred"},
      {"\x7f", "\\x7f"},
      {std::string("\0", 1), "\\x00"},
      {"\xff\xfe", "\\xff\\xfe"},
      {"\xc2\x9b"
       "31m",
       "\\xc2\\x9b31m"},  // CSI as one C1 character
      {"\xe2\x80\xae"
       "fdp",
       "\\xe2\\x80\\xaefdp"},               // right-to-left override
      {"\xe2\x80\xa8", "\\xe2\\x80\\xa8"},  // line separator
      {"\xc0\xaf", "\\xc0\\xaf"},           // overlong
      {"\xed\xa0\x80", "\\xed\\xa0\\x80"},  // surrogate
      {"\xe6\xbc", "\\xe6\\xbc"}};          // cut
  for (const auto& [bytes, shown] : table) CHECK(printable(bytes) == shown);
}

TEST_CASE("what is printed is cut between characters, and says so") {
  CHECK(printable("abcdef", 6) == "abcdef");
  CHECK(printable("abcdefg", 6) == "abc…");
  CHECK(printable("aé漢字漢字", 8) == "aé…");
  CHECK(printable("\n\n\n\n", 7) == "\\n\\n…");
  CHECK(printable("abc", 2) == "");
  CHECK(printable("", 0) == "");
}

TEST_CASE(
    "printed text is within its limit, valid UTF-8 and without control bytes, whatever went in") {
  std::mt19937 random(13);
  for (int round = 0; round < 5000; ++round) {
    std::string bytes;
    for (auto n = random() % 30; n > 0; --n) bytes += static_cast<char>(random() % 256);
    const std::size_t limit = random() % 40;
    const std::string shown = printable(bytes, limit);
    REQUIRE(shown.size() <= limit);
    REQUIRE(is_utf8(shown));
    for (const char c : shown) REQUIRE((static_cast<unsigned char>(c) >= 0x20 && c != 0x7f));
  }
}

TEST_CASE("UTF-8 is what RFC 3629 says") {
  for (const char* good :
       {"", "a", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
        "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    CHECK(is_utf8(good));
  }
  for (const char* bad : {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2",
                          "\xc2"
                          "a",
                          "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82", "\xf0\x8f\xbf\xbf",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
    CHECK_FALSE(is_utf8(bad));
  }
}

TEST_CASE("base64 is RFC 4648's, and malformed text is refused") {
  const std::pair<std::string, std::string> table[] = {
      {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
      {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"\xff\xfe\xfd", "//79"}};
  for (const auto& [bytes, text] : table) {
    CHECK(base64_encode(bytes) == text);
    std::string back = "old";
    CHECK(base64_decode(text, back));
    CHECK(back == bytes);
  }
  for (const char* bad : {"Z", "Zg", "Zg=", "Zg===", "=Zg=", "Zg==Zg==", "Zm9v=", "Zm9\n", "Zm 9v",
                          "Z===", "Zm9*", "===="}) {
    CAPTURE(bad);
    std::string kept = "kept";
    CHECK_FALSE(base64_decode(bad, kept));
    CHECK(kept == "kept");
  }
}

TEST_CASE("base64 carries any bytes") {
  std::mt19937 random(17);
  for (int round = 0; round < 1000; ++round) {
    std::string bytes;
    for (auto n = random() % 50; n > 0; --n) bytes += static_cast<char>(random() % 256);
    std::string back;
    REQUIRE(base64_decode(base64_encode(bytes), back));
    REQUIRE(back == bytes);
  }
}
