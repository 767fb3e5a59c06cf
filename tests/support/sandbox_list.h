// What `sandbox list` shows people, taken apart.
#pragma once

#include <string>

#include "tests/support/system.h"

namespace test {

// The STATUS column of this sandbox's row; "not listed" when it has none.
std::string status_of(Machine& machine, const std::string& id);

}  // namespace test
