#include "cli/job_place.h"

#include "cli/boxes.h"
#include "cli/target.h"
#include "protocol/wire/quoting.h"

namespace cli {

JobPlace find_job(const Context& context, const std::string& id) {
  if (!is_job_id(id)) {
    throw UserError("arguments",
                    "`" + protocol::wire::printable(id, 80) +
                        "` is no job's id: those are hex "
                        "digits, of which the first 4 or more will do",
                    "`sandbox jobs` shows those there are.", kMisuse);
  }
  auto chosen = chosen_box(context.arguments, context.environment);
  std::vector<JobRecord> records = remembered_jobs(context.paths, id);
  if (chosen) {
    std::erase_if(records, [&chosen](const JobRecord& record) { return record.box != *chosen; });
  }
  if (records.size() > 1) {
    throw UserError("arguments",
                    "several jobs begin with " + id + ": " + records[0].id + ", " + records[1].id +
                        (records.size() > 2 ? " ..." : ""),
                    "Give more digits.", kMisuse);
  }
  JobPlace place;
  place.job = id;
  place.box = chosen.value_or(kLocalBox);
  if (!records.empty()) {
    place.record = records.front();
    place.job = place.record->id;
    place.box = place.record->box;
  }
  return place;
}

}  // namespace cli
