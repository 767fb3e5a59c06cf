// Directives: SSH exec requests that start with `__rwx_`, the surface shared with RWX's own client.
// The same words are message names on the session channel. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "protocol/wire/result.h"

namespace protocol::wire {

enum class Directive { lock_requested, lock_released, sync_start, sync_end, end, session };

// The literal exec string, without arguments ("__rwx_sandbox_lock_requested__").
std::string_view text(Directive directive);

struct ParsedDirective {
  Directive directive;
  std::string argument;  // JSON text after the first space; empty if there is none
};

// What an exec request is: std::nullopt for an ordinary command; a directive; or
// Errc::not_found for a string in `__rwx_` that names no directive of ours (answered 127).
result<std::optional<ParsedDirective>> parse_directive(std::string_view command);

}  // namespace protocol::wire
