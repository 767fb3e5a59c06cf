#include "cli/report.h"

#include <algorithm>
#include <boost/json.hpp>

#include "cli/error.h"
#include "protocol/os/signal_names.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace wire = protocol::wire;
using wire::printable;

namespace {

constexpr std::size_t kNamed = 5;   // of a list of paths
constexpr std::size_t kLines = 20;  // of one kind

json::array texts(const std::vector<std::string>& values) {
  json::array out;
  for (const auto& value : values) {
    out.emplace_back(json_text(value));
  }
  return out;
}

json::array left_out(const std::vector<wire::LeftOut>& values) {
  json::array out;
  for (const auto& value : values) {
    json::object one;
    one["Path"] = json_text(value.path);
    one["Why"] = json_text(value.why);
    out.push_back(std::move(one));
  }
  return out;
}

// At most kLines of `lines`, then how many more.
void add_lines(std::vector<ReportLine>& report, bool warning, std::vector<std::string> lines) {
  std::size_t more = lines.size() > kLines ? lines.size() - kLines : 0;
  lines.resize(lines.size() - more);
  for (auto& line : lines) {
    report.push_back({warning, std::move(line)});
  }
  if (more != 0) {
    report.push_back(
        {warning, "and " + std::to_string(more) + " more like that; --json names them all"});
  }
}

}  // namespace

std::string name_files(const std::vector<std::string>& paths) {
  std::string text = std::to_string(paths.size()) + (paths.size() == 1 ? " file: " : " files: ");
  for (std::size_t i = 0; i < std::min(paths.size(), kNamed); ++i) {
    text += (i == 0 ? "" : ", ") + printable(paths[i], 200);
  }
  if (paths.size() > kNamed) {
    text += " and " + std::to_string(paths.size() - kNamed) + " more";
  }
  return text;
}

void add_outcome(json::object& answer, const CycleOutcome& outcome) {
  answer["PulledFiles"] = texts(outcome.merged.written);
  answer["DeletedFiles"] = texts(outcome.merged.deleted);
  json::array conflicts;
  for (const auto& conflict : outcome.merged.conflicts) {
    json::object one;
    one["Path"] = json_text(conflict.path);
    one["Saved"] = json_text(conflict.saved);
    one["Why"] = json_text(conflict.why);
    conflicts.push_back(std::move(one));
  }
  answer["Conflicts"] = std::move(conflicts);
  answer["Refused"] = left_out(outcome.merged.refused);
  answer["LeftOut"] = left_out(outcome.left_out);
  answer["Commits"] = texts(outcome.merged.commits);
  if (!outcome.merged.kept.empty() || !outcome.merged.drift.empty()) {
    json::array kept;
    for (const auto* list : {&outcome.merged.kept, &outcome.merged.drift}) {
      for (const auto& one : *list) {
        json::object object;
        object["Commit"] = one.commit;
        object["GitDir"] = json_text(one.store.string());
        kept.push_back(std::move(object));
      }
    }
    answer["Kept"] = std::move(kept);
  }
  answer["Snapshot"] = outcome.snapshot;
  answer["Complete"] = outcome.all_brought_back();
  if (outcome.not_synced) {
    answer["NotSynced"] = true;
  }
  if (!outcome.output_lost.empty()) {
    answer["OutputLost"] = json_text(outcome.output_lost);
  }
  if (!outcome.not_merged.empty()) {
    answer["NotMerged"] = json_text(outcome.not_merged);
  }
  if (!outcome.applied.drift.empty()) {
    json::object drift;
    drift["Ref"] = json_text(outcome.applied.drift);
    drift["Files"] = texts(outcome.applied.drifted);
    answer["Drift"] = std::move(drift);
  }
  if (outcome.exited) {
    if (!outcome.exited->signal.empty()) {
      answer["Signal"] = outcome.exited->signal;
    }
    if (outcome.exited->oom) {
      answer["OutOfMemory"] = true;
    }
    if (!outcome.exited->leftovers.empty()) {
      answer["Leftovers"] = texts(outcome.exited->leftovers);
    }
  }
}

void add_setup(json::object& answer, const std::optional<CycleOutcome>& setup) {
  if (setup) {
    json::object did;
    add_outcome(did, *setup);
    answer["Setup"] = std::move(did);
  }
}

