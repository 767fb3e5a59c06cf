#include "protocol/wire/directives.h"

#include <array>
#include <utility>

namespace protocol::wire {
namespace {

constexpr std::array<std::pair<Directive, std::string_view>, 6> kDirectives{{
    {Directive::lock_requested, "__rwx_sandbox_lock_requested__"},
    {Directive::lock_released, "__rwx_sandbox_lock_released__"},
    {Directive::sync_start, "__rwx_sandbox_sync_start__"},
    {Directive::sync_end, "__rwx_sandbox_sync_end__"},
    {Directive::end, "__rwx_sandbox_end__"},
    {Directive::session, "__rwx_sandbox_session__"},
}};

}  // namespace

std::string_view text(Directive directive) {
  for (const auto& [known, word] : kDirectives) {
    if (known == directive) return word;
  }
  return {};
}

result<std::optional<ParsedDirective>> parse_directive(std::string_view command) {
  if (!command.starts_with("__rwx_")) return std::optional<ParsedDirective>();
  const auto space = command.find(' ');
  const auto word = command.substr(0, space);
  const auto argument = space == command.npos ? std::string_view() : command.substr(space + 1);
  for (const auto& [directive, known] : kDirectives) {
    if (word == known) return std::optional(ParsedDirective{directive, std::string(argument)});
  }
  return Failure(Errc::not_found, std::string(word.substr(0, 80)));
}

}  // namespace protocol::wire
