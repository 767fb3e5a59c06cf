// What a tree takes of its disk. Looks at no content: sandboxed code may have written it. Blocks.
#pragma once

#include <cstdint>
#include <filesystem>

namespace agent {

// Bytes that are allocated to all that is in it; a file with several names counts once. Follows no
// link and stays on one file system. What cannot be looked at, and what is deeper than 256
// directories, is not counted; 0 when there is no such tree.
std::uint64_t disk_usage(const std::filesystem::path& tree);

}  // namespace agent
