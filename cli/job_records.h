// Where this user's detached jobs run: one small file for each under the state directory, so that
// `attach` and `kill` find the box of an id. Written once when the job was detached, and again only
// when its box is renamed; the agent knows how the job is. Only the newest kMostKept are kept.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cli/environment.h"
#include "cli/output.h"

namespace cli {

struct JobRecord {
  std::string id;       // 32 hex digits, unique across boxes
  std::string box;      // as the user calls it
  std::string sandbox;  // id
  std::string project;  // the root's path
  std::string command;
};

inline constexpr std::size_t kMostKept = 500;

// Lower-case hex digits, 4 to 32 of them: an id, or how one begins.
bool is_job_id(const std::string& text);

// A whole id, as agents make them.
bool is_whole_job_id(const std::string& text);

// Throws UserError, also for an id that is none: it becomes the file's name.
void remember_job(const Paths& paths, const JobRecord& record);

struct RememberedJobs {
  std::vector<JobRecord> jobs;
  std::vector<std::string>
      damaged;  // a sentence for each that was put aside: what, where, what now
};

// Those whose id begins so; with nothing, all. A damaged one is put aside as ID.damaged-N.
RememberedJobs remembered_jobs(const Paths& paths, const std::string& beginning);
// The same; what was put aside is warned of.
std::vector<JobRecord> remembered_jobs(const Paths& paths, const std::string& beginning,
                                       Output& output);

}  // namespace cli
