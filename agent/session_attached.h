// A detached job whose output a session is shown; for the session's own sources.
#pragma once

#include <memory>

#include "agent/session_state.h"

namespace agent {

struct Session::Attached {
  std::shared_ptr<Relay> relay;
  std::unique_ptr<Sandboxes::Use> use;
};

}  // namespace agent
