// What `sandbox update` says of each box.
#include <boost/json.hpp>

#include "cli/update.h"
#include "tests/support/catch.h"

namespace {

using cli::BoxUpdate;
using cli::UpdateOutcome;

BoxUpdate update(UpdateOutcome outcome, std::string from = "0.1.0", std::string to = "0.2.0") {
  BoxUpdate made;
  made.box = "rig";
  made.outcome = outcome;
  made.from = std::move(from);
  made.to = std::move(to);
  return made;
}

}  // namespace

TEST_CASE("a box that is locked or busy has the line of the contract", "[L46]") {
  CHECK(cli::update_line(update(UpdateOutcome::skipped)) == "rig: SKIPPED (locked or busy)");
}

TEST_CASE("an update names both versions, as far as they are known and differ") {
  auto line = [](const std::string& from, const std::string& to) {
    return cli::update_line(update(UpdateOutcome::updated, from, to));
  };
  CHECK(line("0.1.0", "0.2.0") == "rig: updated 0.1.0 to 0.2.0");
  CHECK(line("0.1.0", "0.1.0") == "rig: updated to another build of 0.1.0");
  CHECK(line("", "0.2.0") == "rig: updated to 0.2.0");
  CHECK(cli::update_line(update(UpdateOutcome::current, "0.2.0")) == "rig: is current (0.2.0)");
}

TEST_CASE("a newer agent says which side to update, and its version does nothing to the terminal") {
  auto line = cli::update_line(update(UpdateOutcome::newer, "9\x1b[2J", "0.2.0"));
  CHECK(line.find("than this sandbox (0.2.0): update this one") != std::string::npos);
  CHECK(line.find('\x1b') == std::string::npos);
}

TEST_CASE("the JSON of an update has the same keys whatever happened") {
  BoxUpdate failed = update(UpdateOutcome::failed, "", "");
  failed.why = "no way there";
  CHECK(boost::json::serialize(cli::update_json(failed)) ==
        R"({"Name":"rig","Result":"failed","From":"","To":"","Why":"no way there"})");
  CHECK(cli::update_json(update(UpdateOutcome::updated)).size() == 5);
}
