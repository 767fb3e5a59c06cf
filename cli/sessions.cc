// sandbox sessions: who is attached to which sandbox, since when, and what for.
#include <boost/json.hpp>

#include "cli/ci_identity.h"
#include "cli/command_runs.h"
#include "cli/duration.h"
#include "cli/session_locks.h"
#include "cli/survey.h"
#include "protocol/os/clock.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

struct Row {
  std::string box;
  wire::SessionInfo session;
  int pid = 0;  // 0: it is the box that says so
};

// How long ago that was.
std::string age(const std::string& since) {
  auto then = os::parse_utc(since);
  if (!then) {
    return "-";
  }
  return show_duration(
      std::chrono::duration_cast<std::chrono::seconds>(os::SystemClock().date() - *then));
}

void print(Output& output, const std::vector<Row>& rows) {
  if (rows.empty()) {
    output.line("No sessions.");
    return;
  }
  std::vector<std::vector<std::string>> cells = {
      {"SANDBOX", "BOX", "USER", "SINCE", "STATE", "DOING"}};
  for (const auto& row : rows) {
    const wire::SessionInfo& session = row.session;
    std::string doing = session.verb + (session.command.empty() ? "" : " ") + session.command;
    cells.push_back({session.sandbox.empty() ? "-" : session.sandbox, row.box,
                     shown_user(session.user, session.scope), age(session.since), session.state,
                     doing.empty() ? "-" : fit(doing, 60)});
  }
  for (const auto& line : table(cells)) {
    output.line(line);
  }
}

json::object row_json(const Row& row) {
  const wire::SessionInfo& session = row.session;
  json::object one;
  one["RunID"] = json_text(session.sandbox);
  one["Box"] = json_text(row.box);
  one["User"] = json_text(session.user);
  one["Scope"] = json_text(session.scope);
  one["Verb"] = json_text(session.verb);
  one["Command"] = json_text(session.command);
  one["Since"] = json_text(session.since);
  one["State"] = json_text(session.state);
  if (row.pid != 0) {
    one["PID"] = row.pid;
  }
  return one;
}

}  // namespace

os::awaitable<int> run_sessions(Context& context) {
  std::vector<Entry> entries = co_await entries_here(context);
  SurveyOptions options;
  options.sessions = true;
  std::vector<std::string> boxes = boxes_to_ask(context, entries);
  auto surveys = co_await survey(context, boxes, entries, options);
  auto local = SessionLocks(context.paths.sessions()).sessions();
  std::vector<Row> rows;
  json::array unreachable;
  for (auto& one : surveys) {
    for (auto& session : one.sessions) {
      rows.push_back({one.box, std::move(session), 0});
    }
    for (const auto& session : local) {
      if (!one.reached && session.box == one.box) {
        wire::SessionInfo info;
        info.sandbox = session.sandbox;
        info.user = user_name(context.environment);
        info.scope = ci_scope(context.environment);
        info.verb = session.verb;
        info.command = session.command;
        info.since = session.since;
        info.state = "attached";
        rows.push_back({one.box, std::move(info), session.pid});
      }
    }
    if (one.failed) {
      context.output.warn(std::string(one.failed->what()) + "; shown is what runs on this machine");
      unreachable.push_back(unreachable_json(one));
    }
  }
  bool failed =
      !unreachable.empty() && !context.arguments.has("all") && named_box(context).has_value();
  if (context.output.json()) {
    json::array sessions;
    for (const auto& row : rows) {
      sessions.push_back(row_json(row));
    }
    json::object answer;
    answer["Sessions"] = std::move(sessions);
    if (!unreachable.empty()) {
      answer["Unreachable"] = std::move(unreachable);
    }
    context.output.json_line(answer);
  } else {
    print(context.output, rows);
  }
  co_return failed ? kFailed : 0;
}

}  // namespace cli
