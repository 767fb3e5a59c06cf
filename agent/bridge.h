// The program `sandbox-agent bridge`: joins its stdin and stdout to the unix socket of an agent,
// for who comes through the box's own sshd. It knows nothing of what passes.
#pragma once

#include <filesystem>

namespace agent {

// Until either side has ended; its exit status. Throws CannotRun when no agent runs there.
int bridge(const std::filesystem::path& state);

}  // namespace agent
