// Ids that a box names: of sandboxes and of agents. They become names of files here and stand in
// the storage, and a box says what it likes, so each is looked at before it is used.
#pragma once

#include <string_view>

namespace cli {

// Not empty, at most wire::kMaxNameBytes, and of a-z, 0-9, - and _ alone.
bool is_plain_id(std::string_view text);

}  // namespace cli
