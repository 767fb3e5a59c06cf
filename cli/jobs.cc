// sandbox jobs: detached jobs of a box, and what became of them.
#include <boost/json.hpp>
#include <set>

#include "cli/ask_all.h"
#include "cli/box_question.h"
#include "cli/boxes.h"
#include "cli/ci_identity.h"
#include "cli/command_runs.h"
#include "cli/job_records.h"
#include "cli/target.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr std::chrono::minutes kWithoutHaste{1};  // where the user may be asked for a passphrase

struct BoxJobs {
  std::string box;
  std::vector<wire::DetachedJob> jobs;
  std::optional<UserError> failed;
};

// --box alone, else the local box and those where jobs were detached from here. A record outlives
// its box: one that was deleted from the list has nothing to say.
std::set<std::string> boxes_to_ask(const Context& context) {
  if (auto chosen = chosen_box(context.arguments, context.environment)) {
    return {*chosen};
  }
  std::vector<Box> known = read_boxes(context.paths);
  std::set<std::string> boxes{kLocalBox};
  for (const auto& record : remembered_jobs(context.paths, {}, context.output)) {
    if (find_name(known, record.box) != nullptr || parse_address(record.box)) {
      boxes.insert(record.box);
    }
  }
  return boxes;
}

os::awaitable<void> ask(Context& context, BoxJobs& answer, bool alone) {
  std::shared_ptr<Connection> connection;
  if (answer.box == kLocalBox) {
    connection = co_await connect_if_running(context);
    if (!connection) {
      co_return;  // an agent that has ended has no jobs that run
    }
  } else if (alone) {
    connection = co_await connect(context, answer.box);
  } else {
    // Of several that are asked at once none may ask the user anything.
    Box box = find_box(context.paths, answer.box);
    connection = co_await contact(context, box, kAskTime);
  }
  wire::JobsRequest request;
  request.user = user_name(context.environment);
  wire::Message said = co_await ask_box(context, *connection, request);
  const auto* jobs = std::get_if<wire::Jobs>(&said);
  if (jobs == nullptr) {
    throw no_answer(answer.box, said);
  }
  answer.jobs = jobs->jobs;
}

os::awaitable<void> ask_one(Context& context, BoxJobs& answer, bool alone) {
  answer.failed.reset();
  try {
    co_await ask(context, answer, alone);
  } catch (const UserError& error) {
    answer.failed = error;
  }
}

// "running", "exited 3", "killed by SIGTERM", "lost"
std::string state_text(const wire::DetachedJob& job) {
  if (job.state != "exited") {
    return job.state;
  }
  if (!job.signal.empty()) {
    return "ended by SIG" + job.signal;
  }
  return "exited " + std::to_string(job.status.value_or(0));
}

json::object job_json(const std::string& box, const wire::DetachedJob& job) {
  json::object one;
  one["JobID"] = json_text(job.job);
  one["Box"] = json_text(box);
  one["User"] = json_text(job.user);
  one["Scope"] = json_text(job.scope);
  one["RunID"] = json_text(job.sandbox);
  one["Command"] = json_text(job.command);
  one["State"] = json_text(job.state);
  one["StartedAt"] = json_text(job.started_at);
  one["EndedAt"] = json_text(job.ended_at);
  if (job.status) {
    one["ExitCode"] = *job.status;
  } else {
    one["ExitCode"] = nullptr;
  }
  one["Signal"] = json_text(job.signal);
  return one;
}

void print(Output& output, const std::vector<BoxJobs>& all) {
  if (output.json()) {
    json::array jobs;
    for (const auto& box : all) {
      for (const auto& job : box.jobs) {
        jobs.push_back(job_json(box.box, job));
      }
    }
    json::object answer;
    answer["Jobs"] = std::move(jobs);
    output.json_line(answer);
    return;
  }
  std::vector<std::vector<std::string>> rows{{"JOB", "BOX", "USER", "STATE", "STARTED", "COMMAND"}};
  for (const auto& box : all) {
    for (const auto& job : box.jobs) {
      rows.push_back({job.job, box.box, shown_user(job.user, job.scope), state_text(job),
                      job.started_at, job.command});
    }
  }
  if (rows.size() == 1) {
    output.line("No detached jobs. `sandbox exec --detach -- COMMAND` starts one.");
    return;
  }
  for (const auto& line : table(rows)) {
    output.line(line);
  }
}

}  // namespace

os::awaitable<int> run_jobs(Context& context) {
  std::set<std::string> boxes = boxes_to_ask(context);
  bool alone = boxes.size() == 1;
  std::vector<Question<BoxJobs>> questions;
  for (const auto& box : boxes) {
    Question<BoxJobs>& question = questions.emplace_back();
    question.time = alone ? kWithoutHaste : kAskTime + kAskTime;
    question.unanswered.box = box;
    question.unanswered.failed = UserError("box", "the box " + box + " does not answer in time",
                                           "`sandbox boxes` shows how the boxes are.");
    question.ask = [&context, alone](BoxJobs& one) { return ask_one(context, one, alone); };
  }
  std::vector<BoxJobs> all = co_await ask_all(context.executor, std::move(questions));
  std::optional<UserError> unanswered;
  bool any = false;
  for (const auto& one : all) {
    any = any || !one.failed;
    if (one.failed) {
      unanswered = one.failed;
    }
  }
  if (unanswered && !any) {
    throw UserError(*unanswered);
  }
  for (const auto& one : all) {
    if (one.failed) {  // one box that is away does not hide the others' jobs
      context.output.warn(one.box + ": " + one.failed->what());
    }
  }
  print(context.output, all);
  co_return unanswered ? unanswered->status : 0;
}

}  // namespace cli
