// The rows of `sandbox boxes`, of which there are many.
#pragma once

#include "cli/commands.h"

namespace cli {

Command boxes_row();

}  // namespace cli
