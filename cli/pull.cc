// sandbox pull: brings back results that were not brought back when their command ended. Runs
// nothing, waits for no lock.
#include <boost/json.hpp>

#include "cli/command_runs.h"
#include "cli/existing.h"
#include "cli/report.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace os = protocol::os;

os::awaitable<int> run_pull(Context& context) {
  Target target;
  if (auto id = context.arguments.value("id")) {
    target = co_await find_target_of(context, *id);
  } else {
    target = find_target(context);
  }
  Existing existing = co_await open_existing(context, target, true);
  CycleOutcome outcome;
  std::optional<BindFailed> gone;
  try {
    co_await existing.client->bound();
    outcome = co_await existing.client->pull(existing.origin);
  } catch (const BindFailed& failure) {
    gone = failure;
  }
  if (gone) {
    co_await not_there(context, existing, *gone);
  }
  if (outcome.failed) {
    throw failed_error(*outcome.failed, existing.entry.key.box);
  }
  co_await existing.client->finish();
  Output& output = context.output;
  for (const auto& line : describe_outcome(outcome)) {
    if (line.warning) {
      output.warn(line.text);
    }
  }
  for (const auto& line : describe_kept(outcome)) {
    output.note(line.text);
  }
  if (output.json()) {
    boost::json::object answer;
    answer["RunID"] = existing.entry.id;
    answer["RunURL"] = existing.url;
    add_outcome(answer, outcome);
    output.json_line(answer);
    co_return exit_status(outcome);
  }
  const auto& merged = outcome.merged;
  std::size_t count = merged.written.size() + merged.deleted.size();
  if (count == 0 && outcome.all_brought_back() && merged.commits.empty() && merged.drift.empty()) {
    output.line("No changes to pull from sandbox.");
  } else {
    output.line("Pulled " + std::to_string(count) + (count == 1 ? " file" : " files") +
                " from sandbox" + (count == 0 ? "." : ":"));
    for (const auto& path : merged.written) {
      output.line("  " + protocol::wire::printable(path));
    }
    for (const auto& path : merged.deleted) {
      output.line("  " + protocol::wire::printable(path) + " (deleted)");
    }
    for (const auto& commit : merged.commits) {
      output.line("  commits: " + protocol::wire::printable(commit));
    }
  }
  co_return exit_status(outcome);
}

}  // namespace cli
