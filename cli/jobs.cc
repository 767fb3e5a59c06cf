// sandbox jobs: detached jobs of a box, and what became of them.
#include <boost/json.hpp>
#include <set>

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

struct BoxJobs {
  std::string box;
  std::vector<wire::DetachedJob> jobs;
};

// --box alone, else the local box and those where jobs were detached from here.
std::set<std::string> boxes_to_ask(const Context& context) {
  if (auto chosen = chosen_box(context.arguments, context.environment)) {
    return {*chosen};
  }
  std::set<std::string> boxes{kLocalBox};
  for (const auto& record : remembered_jobs(context.paths, {})) {
    boxes.insert(record.box);
  }
  return boxes;
}

os::awaitable<BoxJobs> ask(Context& context, std::string box) {
  BoxJobs answer;
  answer.box = box;
  std::shared_ptr<Connection> connection;
  if (box == kLocalBox) {
    connection = co_await connect_if_running(context);
    if (!connection) {
      co_return answer;  // an agent that has ended has no jobs that run
    }
  } else {
    connection = co_await connect(context, box);
  }
  wire::JobsRequest request;
  request.user = user_name(context.environment);
  wire::Message said = co_await ask_box(context, *connection, request);
  const auto* jobs = std::get_if<wire::Jobs>(&said);
  if (jobs == nullptr) {
    throw no_answer(box, said);
  }
  answer.jobs = jobs->jobs;
  co_return answer;
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
  std::vector<BoxJobs> all;
  std::optional<UserError> unanswered;
  for (const auto& box : boxes_to_ask(context)) {
    try {
      BoxJobs one = co_await ask(context, box);
      all.push_back(std::move(one));
    } catch (const UserError& error) {
      // One box that is away does not hide the others' jobs.
      context.output.warn(box + ": " + error.what());
      unanswered = error;
    }
  }
  if (unanswered && all.empty()) {
    throw *unanswered;
  }
  print(context.output, all);
  co_return unanswered ? unanswered->status : 0;
}

}  // namespace cli
