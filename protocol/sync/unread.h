// What a scan could not look at. That it is gone nobody may say then: it counts as unchanged, and
// is named.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "protocol/wire/messages.h"

namespace protocol::sync {

struct Unread {
  std::string path;  // a file or link, or a directory: then all that is beneath it; "": the root
  std::string why;   // the system's word for it
};

enum class End { here, sandbox };

// As the user is told, few enough for a message. `at`: whose work tree it is.
std::vector<wire::LeftOut> name_unread(const std::vector<Unread>& unread, End at);

}  // namespace protocol::sync
