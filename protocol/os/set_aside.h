// A damaged record is kept beside, so that whoever knows how can still read it, and a fresh one is
// begun in its place.
#pragma once

#include <filesystem>

#include "protocol/wire/result.h"

namespace protocol::os {

// Renames the file to the first free NAME.damaged-N beside it, and returns that path. The caller
// holds what guards the file: nobody else looks for a name meanwhile. Errc::denied, no_space, io.
wire::result<std::filesystem::path> set_aside(const std::filesystem::path& file);

}  // namespace protocol::os
