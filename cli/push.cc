// sandbox push: sends the work tree, under the lock, and runs nothing.
#include <boost/json.hpp>

#include "cli/command_runs.h"
#include "cli/existing.h"
#include "cli/report.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

os::awaitable<int> run_push(Context& context) {
  Target target = find_target(context);
  lock_wait(context.arguments, context.environment, target.key.box);
  Existing existing = co_await open_existing(context, target, true);
  Cycle cycle;
  wire::LockRequested lock = lock_request(context, "push", "", existing.entry.key.box);
  cycle.lock = lock;
  CycleOutcome outcome;
  std::optional<BindFailed> gone;
  try {
    outcome = co_await existing.client->run(existing.origin, std::move(cycle));
  } catch (const BindFailed& failure) {
    gone = failure;
  }
  if (gone) {
    co_await not_there(context, existing, *gone);
  }
  if (outcome.refused) {
    throw refused_error(*outcome.refused, existing.entry.key.box, lock.wait_seconds);
  }
  if (outcome.not_synced) {
    throw UserError("lock",
                    "another command runs in the sandbox " + existing.entry.id +
                        ", and nothing is sent under its feet",
                    "Push again when it has ended; --wait waits for that.", kBusy);
  }
  Output& output = context.output;
  for (const auto& line : describe_outcome(outcome)) {
    if (line.warning) {
      output.warn(line.text);
    } else {
      output.note(line.text);
    }
  }
  if (outcome.failed) {
    throw failed_error(*outcome.failed, existing.entry.key.box);
  }
  co_await existing.client->finish();
  if (output.json()) {
    boost::json::object answer;
    answer["RunID"] = existing.entry.id;
    answer["RunURL"] = existing.url;
    add_outcome(answer, outcome);
    output.json_line(answer);
  } else {
    output.line("Pushed local changes to sandbox.");
  }
  co_return exit_status(outcome);
}

}  // namespace cli
