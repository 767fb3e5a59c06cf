// What stands at a path of a work tree, named as git would name it. Reads the file; stores nothing.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "protocol/os/beneath.h"
#include "protocol/sync/tree_writer.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

struct Identity {
  std::optional<os::FileInfo> info;  // std::nullopt: nothing is there
  std::optional<Wanted> wanted;      // of a regular file or a link
};

// `format`: sha1 or sha256. Errc::busy: it changed while it was read; denied: it may not be read.
result<Identity> identify(const os::Beneath& root, const std::string& path,
                          std::string_view format);

}  // namespace protocol::sync
