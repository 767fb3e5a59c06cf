#include "cli/output.h"
#include "cli/update.h"
#include "protocol/wire/quoting.h"

namespace cli {

namespace {

constexpr std::size_t kShown = 400;

const char* name(UpdateOutcome outcome) {
  switch (outcome) {
    case UpdateOutcome::updated:
      return "updated";
    case UpdateOutcome::current:
      return "current";
    case UpdateOutcome::newer:
      return "newer";
    case UpdateOutcome::skipped:
      return "skipped";
    case UpdateOutcome::not_installed:
      return "not installed";
    case UpdateOutcome::failed:
      break;
  }
  return "failed";
}

std::string what(const BoxUpdate& update) {
  auto shown = [](const std::string& text) { return protocol::wire::printable(text, kShown); };
  std::string from = shown(update.from);
  switch (update.outcome) {
    case UpdateOutcome::updated:
      return update.from == update.to
                 ? "updated to another build of " + from
                 : "updated " + (from.empty() ? "" : from + " ") + "to " + shown(update.to);
    case UpdateOutcome::current:
      return "is current (" + shown(update.to) + ")";
    case UpdateOutcome::newer:
      return "has a newer agent (" + from + ") than this sandbox (" + shown(update.to) +
             "): update this one";
    case UpdateOutcome::skipped:
      return "SKIPPED (locked or busy)";
    case UpdateOutcome::not_installed:
      return "was not installed from here: `sandbox boxes install` makes it so";
    case UpdateOutcome::failed:
      break;
  }
  return "FAILED: " + shown(update.why);
}

}  // namespace

std::string update_line(const BoxUpdate& update) { return update.box + ": " + what(update); }

boost::json::object update_json(const BoxUpdate& update) {
  boost::json::object object;
  object["Name"] = json_text(update.box);
  object["Result"] = name(update.outcome);
  object["From"] = json_text(update.from);
  object["To"] = json_text(update.to);
  object["Why"] = json_text(update.why);
  return object;
}

}  // namespace cli
