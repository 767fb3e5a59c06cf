// sandbox list: what is on record, and what the boxes say of it. A box that cannot be reached
// deletes nothing.
#include <boost/json.hpp>
#include <set>

#include "cli/boxes.h"
#include "cli/command_runs.h"
#include "cli/connection.h"
#include "cli/session_client.h"
#include "cli/target.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

struct Row {
  std::string id;
  std::string status;  // ready, starting, unreachable
  bool active = false;
  std::string config, branch, project, box, url, used_at;
  bool on_record = true;
};

// What one box answered.
struct Answer {
  bool reached = false;
  std::optional<UserError> failed;  // it was not, or would not say
  std::string agent;
  std::vector<wire::SandboxInfo> sandboxes;
  std::shared_ptr<Connection> connection;
};

os::awaitable<Answer> ask_box(Context& context, std::string box, bool only_if_running) {
  Answer answer;
  try {
    if (only_if_running) {
      answer.connection = co_await connect_if_running(context);
    } else {
      answer.connection = co_await connect(context, box);
    }
    if (answer.connection) {
      auto session = co_await answer.connection->open_session(context.trace);
      SessionClient client(context.executor, context.pool, std::move(session), context.output);
      wire::Message info = co_await client.ask(wire::InfoRequest{});
      wire::ListRequest request;
      request.user = user_name(context.environment);
      wire::Message list = co_await client.ask(request);
      if (const auto* known = std::get_if<wire::Info>(&info)) {
        answer.agent = known->agent;
      }
      if (auto* sandboxes = std::get_if<wire::Sandboxes>(&list)) {
        answer.sandboxes = std::move(sandboxes->sandboxes);
        answer.reached = true;
      } else if (const auto* failed = std::get_if<wire::Failed>(&list)) {
        answer.failed = failed_error(*failed, box);
      }
      co_await client.finish();
    }
  } catch (const UserError& error) {
    answer.failed = error;
  }
  co_return answer;
}

void add_rows(std::vector<Row>& rows, const std::string& box, const std::vector<Entry>& entries,
              const Answer& answer, std::vector<Entry>& gone) {
  std::set<std::string> recorded;
  for (const auto& entry : entries) {
    if (entry.key.box != box) {
      continue;
    }
    recorded.insert(entry.id);
    if (entry.state == EntryState::failed) {
      continue;  // nothing is there; a new start says why the last one failed, or does not fail
    }
    Row row;
    row.id = entry.id;
    row.config = entry.key.config;
    row.branch = entry.key.branch;
    row.project = entry.key.project;
    row.box = box;
    row.status = entry.state == EntryState::starting ? "starting" : "unreachable";
    if (answer.connection) {
      row.url = answer.connection->url(entry.id);
    }
    bool known = false;
    for (const auto& sandbox : answer.sandboxes) {
      if (sandbox.sandbox == entry.id) {
        known = true;
        row.status = sandbox.state;
        row.active = !sandbox.holders.empty();
        row.used_at = sandbox.used_at;
      }
    }
    bool is_gone =
        answer.reached && !known && entry.state == EntryState::ready && entry.agent == answer.agent;
    if (is_gone) {
      gone.push_back(entry);
      continue;
    }
    if (answer.reached && !known && entry.state == EntryState::ready) {
      row.status = "unknown";  // another agent answers in that one's place
    }
    rows.push_back(std::move(row));
  }
  for (const auto& sandbox : answer.sandboxes) {
    if (recorded.count(sandbox.sandbox) == 0) {
      Row row;
      row.id = sandbox.sandbox;
      row.status = sandbox.state;
      row.active = !sandbox.holders.empty();
      row.config = sandbox.config;
      row.branch = sandbox.branch;
      row.project = sandbox.project;
      row.box = box;
      row.used_at = sandbox.used_at;
      row.url = answer.connection->url(sandbox.sandbox);
      row.on_record = false;
      rows.push_back(std::move(row));
    }
  }
}

void print(Output& output, const std::vector<Row>& rows) {
  if (output.json()) {
    json::array sandboxes;
    for (const auto& row : rows) {
      json::object one;
      one["RunID"] = json_text(row.id);
      one["Status"] = json_text(row.status);
      one["Active"] = row.active;
      one["ConfigFile"] = json_text(row.config);
      one["Branch"] = json_text(row.branch);
      one["Project"] = json_text(row.project);
      one["Box"] = json_text(row.box);
      one["RunURL"] = json_text(row.url);
      one["UsedAt"] = json_text(row.used_at);
      one["OnRecord"] = row.on_record;
      sandboxes.push_back(std::move(one));
    }
    json::object answer;
    answer["Sandboxes"] = std::move(sandboxes);
    output.json_line(answer);
    return;
  }
  if (rows.empty()) {
    output.line("No sandboxes found.");
    return;
  }
  std::vector<std::vector<std::string>> cells = {
      {"SANDBOX", "STATUS", "BOX", "BRANCH", "PROJECT", "CONFIG"}};
  for (const auto& row : rows) {
    cells.push_back({row.id, row.status + (row.active ? " (busy)" : ""), row.box,
                     row.branch.empty() ? "-" : row.branch, row.project,
                     row.config.empty() ? "-" : row.config});
  }
  for (const auto& line : table(cells)) {
    output.line(line);
  }
}

}  // namespace

os::awaitable<int> run_list(Context& context) {
  Resolver resolver = make_resolver(context);
  std::vector<Entry> entries;
  {
    auto storage = co_await resolver.lock();
    std::string here = machine_id();
    for (const auto& entry : storage->entries()) {
      if (entry.key.box != kLocalBox || entry.key.machine == here) {
        entries.push_back(entry);
      }
    }
  }
  std::set<std::string> boxes;
  std::string asked = chosen_box(context.arguments, context.environment).value_or("");
  for (const auto& entry : entries) {
    bool nothing_there = entry.state == EntryState::failed && entry.ending.empty();
    if (!nothing_there && (asked.empty() || asked == entry.key.box)) {
      boxes.insert(entry.key.box);
    }
  }
  bool local_recorded = boxes.count(kLocalBox) != 0;
  boxes.insert(asked.empty() ? kLocalBox : asked);  // it may have some that are not on record
  std::vector<Row> rows;
  std::vector<Entry> gone;
  std::optional<UserError> unreachable;
  for (const auto& box : boxes) {
    Answer answer = co_await ask_box(context, box, box == kLocalBox && !local_recorded);
    if (answer.failed && box == asked) {
      unreachable = answer.failed;  // it was asked for: what is on record here is no answer
    } else if (answer.failed) {
      context.output.warn(answer.failed->what());
    }
    add_rows(rows, box, entries, answer, gone);
  }
  for (const auto& entry : gone) {
    co_await resolver.forget(entry.id, entry.agent);
  }
  if (unreachable) {
    throw UserError(*unreachable);
  }
  print(context.output, rows);
  co_return 0;
}

}  // namespace cli
