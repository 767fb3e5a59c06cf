// What systemd is told: READY=1 and the like, as a datagram to $NOTIFY_SOCKET.
#pragma once

#include <string>
#include <string_view>

namespace agent {

// Nothing when `socket` is empty; a service manager that does not listen is not waited for.
void notify_service_manager(const std::string& socket, std::string_view state);

}  // namespace agent
