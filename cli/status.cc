// sandbox status: this project's sandbox, who uses it, what runs in it.
#include <algorithm>
#include <boost/json.hpp>

#include "cli/command_runs.h"
#include "cli/existing.h"
#include "cli/sandbox_session.h"
#include "cli/waiting_line.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

json::array holders_json(const std::vector<wire::Holder>& holders) {
  json::array out;
  for (const auto& holder : holders) {
    json::object one;
    one["User"] = json_text(holder.user);
    one["Scope"] = json_text(holder.scope);
    one["Verb"] = json_text(holder.verb);
    one["Command"] = json_text(holder.command);
    one["HeldSeconds"] = holder.held_seconds;
    out.push_back(std::move(one));
  }
  return out;
}

json::array jobs_json(const std::vector<wire::JobInfo>& jobs) {
  json::array out;
  for (const auto& job : jobs) {
    json::object one;
    one["Job"] = json_text(job.job);
    one["Command"] = json_text(job.command);
    one["State"] = json_text(job.state);
    one["PID"] = job.pid;
    one["StartedAt"] = json_text(job.started_at);
    if (job.status) {
      one["ExitCode"] = *job.status;
    } else {
      one["ExitCode"] = nullptr;
    }
    one["Signal"] = json_text(job.signal);
    out.push_back(std::move(one));
  }
  return out;
}

json::object base_json(const Target& target, const Entry* entry, const std::string& url,
                       const std::string& status) {
  json::object answer;
  answer["RunID"] = entry == nullptr ? "" : entry->id;
  answer["RunURL"] = url;
  answer["Status"] = status;
  answer["Active"] = false;
  answer["ConfigFile"] = json_text(entry == nullptr ? target.key.config : entry->key.config);
  answer["Branch"] = json_text(entry == nullptr ? target.key.branch : entry->key.branch);
  answer["Project"] = json_text(entry == nullptr ? target.key.project : entry->key.project);
  answer["Box"] = json_text(entry == nullptr ? target.key.box : entry->key.box);
  return answer;
}

// As list says it, but for this very session, which would count there. What a command left behind
// (resident) uses nothing.
bool is_active(const wire::Status& status) {
  return !status.sandbox.holders.empty() || !status.queue.empty() ||
         std::any_of(status.jobs.begin(), status.jobs.end(),
                     [](const wire::JobInfo& job) { return job.state == "running"; });
}

void say_none(Context& context, const Target& target) {
  if (context.output.json()) {
    context.output.json_line(base_json(target, nullptr, "", "none"));
  } else {
    context.output.line(
        "No sandbox for " + wire::printable(target.key.project) +
        (target.key.branch.empty() ? "" : " on branch " + wire::printable(target.key.branch)) +
        ".");
  }
}

void say(Context& context, const Target& target, const Existing& existing,
         const wire::Status& status) {
  const auto& sandbox = status.sandbox;
  Output& output = context.output;
  if (output.json()) {
    json::object answer = base_json(target, &existing.entry, existing.url, sandbox.state);
    answer["Active"] = is_active(status);
    answer["User"] = json_text(sandbox.user);
    answer["CreatedAt"] = json_text(sandbox.created_at);
    answer["UsedAt"] = json_text(sandbox.used_at);
    answer["Holders"] = holders_json(sandbox.holders);
    answer["Queue"] = holders_json(status.queue);
    answer["Jobs"] = jobs_json(status.jobs);
    answer["Snapshot"] = status.snapshot;
    answer["Unmerged"] = status.unmerged;
    output.json_line(answer);
    return;
  }
  output.line("Sandbox:  " + existing.entry.id + " (" + wire::printable(sandbox.state, 40) + ")");
  output.line("URL:      " + existing.url);
  output.line("Box:      " + wire::printable(existing.entry.key.box));
  output.line("Project:  " + wire::printable(existing.entry.key.project));
  if (!existing.entry.key.branch.empty()) {
    output.line("Branch:   " + wire::printable(existing.entry.key.branch));
  }
  if (!existing.entry.key.config.empty()) {
    output.line("Config:   " + wire::printable(existing.entry.key.config));
  }
  if (!sandbox.created_at.empty()) {
    output.line("Created:  " + wire::printable(sandbox.created_at, 64));
  }
  for (const auto& holder : sandbox.holders) {
    output.line("Running:  " + describe_holder(holder, {}));
  }
  for (const auto& waiter : status.queue) {
    output.line("Waiting:  " + describe_holder(waiter, {}));
  }
  for (const auto& job : status.jobs) {
    if (job.state == "exited") {
      continue;  // --json has them
    }
    output.line("Process:  " + wire::printable(job.command, 200) + " (pid " +
                std::to_string(job.pid) + ", " + wire::printable(job.state, 40) + ")");
  }
  if (status.unmerged) {
    output.line("Unmerged: a command's changes wait on the box; `sandbox pull` brings them back");
  }
}

}  // namespace

os::awaitable<int> run_status(Context& context) {
  Target target = find_target(context);
  if (!context.arguments.has("id")) {
    Resolver resolver = make_resolver(context);
    co_await adopt_detached(context, target);
    std::optional<Entry> found;
    {
      auto storage = co_await resolver.lock();
      ResolveRequest request = target.request();
      if (Entry* entry = choose(*storage, request); entry != nullptr) {
        found = *entry;
      }
    }
    if (!found || found->state == EntryState::failed) {
      say_none(context, target);
      co_return 0;
    }
    if (found->state == EntryState::starting) {
      if (context.output.json()) {
        context.output.json_line(base_json(target, &*found, "", "starting"));
      } else {
        context.output.line("Sandbox:  " + found->id + " (starting)");
      }
      co_return 0;
    }
  }
  Entry entry = co_await existing_entry(context, target, false);
  Existing existing = co_await open_existing(context, target, std::move(entry), true);
  std::optional<BindFailed> gone;
  wire::Message answer;
  try {
    co_await existing.client->bound();
    answer = co_await existing.client->ask(wire::StatusRequest{});
  } catch (const BindFailed& failure) {
    gone = failure;
  }
  if (gone) {
    co_await forget_if_gone(context, *existing.client, existing.entry, *gone);
    say_none(context, target);
    co_return 0;
  }
  if (const auto* failed = std::get_if<wire::Failed>(&answer)) {
    throw failed_error(*failed, existing.entry.key.box);
  }
  const auto* status = std::get_if<wire::Status>(&answer);
  if (status == nullptr) {
    throw UserError("agent",
                    "the box " + existing.entry.key.box + " does not say how the sandbox is");
  }
  say(context, target, existing, *status);
  co_await existing.client->finish();
  co_return 0;
}

}  // namespace cli
