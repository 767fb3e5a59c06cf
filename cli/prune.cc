// sandbox prune: removes sandboxes that nobody uses. Each is looked at again, under its locks, at
// the moment of its removal.
#include <algorithm>
#include <boost/json.hpp>

#include "cli/command_runs.h"
#include "cli/confirm.h"
#include "cli/prune_choice.h"
#include "cli/removal.h"
#include "cli/survey.h"
#include "cli/target.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

struct Pruned {
  KnownSandbox sandbox;
  Removal removal;
};

std::string name_of(const KnownSandbox& sandbox) {
  return sandbox.id + " (" + (sandbox.orphaned ? "orphaned, " : "") +
         wire::printable(sandbox.project, 400) +
         (sandbox.branch.empty() ? "" : ", " + wire::printable(sandbox.branch, 200)) +
         (sandbox.size_bytes < 0 ? "" : ", " + show_bytes(sandbox.size_bytes)) + ")";
}

std::string count_of(std::size_t count) {
  return std::to_string(count) + (count == 1 ? " sandbox" : " sandboxes");
}

std::string interrupted_of(std::int64_t count) {
  return std::to_string(count) +
         (count == 1 ? " removal that was cut off" : " removals that were cut off");
}

std::string total_of(const std::vector<KnownSandbox>& sandboxes) {
  std::int64_t bytes = 0;
  for (const auto& sandbox : sandboxes) {
    bytes += std::max<std::int64_t>(sandbox.size_bytes, 0);
  }
  return show_bytes(bytes);
}

// Those that the command line chooses; in order, last used first.
std::vector<KnownSandbox> choose(const BoxSurvey& survey, const PruneChoice& choice) {
  std::vector<const KnownSandbox*> there;
  std::vector<PruneCandidate> candidates;
  for (const auto& sandbox : survey.sandboxes) {
    // One of which its own agent does not speak may be anything.
    if (sandbox.url.empty() && sandbox.state == "unknown") {
      continue;
    }
    there.push_back(&sandbox);
    candidates.push_back({sandbox.used_at, sandbox.orphaned, sandbox.active});
  }
  std::vector<KnownSandbox> chosen;
  for (std::size_t index : choose_to_prune(candidates, choice, timestamp())) {
    chosen.push_back(*there[index]);
  }
  return chosen;
}

class Prune {
 public:
  Prune(Context& context, SessionClient& client, RemovalOptions options)
      : context_(context), client_(client), options_(options) {}

  // Decides about each of them on the box, without removing any. What stays is reported; the rest
  // comes back.
  os::awaitable<std::vector<KnownSandbox>> decide(std::vector<KnownSandbox> chosen);
  os::awaitable<void> remove(std::vector<KnownSandbox> chosen);
  os::awaitable<std::int64_t> interrupted(bool dry_run);

  std::vector<Pruned> removed, kept, failed;

 private:
  os::awaitable<Removal> remove_one(KnownSandbox sandbox, RemovalOptions options);
  void sort(Pruned pruned, bool named);

  Context& context_;
  SessionClient& client_;
  RemovalOptions options_;
};

os::awaitable<Removal> Prune::remove_one(KnownSandbox sandbox, RemovalOptions options) {
  std::optional<os::FileLock> starter;
  if (sandbox.entry && sandbox.entry->state == EntryState::starting) {
    starter = make_resolver(context_).try_lock_starter(sandbox.entry->key);
    if (!starter) {
      Removal busy;
      busy.outcome = Removal::Outcome::in_use;
      busy.why = "another process is starting it";
      co_return busy;
    }
  }
  Removal removal = co_await remove_if_idle(context_, client_, sandbox.id, options);
  if (removal.is_gone() && sandbox.entry && !options.dry_run) {
    co_await forget_sandbox(context_, *sandbox.entry);
  }
  co_return removal;
}

void Prune::sort(Pruned pruned, bool named) {
  switch (pruned.removal.outcome) {
    case Removal::Outcome::removed:
      removed.push_back(std::move(pruned));
      break;
    case Removal::Outcome::gone:
      break;
    case Removal::Outcome::in_use:
      if (named) {  // the user was told that it goes
        context_.output.note("sandbox: kept " + name_of(pruned.sandbox) + ": it is in use by now");
        kept.push_back(std::move(pruned));
      }
      break;
    case Removal::Outcome::unpulled:
      context_.output.warn(
          "kept " + name_of(pruned.sandbox) + ": " + pruned.removal.why + "; `sandbox pull --id " +
          pruned.sandbox.id +
          "` brings it back, and what no command of yours changed `sandbox push` in its "
          "project; --discard removes it all the same");
      kept.push_back(std::move(pruned));
      break;
    case Removal::Outcome::failed:
      context_.output.warn("not removed: " + name_of(pruned.sandbox) + ": " + pruned.removal.why);
      failed.push_back(std::move(pruned));
      break;
  }
}

os::awaitable<std::vector<KnownSandbox>> Prune::decide(std::vector<KnownSandbox> chosen) {
  std::vector<KnownSandbox> left;
  RemovalOptions asking = options_;
  asking.dry_run = true;
  for (auto& sandbox : chosen) {
    Removal removal = co_await remove_one(sandbox, asking);
    if (removal.outcome == Removal::Outcome::removed) {
      left.push_back(std::move(sandbox));
    } else {
      sort({std::move(sandbox), std::move(removal)}, false);
    }
  }
  co_return left;
}

os::awaitable<void> Prune::remove(std::vector<KnownSandbox> chosen) {
  for (auto& sandbox : chosen) {
    Removal removal = co_await remove_one(sandbox, options_);
    sort({std::move(sandbox), std::move(removal)}, true);
  }
}

