// protocol/WIRE.md is what other implementations are written from, so it must name all that there
// is.

#include <fstream>
#include <iterator>

#include "protocol/wire/directives.h"
#include "protocol/wire/frames.h"
#include "protocol/wire/message_fields.h"
#include "tests/support/catch.h"
#include "tests/support/places.h"

using namespace protocol::wire;

namespace {

std::string document() {
  std::ifstream in(SANDBOX_SOURCE_DIR "/protocol/WIRE.md");
  std::string text{std::istreambuf_iterator<char>(in), {}};
  REQUIRE_FALSE(text.empty());
  return text;
}

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

bool names(const std::string& text, std::string_view word) {
  for (auto at = text.find(word); at != text.npos; at = text.find(word, at + 1)) {
    const bool starts = at == 0 || !is_word(text[at - 1]);
    const bool ends = at + word.size() == text.size() || !is_word(text[at + word.size()]);
    if (starts && ends) return true;
  }
  return false;
}

template <std::size_t I = 0>
void check_messages(const std::string& text) {
  if constexpr (I < std::variant_size_v<Message>) {
    std::variant_alternative_t<I, Message> message;
    const std::string name(message_name(message));
    CAPTURE(name);
    CHECK(names(text, name));
    auto visit = [&](const char* member, const auto&) {
      CAPTURE(member);
      CHECK(names(text, member));
    };
    fields(visit, message);
    check_messages<I + 1>(text);
  }
}

}  // namespace

TEST_CASE("the document names every message and every member") { check_messages(document()); }

TEST_CASE("the document names every directive") {
  const std::string text_of_it = document();
  for (const auto directive :
       {Directive::lock_requested, Directive::lock_released, Directive::sync_start,
        Directive::sync_end, Directive::end, Directive::session}) {
    CHECK(names(text_of_it, text(directive)));
  }
}

TEST_CASE("the document gives every frame kind its number") {
  const std::string text_of_it = document();
  const std::pair<const char*, FrameKind> kinds[] = {{"control", FrameKind::control},
                                                     {"credit", FrameKind::credit},
                                                     {"pack", FrameKind::pack},
                                                     {"input", FrameKind::input},
                                                     {"output", FrameKind::output},
                                                     {"error", FrameKind::error},
                                                     {"result_pack", FrameKind::result_pack}};
  for (const auto& [name, kind] : kinds) {
    const std::string row =
        "| " + std::string(name) + " | " + std::to_string(static_cast<int>(kind)) + " |";
    CAPTURE(row);
    CHECK(text_of_it.find(row) != text_of_it.npos);
  }
}

TEST_CASE("the document names every word for what went wrong") {
  const std::string text_of_it = document();
  for (int i = 0; i <= static_cast<int>(Errc::io); ++i) {
    CHECK(names(text_of_it, name(static_cast<Errc>(i))));
  }
}
