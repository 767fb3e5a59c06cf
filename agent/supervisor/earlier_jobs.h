// What an earlier supervisor of this sandbox left running when it was killed. With it went the
// pipes and the statuses of its jobs, so nothing is to be had from them any more, and a command
// that is started now must not run beside them.
#pragma once

#include <vector>

#include "agent/supervisor/directory.h"
#include "agent/supervisor/job.h"
#include "agent/supervisor/ledger.h"
#include "protocol/os/subreaper.h"

namespace agent::supervisor {

// The variable by which a job's processes are known, with its id as value.
inline constexpr const char* kJobVariable = "SANDBOX_JOB";

// Ends the process sessions of the ledger's jobs as a hang-up would (INT, TERM, KILL), and notes
// that they have ended. A process is touched only if it is proved to be one of theirs: the process
// session's leader by number, start and boot; without a leader, by the job's variable or by working
// in this sandbox's directory. What left its job's process session stays. What the ledger says of
// an earlier start of the machine is forgotten: a crash may have left half of what was written, and
// half of a file must never come home as a result (the next apply keeps it as drift). Blocks, for
// the three times and a few seconds at most. Errc::busy names a process that does not end.
result<void> end_earlier_jobs(Ledger& ledger, const Directory& directory, EndTimes times);

// What left its job's process session on purpose and is still there.
std::vector<protocol::os::ProcessInfo> earlier_residents(const Directory& directory);

}  // namespace agent::supervisor
