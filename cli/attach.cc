// sandbox attach: a detached job's output from its first byte, then live; ends with the job's
// status, and brings back what it changed. Ctrl+C asks whether to end the job, Ctrl+D leaves it
// running.
#include <signal.h>

#include <boost/json.hpp>
#include <utility>

#include "cli/attachment.h"
#include "cli/box_question.h"
#include "cli/command_runs.h"
#include "cli/existing.h"
#include "cli/job_place.h"
#include "cli/report.h"
#include "cli/sandbox_session.h"
#include "cli/standard_streams.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

StandardStreams::Options stream_options(const Environment& environment) {
  StandardStreams::Options options;
  options.output = environment.stdout_open ? 1 : -1;
  options.error = environment.stderr_open ? 2 : -1;
  return options;
}

// One attachment and the person who watches it. Shared with the coroutine that reads the keyboard,
// which may sit in a read for as long as the process lives.
struct Watch : std::enable_shared_from_this<Watch> {
  Watch(Context& c, JobPlace p, std::shared_ptr<Connection> way, std::shared_ptr<Session> session)
      : context(c),
        place(std::move(p)),
        connection(std::move(way)),
        streams(c.executor, c.output, stream_options(c.environment)),
        attachment(c.executor, std::move(session), streams, c.output),
        person(c.environment.stdin_is_terminal && c.environment.stderr_is_terminal &&
               !c.output.json()) {}

  void on_signal(int signal) {
    if (signal == SIGWINCH) {
      return;
    }
    if (signal == SIGINT && person && !asking) {
      asking = true;
      context.output.prompt("\nEnd the job? [y/N]   (Ctrl+D leaves it running) ");
      return;
    }
    left_by = signal;
    attachment.leave();
  }

  static os::awaitable<void> listen(std::shared_ptr<Watch> self) {
    for (;;) {
      std::optional<std::string> bytes = co_await self->streams.read_input();
      if (!bytes) {
        self->attachment.leave();  // without effect when the job has ended
        co_return;
      }
      if (std::exchange(self->asking, false) && (bytes->front() == 'y' || bytes->front() == 'Y')) {
        co_await end_job(self);
      }
    }
  }

  static os::awaitable<void> end_job(std::shared_ptr<Watch> self) {
    wire::Kill kill;
    kill.job = self->place.job;
    kill.user = user_name(self->context.environment);
    try {
      wire::Message answer = co_await ask_box(self->context, *self->connection, kill);
      if (!std::holds_alternative<wire::Killed>(answer)) {
        self->context.output.warn(no_answer(self->place.box, answer).what());
      }
    } catch (const UserError& error) {
      self->context.output.warn(std::string("cannot end the job: ") + error.what());
    }
  }

  Context& context;
  JobPlace place;
  std::shared_ptr<Connection> connection;
  StandardStreams streams;
  Attachment attachment;
  bool person;
  bool asking = false;
  int left_by = 0;  // the signal that made us leave
};

// What the job changed, into the work tree that it was detached from.
os::awaitable<void> bring_back(Context& context, const JobRecord& record, CycleOutcome& outcome) {
  std::string why;
  try {
    Target target = find_target(context, std::string());
    if (target.project.root == record.project) {
      co_await aim_at(context, target, record.sandbox);
      Entry entry = co_await named_entry(context, target, record.sandbox, true);
      Existing existing = co_await open_existing(context, target, std::move(entry), true);
      co_await existing.client->bound();
      CycleOutcome pulled = co_await existing.client->pull(existing.origin);
      co_await existing.client->finish();
      pulled.exited = outcome.exited;
      pulled.output_lost = outcome.output_lost;
      if (pulled.failed) {
        pulled.not_merged = pulled.failed->message;
      }
      outcome = std::move(pulled);
      co_return;
    }
    context.output.note("sandbox: `sandbox pull` in " + wire::printable(record.project, 400) +
                        " brings back what the job changed");
  } catch (const UserError& error) {
    why = error.what();
  } catch (const BindFailed& failure) {
    why = failure.what();
  }
  outcome.not_merged = why;
}

void print_left(const Watch& watch) {
  Output& output = watch.context.output;
  output.note("sandbox: the job runs on");
  output.note("  sandbox attach " + watch.place.job + "   # its output from the beginning");
  output.note("  sandbox kill " + watch.place.job);
}

UserError refused(const wire::Failed& failed, const JobPlace& place) {
  switch (wire::errc_from_name(failed.code)) {
    case wire::Errc::not_found:
      return UserError("command", "there is no job " + place.job + " on the box " + place.box,
                       "`sandbox jobs --box " + place.box + "` shows those there are.");
    case wire::Errc::denied:
      return UserError("command", wire::printable(failed.message, 400),
                       "Only its own user sees its output; `sandbox jobs --box " +
                           wire::shell_quote(place.box) + "` shows how it is.");
    case wire::Errc::unsupported:
      return no_answer(place.box, failed);
    default:
      return failed_error(failed, place.box);
  }
}

}  // namespace

os::awaitable<int> attach_to_job(Context& context, std::string id) {
  JobPlace place = find_job(context, id);
  std::shared_ptr<SessionLock> held;  // while we watch
  if (place.record) {
    held = co_await hold_sandbox(context, place.record->sandbox, place.box);
  }
  std::shared_ptr<Connection> connection = co_await connect(context, place.box);
  std::shared_ptr<Session> session = co_await connection->open_session(context.trace);
  auto watch = std::make_shared<Watch>(context, place, connection, std::move(session));
  SignalScope scope(context.signals, [watch](int signal) { watch->on_signal(signal); });
  if (watch->person) {
    os::spawn(context.executor, "keyboard", Watch::listen(watch));
  }
  Attachment::Outcome seen =
      co_await watch->attachment.run(place.job, user_name(context.environment));
  if (seen.failed) {
    throw refused(*seen.failed, place);
  }
  if (!seen.exited) {
    print_left(*watch);
    if (watch->left_by != 0) {
      co_return 128 + watch->left_by;
    }
    // Ctrl+D; or nobody reads what we print.
    co_return watch->person ? 0 : 128 + SIGPIPE;
  }
  CycleOutcome outcome;
  outcome.exited = seen.exited;
  outcome.output_lost = seen.output_lost;
  if (place.record) {
    co_await bring_back(context, *place.record, outcome);
  }
  Output& output = context.output;
  for (const auto& line : describe_outcome(outcome)) {
    if (line.warning) {
      output.warn(line.text);
    } else {
      output.note(line.text);
    }
  }
  if (output.json()) {
    json::object answer;
    answer["JobID"] = place.job;
    answer["RunID"] = place.record ? place.record->sandbox : "";
    answer["Box"] = json_text(place.box);
    answer["ExitCode"] = exit_status(outcome);
    answer["CommandStatus"] = command_status(*outcome.exited);
    add_outcome(answer, outcome);
    output.json_line(answer);
  }
  co_return exit_status(outcome);
}

os::awaitable<int> run_attach(Context& context) {
  if (context.arguments.positional.empty()) {
    throw UserError("arguments", "`attach` takes a job's id",
                    "`sandbox jobs` shows those there are.", kMisuse);
  }
  int status = co_await attach_to_job(context, context.arguments.positional.front());
  co_return status;
}

}  // namespace cli
