// Commits, stashes and tags made in a sandbox, brought into the user's own repository as
// refs/sandbox/...: the one
// thing that is ever written there, because it is what people look for. No branch, index,
// configuration or hook of theirs is touched.
#pragma once

#include "protocol/sync/merge.h"

namespace protocol::sync {

// Adds to the report the refs that were made, and what could not be brought over (it stays in the
// store). Errc::no_space: nothing is lost, try again.
result<void> fetch_sandbox_commits(const MergeContext& context, const wire::Result& result,
                                   MergeReport& report);

}  // namespace protocol::sync
