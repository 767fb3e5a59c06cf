// Which box a detached job is on, when a person names it by its id or by how that begins.
#pragma once

#include <optional>
#include <string>

#include "cli/context.h"
#include "cli/job_records.h"

namespace cli {

struct JobPlace {
  std::string job;  // as the box may be asked for it: the whole id where we know it
  std::string box;
  std::optional<JobRecord> record;  // of a job that was detached from here
};

// The box of --box, else the one that is on record for the job, else SANDBOX_BOX's, else the local
// one.
// Throws UserError: no id, several that begin so.
JobPlace find_job(const Context& context, const std::string& id);

}  // namespace cli