std::vector<ReportLine> describe_outcome(const CycleOutcome& outcome) {
  std::vector<ReportLine> report;
  std::vector<std::string> lines;
  for (const auto& left : outcome.left_out) {
    lines.push_back("left out: " + printable(left.path, 400) + " (" + printable(left.why, 200) +
                    ")");
  }
  add_lines(report, true, std::move(lines));
  if (!outcome.applied.drift.empty()) {
    report.push_back(
        {true,
         "the sandbox had changed by itself since the last command" +
             (outcome.applied.drifted.empty() ? "" : ": " + name_files(outcome.applied.drifted)) +
             "; that is kept, and comes here with what the command changed, or with `sandbox "
             "pull`"});
  }
  if (outcome.exited) {
    if (outcome.exited->oom) {
      report.push_back({true,
                        "the sandbox ran out of memory (limits.memory), and processes in it were "
                        "killed: raise the limit, or run less at once"});
    } else if (!outcome.exited->signal.empty() && outcome.exited->signal != "PIPE" &&
               outcome.exited->signal != "INT") {
      report.push_back({false, "sandbox: the command was ended by SIG" +
                                   printable(outcome.exited->signal, 20) +
                                   (outcome.exited->core_dumped ? " (core dumped)" : "")});
    }
    lines.clear();
    for (const auto& leftover : outcome.exited->leftovers) {
      lines.push_back("ended, because the command left it behind: " + printable(leftover, 200));
    }
    add_lines(report, true, std::move(lines));
  }
  if (!outcome.merged.written.empty()) {
    report.push_back({false, "sandbox: brought back " + name_files(outcome.merged.written)});
  }
  if (!outcome.merged.deleted.empty()) {
    report.push_back({false, "sandbox: deleted here, too, " + name_files(outcome.merged.deleted)});
  }
  lines.clear();
  for (const auto& commit : outcome.merged.commits) {
    std::string name = printable(commit, 200);
    if (commit.starts_with("refs/sandbox/stash/")) {
      lines.push_back("sandbox: what was stashed in the sandbox is here as " + name +
                      ": `git stash apply " + name + "`");
    } else if (commit.starts_with("refs/sandbox/drift/")) {
      lines.push_back("sandbox: what the sandbox had changed by itself is here as " + name +
                      ": `git show --stat " + name + "`");
    } else if (commit.starts_with("refs/sandbox/tags/")) {
      lines.push_back("sandbox: a tag made in the sandbox is here as " + name);
    } else {
      lines.push_back("sandbox: commits made in the sandbox are here as " + name);
    }
  }
  add_lines(report, false, std::move(lines));
  lines.clear();
  for (const auto& conflict : outcome.merged.conflicts) {
    lines.push_back(
        "conflict: " + printable(conflict.path, 400) + ": " + printable(conflict.why, 200) +
        "; yours stays" +
        (conflict.saved.empty() ? "" : ", the sandbox's is in " + printable(conflict.saved, 400)));
  }
  add_lines(report, true, std::move(lines));
  lines.clear();
  for (const auto& refused : outcome.merged.refused) {
    lines.push_back("not brought back: " + printable(refused.path, 400) + " (" +
                    printable(refused.why, 200) + ")");
  }
  add_lines(report, true, std::move(lines));
  for (auto& line : describe_kept(outcome)) {
    report.push_back(std::move(line));
  }
  if (!outcome.not_merged.empty()) {
    report.push_back({true, "what the command changed could not be brought back: " +
                                printable(outcome.not_merged, 1000) +
                                "; the box keeps it, and `sandbox pull` tries again"});
  }
  return report;
}

std::vector<ReportLine> describe_kept(const CycleOutcome& outcome) {
  std::vector<ReportLine> report;
  auto show = [](const protocol::sync::MergeReport::Kept& kept) {
    std::vector<std::string> words = {"git", "--git-dir", kept.store.string(), "show",
                                      kept.commit + ":PATH"};
    return printable(wire::shell_join(words));
  };
  if (!outcome.merged.refused.empty() && !outcome.merged.kept.empty()) {
    report.push_back({false, "sandbox: it is kept here: " + show(outcome.merged.kept.back())});
  }
  for (const auto& drift : outcome.merged.drift) {
    report.push_back(
        {false, "sandbox: what the sandbox had changed by itself is kept here: " + show(drift)});
  }
  return report;
}

int command_status(const wire::Exited& exited) {
  if (!exited.signal.empty()) {
    return 128 + protocol::os::signal_number(exited.signal).value_or(127);
  }
  return exited.status;
}

int exit_status(const CycleOutcome& outcome) {
  int status = outcome.exited ? command_status(*outcome.exited) : 0;
  bool all_here = outcome.all_brought_back() && outcome.output_lost.empty();
  return status == 0 && !all_here ? kIncomplete : status;
}

int exit_status(const CycleOutcome& outcome, const std::optional<CycleOutcome>& setup) {
  int status = exit_status(outcome);
  return status == 0 && setup ? exit_status(*setup) : status;
}

}  // namespace cli
