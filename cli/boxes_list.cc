// sandbox boxes [list]: all boxes asked at once, each for a few seconds, so that a dead one costs
// that once. The local box is there when its agent runs; it is not started for this.
#include <algorithm>
#include <boost/json.hpp>

#include "cli/boxes.h"
#include "cli/boxes_table.h"
#include "cli/command_runs.h"
#include "cli/connection.h"
#include "cli/context.h"
#include "cli/local_agent.h"
#include "cli/session_client.h"
#include "cli/target.h"
#include "protocol/os/wakeup.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr std::chrono::milliseconds kAskTime{4000};

// Shared with the questions: those that come too late write into it, and nobody looks any more.
struct Asking {
  explicit Asking(os::executor executor) : answered(executor) {}
  std::vector<BoxRow> rows;
  std::size_t open = 0;
  os::Wakeup answered;
};

os::awaitable<void> ask(Context& context, Connection& connection, BoxRow& row) {
  auto session = co_await connection.open_session(context.trace);
  SessionClient client(context.executor, context.pool, std::move(session), context.output);
  wire::Message answer = co_await client.ask(wire::InfoRequest{});
  const auto* info = std::get_if<wire::Info>(&answer);
  wire::ListRequest request;
  request.user = user_name(context.environment);
  wire::Message list = co_await client.ask(request);
  const auto* sandboxes = std::get_if<wire::Sandboxes>(&list);
  client.session().close();
  if (info == nullptr || sandboxes == nullptr) {
    row.why = "it does not say how it is";
    co_return;
  }
  row.version = info->version;
  row.status = compare_versions(info->version, SANDBOX_VERSION);
  row.sandboxes = static_cast<std::int64_t>(sandboxes->sandboxes.size());
}

os::awaitable<void> ask_one(Context& context, Box box, std::shared_ptr<Asking> asking,
                            std::size_t at) {
  BoxRow row = asking->rows[at];
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
  asking->rows[at] = std::move(row);
  --asking->open;
  asking->answered.notify();
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
  auto only = chosen_box(context.arguments, context.environment);
  if (only && *only != kLocalBox) {
    find_box(context.paths, *only);  // says so when there is none
  }
  if (only) {
    std::erase_if(boxes, [&only](const Box& box) { return box.name != *only; });
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
  auto asking = std::make_shared<Asking>(context.executor);
  if (!boxes.empty()) {
    own_key(context);  // one that cannot be used is one error, not one for each box
  }
  for (const auto& box : boxes) {
    BoxRow row;
    row.name = box.name;
    row.address = box.place();
    row.why = "it does not answer in time";
    asking->rows.push_back(row);
  }
  asking->open = boxes.size();
  auto deadline = std::chrono::steady_clock::now() + kAskTime;
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    os::spawn(context.executor, "ask a box", ask_one(context, boxes[i], asking, i));
  }
  bool in_time = true;
  while (asking->open != 0 && in_time) {
    in_time = co_await asking->answered.wait_until(deadline);
  }
  std::vector<BoxRow> rows = asking->rows;
  print(context.output, rows);
  co_return 0;
}

}  // namespace cli
