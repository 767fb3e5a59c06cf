// What `sandbox update` did to one box, and how it says so. Pure.
#pragma once

#include <boost/json/object.hpp>
#include <string>

namespace cli {

enum class UpdateOutcome { updated, current, newer, skipped, not_installed, failed };

struct BoxUpdate {
  std::string box;
  UpdateOutcome outcome = UpdateOutcome::failed;
  std::string from;  // versions; empty: not known
  std::string to;
  std::string why;  // it was skipped, or failed
};

// "rig: updated 0.1.0 to 0.2.0"; of one that was skipped exactly "rig: SKIPPED (locked or busy)".
std::string update_line(const BoxUpdate& update);
// One element of "Boxes".
boost::json::object update_json(const BoxUpdate& update);

}  // namespace cli
