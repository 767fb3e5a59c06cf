// sandbox kill: ends detached jobs and all their processes. Waits for no lock.
#include <boost/json.hpp>
#include <cctype>

#include "cli/box_question.h"
#include "cli/boxes.h"
#include "cli/command_runs.h"
#include "cli/job_place.h"
#include "cli/target.h"
#include "protocol/os/signal_names.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

// "TERM" of "TERM", "term", "SIGTERM" or "15".
std::string signal_word(std::string text) {
  for (char& c : text) {
    c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  if (text.compare(0, 3, "SIG") == 0) {
    text.erase(0, 3);
  }
  if (!text.empty() && text.size() <= 2 &&
      text.find_first_not_of("0123456789") == std::string::npos) {
    text = os::signal_name(std::stoi(text));
  }
  if (!os::signal_number(text)) {
    throw UserError("arguments", "there is no signal `" + wire::printable(text, 40) + "`",
                    "INT, TERM, KILL, HUP, QUIT, USR1 and the like are signals.", kMisuse);
  }
  return text;
}

UserError refused(const wire::Failed& failed, const JobPlace& place) {
  switch (wire::errc_from_name(failed.code)) {
    case wire::Errc::not_found:
      return UserError("command", "there is no job " + place.job + " on the box " + place.box,
                       "`sandbox jobs --box " + place.box + "` shows those there are.");
    case wire::Errc::denied:
      return UserError("command", wire::printable(failed.message, 400),
                       "`sandbox kill --force --box " + wire::shell_quote(place.box) + " " +
                           place.job +
                           "` ends it all the same; that is recorded. Nothing was changed.");
    default:
      return failed_error(failed, place.box);
  }
}

}  // namespace

os::awaitable<int> kill_jobs(Context& context, std::optional<std::string> id) {
  wire::Kill kill;
  JobPlace place;
  if (id) {
    place = find_job(context, *id);
    kill.job = place.job;
  } else {
    kill.all = true;
    place.box = chosen_box(context.arguments, context.environment).value_or(kLocalBox);
  }
  kill.force = context.arguments.has("force");
  kill.user = user_name(context.environment);
  if (auto signal = context.arguments.value("signal")) {
    kill.signal = signal_word(*signal);
  }
  auto connection = co_await connect(context, place.box);
  wire::Message answer = co_await ask_box(context, *connection, kill);
  if (const auto* failed = std::get_if<wire::Failed>(&answer)) {
    if (wire::errc_from_name(failed->code) != wire::Errc::unsupported) {
      throw refused(*failed, place);
    }
  }
  const auto* killed = std::get_if<wire::Killed>(&answer);
  if (killed == nullptr) {
    throw no_answer(place.box, answer);
  }
  Output& output = context.output;
  if (output.json()) {
    boost::json::array jobs;
    for (const auto& job : killed->jobs) {
      jobs.emplace_back(json_text(job));
    }
    boost::json::object out;
    out["Killed"] = std::move(jobs);
    out["Box"] = json_text(place.box);
    output.json_line(out);
    co_return 0;
  }
  if (killed->jobs.empty()) {
    std::string whose = kill.force ? "" : " of yours";
    output.line(kill.all ? "No detached job" + whose + " runs on the box " + place.box + "."
                         : "The job " + place.job + " had ended.");
  }
  for (const auto& job : killed->jobs) {
    output.line("Killed job: " + wire::printable(job, 80));
  }
  co_return 0;
}

os::awaitable<int> run_kill(Context& context) {
  const Arguments& arguments = context.arguments;
  if (arguments.has("all") == !arguments.positional.empty()) {
    throw UserError("arguments", "`kill` takes a job's id, or --all",
                    "`sandbox jobs` shows those there are.", kMisuse);
  }
  std::optional<std::string> id;
  if (!arguments.positional.empty()) {
    id = arguments.positional.front();
  }
  int status = co_await kill_jobs(context, id);
  co_return status;
}

}  // namespace cli
