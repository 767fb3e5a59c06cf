// Signals by name, as people and the wire write them.
#pragma once

#include <optional>
#include <string>

namespace protocol::os {

std::string signal_name(int signal);                        // "KILL"; "RT3" and the like
std::optional<int> signal_number(const std::string& name);  // of "KILL" or "SIGKILL"

}  // namespace protocol::os
