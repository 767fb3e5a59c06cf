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
  auto named = context.arguments.value("box");
  std::vector<JobRecord> records = remembered_jobs(context.paths, id, context.output);
  if (named) {
    std::erase_if(records, [&named](const JobRecord& record) { return record.box != *named; });
  }
  if (records.size() > 1) {
    throw UserError("arguments",
                    "several jobs begin with " + id + ": " + records[0].id + ", " + records[1].id +
                        (records.size() > 2 ? " ..." : ""),
                    "Give more digits.", kMisuse);
  }
  JobPlace place;
  place.job = id;
  place.box = chosen_box(context.arguments, context.environment).value_or(kLocalBox);
  if (!records.empty()) {
    place.record = records.front();
    place.job = place.record->id;
    place.box = place.record->box;
  }
  return place;
}

}  // namespace cli
