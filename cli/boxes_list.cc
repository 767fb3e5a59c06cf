// sandbox boxes [list]: all boxes asked at once, each for a few seconds, so that a dead one costs
// that once. The local box is there when its agent runs; it is not started for this.
#include <algorithm>
#include <boost/json.hpp>

#include "cli/ask_all.h"
#include "cli/box_question.h"
#include "cli/boxes.h"
#include "cli/boxes_table.h"
#include "cli/ci_identity.h"
#include "cli/command_runs.h"
#include "cli/connection.h"
#include "cli/context.h"
#include "cli/local_agent.h"
#include "cli/target.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

void fill_in(BoxRow& row, const wire::Box& box) {
  row.version = box.version;
  row.status = compare_versions(box.version, SANDBOX_VERSION);
  row.sandboxes = box.sandboxes;
  row.slots = box.slots;
  row.waiting = static_cast<std::int64_t>(box.waiting.size());
  row.jobs = box.jobs;
  if (box.user_lock) {
    row.locked_by = box.user_lock->user;
    row.lock_scope = box.user_lock->scope;
    row.since = box.user_lock->since;
    row.reason = box.user_lock->reason;
  }
  for (const auto& holder : box.holders) {
    row.users.push_back({holder.user, holder.verb, holder.command, holder.scope});
  }
}

os::awaitable<void> ask(Context& context, Connection& connection, BoxRow& row) {
  wire::BoxRequest request;
  request.user = user_name(context.environment);
  request.scope = ci_scope(context.environment);
  wire::Message answer = co_await ask_box(context, connection, request);
  if (const auto* box = std::get_if<wire::Box>(&answer)) {
    fill_in(row, *box);
    co_return;
  }
  // One that is too old to say more says its version.
  wire::Message older = co_await ask_box(context, connection, wire::InfoRequest{});
  const auto* info = std::get_if<wire::Info>(&older);
  if (info == nullptr) {
    throw no_answer(row.name, answer);
  }
  row.version = info->version;
  row.status = compare_versions(info->version, SANDBOX_VERSION);
}

os::awaitable<void> ask_one(Context& context, const Box& box, BoxRow& row) {
  row.why.clear();
  try {
    std::shared_ptr<Connection> connection;
    if (box.name == kLocalBox) {
      connection = co_await connect_if_running(context);
    } else {
      connection = co_await contact(context, box, kAskTime);
    }
    if (connection) {
      co_await ask(context, *connection, row);
    } else {
      row.why = "the local agent has ended";
    }
  } catch (const UserError& error) {
    row.why = error.what();
  }
}

std::vector<Box> boxes_to_ask(Context& context) {
  std::vector<Box> boxes = read_boxes(context.paths);
  LocalAgent agent(context.environment, context.paths, context.executor);
  if (auto running = agent.running()) {
    Box local;
    local.name = kLocalBox;
    local.address = running->address;
    boxes.push_back(local);
  }
  // SANDBOX_BOX says which box to use; the others are there all the same.
  auto only = context.arguments.value("box");
  if (only && *only != kLocalBox) {
    boxes.assign(1, find_box(context.paths, *only));
  } else if (only) {
    std::erase_if(boxes, [](const Box& box) { return box.name != kLocalBox; });
  }
  std::sort(boxes.begin(), boxes.end(),
            [](const Box& a, const Box& b) { return natural_less(a.name, b.name); });
  return boxes;
}

void print(Output& output, const std::vector<BoxRow>& rows) {
  if (output.json()) {
    json::array boxes;
    for (const auto& row : rows) {
      boxes.push_back(box_json(row));
    }
    json::object answer;
    answer["Boxes"] = std::move(boxes);
    output.json_line(answer);
    return;
  }
  if (rows.empty()) {
    output.line("No boxes. `sandbox boxes add --name NAME --host HOST` adds one.");
    return;
  }
  auto paint = [&output](std::string_view text, const char* ansi) {
    return output.paint(text, ansi, true);
  };
  for (const auto& line : box_table(rows, paint)) {
    output.line(line);
  }
  output.line("");
  for (const auto& line : box_footer(rows, SANDBOX_VERSION, paint)) {
    output.line(line);
  }
  for (const auto& row : rows) {
    if (row.status == BoxStatus::unreachable) {
      output.note("sandbox: " + row.name + ": " + row.why);
    }
  }
}

}  // namespace

os::awaitable<int> run_boxes_list(Context& context) {
  std::vector<Box> boxes = boxes_to_ask(context);
  if (!boxes.empty()) {
    own_key(context);  // one that cannot be used is one error, not one for each box
  }
  std::vector<Question<BoxRow>> questions;
  for (const auto& box : boxes) {
    Question<BoxRow>& question = questions.emplace_back();
    question.unanswered.name = box.name;
    question.unanswered.address = box.place();
    question.unanswered.why = "it does not answer in time";
    question.ask = [&context, box](BoxRow& row) { return ask_one(context, box, row); };
  }
  std::vector<BoxRow> rows = co_await ask_all(context.executor, std::move(questions));
  print(context.output, rows);
  co_return 0;
}

}  // namespace cli
