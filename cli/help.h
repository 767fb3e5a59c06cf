// Help texts, made from the command table. For a terminal of 80 columns.
#pragma once

#include <string>

#include "cli/commands.h"

namespace cli {

std::string overview();  // `sandbox --help`; ends with a line feed
std::string help(
    const Command& command);  // `sandbox NAME --help`, a noun's with its verbs; the same
std::string usage(const Command& command);  // its name and what may follow it, without `sandbox`

}  // namespace cli
