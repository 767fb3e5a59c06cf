// What the commit of a result says in its message: which generation of the workspace it was taken
// from, and which commits its other parents are. Pure but for the random part.
#pragma once

#include <string>
#include <vector>

#include "protocol/wire/messages.h"

namespace protocol::sync {

// No two of these are equal, so that no two results have one id: a command that makes again what
// the user has deleted meanwhile has a new result with the content of an old one, and an origin
// that was told the old id would take it for merged.
std::string result_message(const std::string& generation, const std::vector<wire::Ref>& commits);

// Made anew each time that a snapshot is applied: of two results of one snapshot, only those of one
// generation grow from one another. Empty in a result of an earlier version.
std::string generation_of(const std::string& message);

std::vector<wire::Ref> named_commits(const std::string& message);

}  // namespace protocol::sync
