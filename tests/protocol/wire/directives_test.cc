#include "protocol/wire/directives.h"

#include "tests/support/catch.h"

using namespace protocol::wire;

TEST_CASE("each directive is its literal string, with and without an argument") {
  const std::pair<Directive, std::string> table[] = {
      {Directive::lock_requested, "__rwx_sandbox_lock_requested__"},
      {Directive::lock_released, "__rwx_sandbox_lock_released__"},
      {Directive::sync_start, "__rwx_sandbox_sync_start__"},
      {Directive::sync_end, "__rwx_sandbox_sync_end__"},
      {Directive::end, "__rwx_sandbox_end__"},
      {Directive::session, "__rwx_sandbox_session__"}};
  for (const auto& [directive, word] : table) {
    CAPTURE(word);
    CHECK(text(directive) == word);
    const auto bare = parse_directive(word);
    REQUIRE(bare);
    REQUIRE(bare->has_value());
    CHECK((*bare)->directive == directive);
    CHECK((*bare)->argument.empty());
    const auto with = parse_directive(word + " {\"a\": \"b c\"} ");
    REQUIRE(with);
    CHECK((*with)->argument == "{\"a\": \"b c\"} ");
  }
}

TEST_CASE("an ordinary command is no directive, however near it looks") {
  for (const char* command : {"", " ", "make test", "git-receive-pack '.'", " __rwx_sandbox_end__",
                              "echo __rwx_sandbox_end__", "_rwx_sandbox_end__",
                              "__RWX_sandbox_end__", "'__rwx_sandbox_end__'"}) {
    CAPTURE(command);
    const auto parsed = parse_directive(command);
    REQUIRE(parsed);
    CHECK_FALSE(parsed->has_value());
  }
}

TEST_CASE("a word in the reserved space that is no directive is named, not run") {
  for (const char* command :
       {"__rwx_", "__rwx_sandbox_", "__rwx_sandbox_lock_requested",
        "__rwx_sandbox_lock_requested__x", "__rwx_sandbox_end__\n", "__rwx_sandbox_end__\t{}",
        "__rwx_sandbox_sync_start__;id", "__rwx_sandbox_process_start__ {}", "__rwx_other__ x"}) {
    CAPTURE(command);
    const auto parsed = parse_directive(command);
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().code == Errc::not_found);
  }
  CHECK(parse_directive("__rwx_other__ x").error().what == "__rwx_other__");
  CHECK(parse_directive("__rwx_" + std::string(100000, 'a')).error().what.size() <= 80);
}
