// What a cycle did, for people (lines on stderr) and for programs (JSON). Pure.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/session_client.h"

namespace cli {

// Adds PulledFiles, DeletedFiles, Conflicts, Refused, LeftOut, Commits, Drift, Leftovers, Snapshot
// ... to an answer.
void add_outcome(boost::json::object& answer, const CycleOutcome& outcome);

// The same of the setup commands of a sandbox that was made, as `Setup`; nothing when none ran.
void add_setup(boost::json::object& answer, const std::optional<CycleOutcome>& setup);

// Lines that name what the user has to know: nothing when all went as wanted and nothing changed
// here.
struct ReportLine {
  bool warning = false;
  std::string text;
};
std::vector<ReportLine> describe_outcome(const CycleOutcome& outcome);
// Of these, where what is not among the files here is kept.
std::vector<ReportLine> describe_kept(const CycleOutcome& outcome);

// The exit status of a command that ran, before what could not be brought back is looked at.
int command_status(const protocol::wire::Exited& exited);
// With it, and with output that could not be written here: 0 becomes 254.
int exit_status(const CycleOutcome& outcome);
// The same, for a command that made the sandbox first.
int exit_status(const CycleOutcome& outcome, const std::optional<CycleOutcome>& setup);

// "3 files: a, b, c", "12 files: a, b, c, d, e and 7 more"
std::string name_files(const std::vector<std::string>& paths);

}  // namespace cli
