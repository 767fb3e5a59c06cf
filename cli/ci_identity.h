// Who a job of a CI service is: the name under which it holds locks, and how people read it. Pure.
//
// Two processes of one job are the same holder, two jobs never are, even under one key: the part
// that names the process is left out when holders are compared.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace cli {

// "ci:github:REPO#RUN-ATTEMPT/JOB@RUNNER:PID" and the like, from what the service says in the
// environment. std::nullopt unless CI is exactly "true".
std::optional<std::string> ci_holder(const std::map<std::string, std::string>& variables,
                                     const std::string& host, int pid);

// Without the `:PID` at the end or before an `@`.
std::string holder_scope(std::string_view holder);

// "github REPO run RUN job JOB on RUNNER"; another service's "ORIGIN:ID:EMAIL" is its EMAIL. Every
// other name as it is.
std::string readable_holder(std::string_view holder);

// A user or holder in a sentence: readable, printable, "somebody" when it is empty.
std::string shown_user(std::string_view user);

}  // namespace cli
