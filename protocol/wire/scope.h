// How people read a scope: which of a user's CI jobs somebody is (WIRE.md, "scope"). Pure.
#pragma once

#include <string>
#include <string_view>

namespace protocol::wire {

// "github REPO run RUN job JOB on RUNNER". What is no scope of a kind known here as it is.
std::string readable_scope(std::string_view scope);

// A user in a sentence: "alice", "alice for github REPO run ..."; printable, "somebody" when it is
// empty.
std::string shown_user(std::string_view user, std::string_view scope);

}  // namespace protocol::wire
