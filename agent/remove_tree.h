// The removal of a tree that sandboxed code wrote. Blocks.
#pragma once

#include <filesystem>

#include "protocol/wire/result.h"

namespace agent {

// Follows no link, opens no file, makes directories writable that are not, and needs few
// descriptors however deep the tree is. Nothing to remove is success.
protocol::wire::result<void> remove_tree(const std::filesystem::path& tree);

}  // namespace agent
