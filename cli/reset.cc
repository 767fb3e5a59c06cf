// sandbox reset: ends this project's sandbox and makes a new one.
#include <boost/json.hpp>

#include "cli/command_runs.h"
#include "cli/replace.h"
#include "cli/report.h"

namespace cli {

protocol::os::awaitable<int> run_reset(Context& context) {
  Target target = find_target(context);
  if (auto id = context.arguments.value("id")) {
    co_await aim_at(context, target, *id);
  }
  BoxStarter starter(context, target);
  Replaced replaced = co_await replace_sandbox(context, target, starter,
                                               context.arguments.value("id").value_or(""));
  std::string url =
      starter.connection() ? starter.connection()->url(replaced.entry.id) : std::string();
  if (auto client = starter.take_client()) {
    co_await client->finish();
  }
  Output& output = context.output;
  if (output.json()) {
    boost::json::object answer;
    answer["OldRunID"] = replaced.old_id;
    answer["NewRunID"] = replaced.entry.id;
    answer["RunURL"] = url;
    add_setup(answer, starter.setup());
    output.json_line(answer);
  } else {
    if (!replaced.old_id.empty()) {
      output.line("Stopped old sandbox: " + replaced.old_id);
    }
    output.line("Started sandbox: " + replaced.entry.id);
    if (!url.empty()) {
      output.line(url);
    }
  }
  co_return starter.setup() ? exit_status(*starter.setup()) : 0;
}

}  // namespace cli
