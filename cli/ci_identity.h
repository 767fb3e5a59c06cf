// Which job of a CI service we are: the scope under which it holds locks, beside the user that the
// key names. How people read it: protocol/wire/scope.h. Pure.
//
// Nothing in it differs between the processes of one job, and no two jobs have the same.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "protocol/wire/scope.h"

namespace cli {

// "ci:github:REPO#RUN-ATTEMPT/JOB@RUNNER" and the like, from what the service says in the
// environment; empty unless CI is exactly "true".
std::string ci_scope(const std::map<std::string, std::string>& variables, const std::string& host);

using protocol::wire::shown_user;

}  // namespace cli
