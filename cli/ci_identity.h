// Which job of a CI service we are: the scope under which it holds locks, beside the user that the
// key names, and how people read it. Pure.
//
// Nothing in it differs between the processes of one job, and no two jobs have the same.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace cli {

// "ci:github:REPO#RUN-ATTEMPT/JOB@RUNNER" and the like, from what the service says in the
// environment; empty unless CI is exactly "true".
std::string ci_scope(const std::map<std::string, std::string>& variables, const std::string& host);

// "github REPO run RUN job JOB on RUNNER". What is no scope of a kind known here as it is.
std::string readable_scope(std::string_view scope);

// A user in a sentence: "alice", "alice for github REPO run ..."; printable, "somebody" when it is
// empty.
std::string shown_user(std::string_view user, std::string_view scope);

}  // namespace cli
