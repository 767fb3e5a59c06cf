// What a job is started with, from what a client asked for. Looks at directories, starts nothing.
#pragma once

#include <string>

#include "agent/supervisor/directory.h"
#include "agent/supervisor/job.h"
#include "protocol/os/paths.h"
#include "protocol/wire/messages.h"

namespace agent::supervisor {

// Errc::bad_input names what no process can be given; not_found, a working directory that is
// neither in the workspace nor can be made there.
result<JobSpec> make_job_spec(const protocol::wire::Exec& exec, const Directory& directory,
                              const protocol::os::Environment& environment);

}  // namespace agent::supervisor
