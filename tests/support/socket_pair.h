// Two sockets that are connected to each other.
#pragma once

#include "protocol/os/fd.h"

namespace test {

struct SocketPair {
  protocol::os::Fd first, second;  // not inherited by children
};
// Throws when there is none to be had.
SocketPair make_socket_pair();

}  // namespace test
