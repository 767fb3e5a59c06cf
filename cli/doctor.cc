// sandbox doctor: what works on this machine and its boxes, and how to mend what does not.
#include <algorithm>
#include <boost/json.hpp>

#include "cli/boxes.h"
#include "cli/command_runs.h"
#include "cli/connection.h"
#include "cli/health.h"
#include "cli/local_agent.h"
#include "cli/session_client.h"
#include "cli/target.h"
#include "protocol/os/offload.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr std::chrono::seconds kContactTime{10};

const char* text(Check::Status status) {
  switch (status) {
    case Check::Status::ok:
      return "ok";
    case Check::Status::warning:
      return "warn";
    case Check::Status::error:
      return "error";
  }
  return "error";
}

// On a pool thread: a program or a disk may hang, and Ctrl+C has to work all the same.
template <class Run>
os::awaitable<Check> checked(Context& context, Run run) {
  Check check = co_await os::offload(context.pool, std::move(run));
  co_return check;
}

// What the agent says of itself, and what is wrong with that.
os::awaitable<void> ask_agent(Context& context, Connection& connection, Check& check) {
  auto session = co_await connection.open_session(context.trace);
  SessionClient client(context.executor, context.pool, std::move(session), context.output);
  wire::BoxRequest question;
  question.user = user_name(context.environment);
  question.scope = ci_scope(context.environment);
  wire::Message answer = co_await client.ask(question);
  co_await client.finish();
  const auto* box = std::get_if<wire::Box>(&answer);
  if (box == nullptr) {
    check.detail += ", but does not say what it is";
    check.status = Check::Status::warning;
    check.fix = "Is it older than this? `sandbox update` replaces it.";
    co_return;
  }
  check.detail +=
      ", agent " + wire::printable(box->version, 80) + ", you are " +
      wire::printable(box->user, 80) + ", isolation " +
      (box->isolation.empty() ? "not known" : wire::printable(box->isolation, 80)) +
      (box->limits.empty() ? "" : ", limits for each " + wire::printable(box->limits, 80));
  if (box->isolation == "none") {
    check.status = Check::Status::warning;
    check.fix =
        "Commands there can do what its agent's account can. Unless it was started with "
        "--isolation none, its log says why bubblewrap does not work; mend that and start "
        "it anew.";
  }
}

os::awaitable<Check> check_local_agent(Context& context) {
  Check check;
  check.name = "local agent";
  LocalAgent agent(context.environment, context.paths, context.executor);
  if (!agent.running()) {
    check.detail = "does not run: it starts by itself when it is needed";
    co_return check;
  }
  try {
    auto connection = co_await connect_if_running(context);
    if (connection) {
      check.detail = "answers at " + connection->box().place();
      co_await ask_agent(context, *connection, check);
    } else {
      check.status = Check::Status::warning;
      check.detail = "says that it runs, but does not answer";
      check.fix = "The next command starts another one; its log is " +
                  (context.paths.agent() / "agent.log").string() + ".";
    }
  } catch (const UserError& error) {
    check.status = Check::Status::error;
    check.detail = error.what();
    check.fix = error.next;
  }
  co_return check;
}

// `named`: on the command line, so that it is meant to work now.
os::awaitable<Check> check_box(Context& context, Box box, bool named) {
  Check check;
  check.name = "box " + box.name;
  if (box.host_key.empty() && box.via_ssh.empty()) {
    check.detail = box.place() + ", not contacted yet: its host key is kept then";
    co_return check;
  }
  try {
    auto connection = co_await contact(context, box, kContactTime);
    check.detail = box.place();
    co_await ask_agent(context, *connection, check);
  } catch (const UserError& error) {
    // A box that is off keeps nobody from the others; one that is not itself is another matter.
    std::string what = error.what();
    bool impostor = what.find("host key") != std::string::npos;
    check.status = named || impostor ? Check::Status::error : Check::Status::warning;
    check.detail = what;
    check.fix = error.next;
  }
  co_return check;
}

os::awaitable<std::vector<Check>> check_boxes(Context& context) {
  std::vector<Check> checks;
  auto named = chosen_box(context.arguments, context.environment);
  try {
    std::vector<Box> boxes = read_boxes(context.paths);
    if (named && *named != kLocalBox) {
      boxes.assign(1, find_box(context.paths, *named));
    }
    for (const auto& box : boxes) {
      Check check = co_await check_box(context, box, named.has_value());
      checks.push_back(std::move(check));
    }
  } catch (const UserError& error) {
    checks.push_back({"boxes", Check::Status::error, error.what(), error.next});
  }
  co_return checks;
}

void print(Output& output, const std::vector<Check>& checks) {
  std::vector<std::vector<std::string>> rows = {{"CHECK", "STATUS", "DETAIL"}};
  for (const auto& check : checks) {
    rows.push_back({check.name, text(check.status), check.detail});
  }
  for (const auto& line : table(rows)) {
    output.line(line);
  }
  bool first = true;
  for (const auto& check : checks) {
    if (check.status != Check::Status::ok && !check.fix.empty()) {
      if (first) {
        output.line("\nHow to fix:");
      }
      first = false;
      output.line("  " + check.name + ": " + check.fix);
    }
  }
}

json::object checks_json(const std::vector<Check>& checks) {
  json::array rows;
  for (const auto& check : checks) {
    json::object one;
    one["Check"] = json_text(check.name);
    one["Status"] = text(check.status);
    one["Detail"] = json_text(check.detail);
    if (!check.fix.empty()) {
      one["Fix"] = json_text(check.fix);
    }
    rows.push_back(std::move(one));
  }
  json::object answer;
  answer["Checks"] = std::move(rows);
  return answer;
}

}  // namespace

os::awaitable<int> run_doctor(Context& context) {
  const Environment* environment = &context.environment;
  const Paths* paths = &context.paths;
  std::vector<Check> checks;
  auto add = [&checks](Check check) { checks.push_back(std::move(check)); };
  add(co_await checked(context, [] { return check_git(); }));
  add(co_await checked(context, [environment] { return check_ssh(*environment); }));
  add(co_await checked(context, [environment] { return check_agent_program(*environment); }));
  add(co_await checked(context, [paths] { return check_directory("state", paths->state); }));
  add(co_await checked(context,
                       [paths] { return check_directory("configuration", paths->config); }));
  add(co_await checked(context, [paths] { return check_storage(*paths); }));
  add(co_await checked(context, [paths] { return check_disk(paths->state); }));
  add(co_await checked(context, [paths] { return check_key(*paths); }));
  add(co_await checked(context,
                       [environment, paths] { return check_isolation(*environment, *paths); }));
  std::error_code unreadable;
  bool usable_key = checks[checks.size() - 2].status != Check::Status::error;
  if (usable_key && std::filesystem::exists(paths->key(), unreadable)) {
    add(co_await check_local_agent(context));
    std::vector<Check> boxes = co_await check_boxes(context);
    checks.insert(checks.end(), boxes.begin(), boxes.end());
  }
  bool failed = std::any_of(checks.begin(), checks.end(), [](const Check& check) {
    return check.status == Check::Status::error;
  });
  if (context.output.json()) {
    context.output.json_line(checks_json(checks));
  } else {
    print(context.output, checks);
  }
  co_return failed ? 1 : 0;
}

}  // namespace cli
