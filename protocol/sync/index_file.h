// git's index file, version 2, written from what we know of a work tree. Never reads one. Pure: no
// file is touched. Format: gitformat-index(5).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "protocol/os/beneath.h"

namespace protocol::sync {

struct IndexEntry {
  std::string path;
  std::uint32_t mode = 0100644;  // git's
  std::string oid;               // hex
  // Of a file that holds exactly this content and mode: git then need not read it. std::nullopt:
  // git looks for itself.
  std::optional<os::FileInfo> info;
};

// The file without its trailing checksum. `entries` are sorted by path as bytes, without
// duplicates.
std::string encode_index(std::span<const IndexEntry> entries);

}  // namespace protocol::sync
