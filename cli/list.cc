// sandbox list: what is on record, and what the boxes say of it. A box that cannot be reached
// deletes nothing.
#include <algorithm>
#include <boost/json.hpp>
#include <tuple>

#include "cli/command_runs.h"
#include "cli/survey.h"
#include "cli/target.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;

namespace {

constexpr std::size_t kWidestProject = 40;

// Ascending. Throws UserError for an order that there is not.
void sort_rows(std::vector<KnownSandbox>& rows, const std::string& by) {
  auto name = [](const KnownSandbox& row) {
    return std::tie(row.project, row.branch, row.box, row.id);
  };
  std::sort(rows.begin(), rows.end(),
            [&name](const KnownSandbox& a, const KnownSandbox& b) { return name(a) < name(b); });
  auto sort = [&rows](const auto& value) {
    std::stable_sort(
        rows.begin(), rows.end(),
        [&value](const KnownSandbox& a, const KnownSandbox& b) { return value(a) < value(b); });
  };
  if (by == "created") {
    sort([](const KnownSandbox& row) { return row.created_at; });
  } else if (by == "used") {
    sort([](const KnownSandbox& row) { return row.used_at; });
  } else if (by == "size") {
    sort([](const KnownSandbox& row) { return row.size_bytes; });
  } else if (by != "name") {
    throw UserError("arguments", "--sort takes name, created, used or size, not `" + by + "`", {},
                    kMisuse);
  }
}

// "2026-01-31T23:59:59Z" as "2026-01-31 23:59".
std::string short_date(const std::string& date) {
  if (date.size() < 16) {
    return "-";
  }
  std::string text = date.substr(0, 16);
  text[10] = ' ';
  return text;
}

std::string short_project(const std::string& project) {
  return project.size() > kWidestProject ? "..." + project.substr(project.size() - 37) : project;
}

json::object row_json(const KnownSandbox& row) {
  json::object one;
  one["RunID"] = json_text(row.id);
  one["Status"] = json_text(row.state);
  one["Active"] = row.active;
  one["Detached"] = is_detached(row);
  one["Orphaned"] = row.orphaned;
  one["ConfigFile"] = json_text(row.config);
  one["Branch"] = json_text(row.branch);
  one["Project"] = json_text(row.project);
  one["Box"] = json_text(row.box);
  one["RunURL"] = json_text(row.url);
  one["CreatedAt"] = json_text(row.created_at);
  one["UsedAt"] = json_text(row.used_at);
  if (row.size_bytes >= 0) {
    one["SizeBytes"] = row.size_bytes;
  } else {
    one["SizeBytes"] = nullptr;
  }
  one["OnRecord"] = row.entry.has_value();
  return one;
}

void print(Output& output, const std::vector<KnownSandbox>& rows, bool sizes) {
  if (rows.empty()) {
    output.line("No sandboxes found.");
    return;
  }
  std::vector<std::vector<std::string>> cells = {
      {"SANDBOX", "STATUS", "PROJECT", "BRANCH", "BOX", "CREATED (UTC)", "LAST USED (UTC)"}};
  bool configs = std::any_of(rows.begin(), rows.end(),
                             [](const KnownSandbox& row) { return !row.config.empty(); });
  if (sizes) {
    cells.front().push_back("SIZE");
  }
  if (configs) {
    cells.front().push_back("CONFIG");
  }
  for (const auto& row : rows) {
    auto& cell = cells.emplace_back();
    cell = {row.id,
            describe_state(row),
            short_project(row.project),
            row.branch.empty() ? "-" : row.branch,
            row.box,
            short_date(row.created_at),
            short_date(row.used_at)};
    if (sizes) {
      cell.push_back(row.size_bytes < 0 ? "-" : show_bytes(row.size_bytes));
    }
    if (configs) {
      cell.push_back(row.config.empty() ? "-" : row.config);
    }
  }
  for (const auto& line : table(cells)) {
    output.line(line);
  }
}

}  // namespace

os::awaitable<int> run_list(Context& context) {
  std::string order = context.arguments.value("sort").value_or("name");
  std::vector<KnownSandbox> rows;
  sort_rows(rows, order);  // misuse shows before anybody is asked
  std::vector<Entry> entries = co_await entries_here(context);
  SurveyOptions options;
  options.sizes = !context.arguments.has("no-size");
  std::vector<std::string> boxes = boxes_to_ask(context, entries);
  auto surveys = co_await survey(context, boxes, entries, options);
  Resolver resolver = make_resolver(context);
  json::array unreachable;
  std::optional<UserError> failed;
  bool named = !context.arguments.has("all") && named_box(context).has_value();
  for (auto& one : surveys) {
    for (const auto& entry : one.gone) {
      co_await resolver.forget(entry.id, entry.agent);
    }
    for (auto& sandbox : one.sandboxes) {
      // Nothing is there; a new start says why the last one failed, or does not fail.
      if (sandbox.state != "failed") {
        rows.push_back(std::move(sandbox));
      }
    }
    if (one.failed && named) {
      failed = one.failed;  // it was asked for: what is on record here is no answer
    } else if (one.failed) {
      context.output.warn(one.failed->what());
      unreachable.push_back(unreachable_json(one));
    }
  }
  if (failed) {
    throw UserError(*failed);
  }
  sort_rows(rows, order);
  if (context.output.json()) {
    json::array sandboxes;
    for (const auto& row : rows) {
      sandboxes.push_back(row_json(row));
    }
    json::object answer;
    answer["Sandboxes"] = std::move(sandboxes);
    if (!unreachable.empty()) {
      answer["Unreachable"] = std::move(unreachable);
    }
    context.output.json_line(answer);
  } else {
    print(context.output, rows, options.sizes);
  }
  co_return 0;
}

}  // namespace cli