os::awaitable<std::int64_t> Prune::interrupted(bool dry_run) {
  wire::Reclaim reclaim;
  reclaim.dry_run = dry_run;
  wire::Message answer = co_await client_.ask(reclaim);
  const auto* reclaimed = std::get_if<wire::Reclaimed>(&answer);
  co_return reclaimed == nullptr ? 0 : reclaimed->removals;
}

json::array pruned_json(const std::vector<Pruned>& all) {
  json::array out;
  for (const auto& one : all) {
    json::object object;
    object["RunID"] = json_text(one.sandbox.id);
    object["Project"] = json_text(one.sandbox.project);
    object["Branch"] = json_text(one.sandbox.branch);
    object["Box"] = json_text(one.sandbox.box);
    if (!one.removal.why.empty()) {
      object["Why"] = json_text(one.removal.why);
    }
    out.push_back(std::move(object));
  }
  return out;
}

void print_json(Output& output, const Prune& prune, std::int64_t reclaimed, bool dry_run) {
  json::object answer;
  answer["Removed"] = pruned_json(prune.removed);
  answer["Kept"] = pruned_json(prune.kept);
  answer["Failed"] = pruned_json(prune.failed);
  answer["Reclaimed"] = reclaimed;
  answer["DryRun"] = dry_run;
  output.json_line(answer);
}

void print(Output& output, const Prune& prune, std::int64_t reclaimed) {
  std::vector<KnownSandbox> removed;
  for (const auto& one : prune.removed) {
    output.line("Removed sandbox: " + name_of(one.sandbox));
    removed.push_back(one.sandbox);
  }
  std::string text = "Removed " + count_of(removed.size());
  if (!removed.empty()) {
    text += " (" + total_of(removed) + ")";
  }
  if (reclaimed > 0) {
    text += ", finished " + interrupted_of(reclaimed);
  }
  if (!prune.kept.empty()) {
    text += ", kept " + std::to_string(prune.kept.size());
  }
  if (!prune.failed.empty()) {
    text += ", failed to remove " + std::to_string(prune.failed.size());
  }
  output.line(text + ".");
}

int nothing_to_prune(Context& context) {
  if (context.output.json()) {
    context.output.json_line(json::object{{"Removed", json::array()},
                                          {"Kept", json::array()},
                                          {"Failed", json::array()},
                                          {"Reclaimed", 0},
                                          {"DryRun", context.arguments.has("dry-run")}});
  } else {
    context.output.line("No sandbox to remove.");
  }
  return 0;
}

}  // namespace

os::awaitable<int> run_prune(Context& context) {
  const Arguments& arguments = context.arguments;
  Output& output = context.output;
  PruneChoice choice = prune_choice(arguments);
  RemovalOptions options;
  options.discard = arguments.has("discard");
  bool dry_run = arguments.has("dry-run");
  std::string box = named_box(context).value_or(kLocalBox);

  SurveyOptions asked;
  asked.sizes = true;
  std::vector<Entry> entries = co_await entries_here(context);
  std::vector<std::string> boxes(1, box);
  auto surveys = co_await survey(context, boxes, entries, asked);
  BoxSurvey& there = surveys.front();
  if (there.failed) {
    throw UserError(there.failed->origin, there.failed->what(), "Nothing was removed.",
                    there.failed->status);
  }
  if (!there.reached) {  // the local agent does not run, and has nothing
    co_return nothing_to_prune(context);
  }
  Resolver resolver = make_resolver(context);
  for (const auto& entry : there.gone) {
    co_await resolver.forget(entry.id, entry.agent);
  }
  auto session = co_await there.connection->open_session(context.trace);
  SessionClient client(context.executor, context.pool, std::move(session), output);
  Prune prune(context, client, options);
  std::vector<KnownSandbox> chosen = choose(there, choice);
  std::int64_t interrupted = co_await prune.interrupted(true);
  bool ask = !dry_run && !arguments.has("force");
  if (dry_run || ask) {
    chosen = co_await prune.decide(std::move(chosen));
  }
  if (chosen.empty() && interrupted == 0 && prune.kept.empty() && prune.failed.empty()) {
    co_await client.finish();
    co_return nothing_to_prune(context);
  }
  if (dry_run && output.json()) {
    for (auto& sandbox : chosen) {
      prune.removed.push_back({std::move(sandbox), {}});
    }
    print_json(output, prune, interrupted, true);
    co_return 0;
  }
  if (dry_run) {
    for (const auto& sandbox : chosen) {
      output.line("Would remove: " + name_of(sandbox));
    }
    output.line("Would remove " + count_of(chosen.size()) + " (" + total_of(chosen) + ")" +
                (interrupted > 0 ? ", finish " + interrupted_of(interrupted) : "") +
                ". Nothing was removed: this was a dry run.");
    co_return 0;
  }
  if (ask && (!chosen.empty() || interrupted > 0)) {
    for (const auto& sandbox : chosen) {
      output.note("  " + name_of(sandbox));
    }
    std::string question = "Remove " + count_of(chosen.size()) + " (" + total_of(chosen) + ")" +
                           (interrupted > 0 ? " and finish " + interrupted_of(interrupted) : "") +
                           "?";
    bool yes = co_await confirm(context, question, "--force");
    if (!yes) {
      co_await client.finish();
      output.line("Nothing was removed.");
      co_return 0;
    }
  }
  co_await prune.remove(std::move(chosen));
  std::int64_t reclaimed = interrupted > 0 ? co_await prune.interrupted(false) : 0;
  co_await client.finish();
  if (output.json()) {
    print_json(output, prune, reclaimed, false);
  } else {
    print(output, prune, reclaimed);
  }
  co_return prune.failed.empty() ? 0 : kFailed;
}

}  // namespace cli
