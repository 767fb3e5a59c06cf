// How an installed agent is started: by a script on the box, which the service or a daemon runs,
// and which says what it was made from. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace cli {

struct ServiceOptions {
  std::string name;    // what the agent calls its box
  std::string listen;  // HOST:PORT
  std::string slots;   // a number
  bool operator==(const ServiceOptions&) const = default;
};

// `program` and `state` are absolute paths on the box.
std::string serve_script(const std::string& program, const std::string& state,
                         const ServiceOptions& options);
// What serve_script was given; std::nullopt for any other text.
std::optional<ServiceOptions> parse_serve_script(std::string_view text);

// The systemd unit that runs the script at this absolute path. Supervisors outlive the agent's
// restart; that a box is stopped for good is said by `systemctl --user stop`.
std::string unit_file(const std::string& script, const ServiceOptions& options);

}  // namespace cli
