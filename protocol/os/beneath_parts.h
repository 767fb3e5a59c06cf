// What the two halves of Beneath share. For protocol/os alone.
#pragma once

#include <fcntl.h>

#include <string_view>

#include "protocol/wire/result.h"

namespace protocol::os {

// How a directory on the way is opened: to go on from, without permission to list it.
#if defined(O_PATH)
constexpr int kWalk = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
#elif defined(O_SEARCH)
constexpr int kWalk = O_SEARCH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
#else
constexpr int kWalk = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
#endif

// The Failure of an errno value. What shows that a link or a file stands where a directory has to
// be is Errc::refused.
wire::Failure path_failure(int error, std::string_view path);

}  // namespace protocol::os
