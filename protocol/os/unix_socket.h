// Byte streams between processes of one user on one machine. Sockets are 0600 and a peer of another
// user is not let in. A path of any length works (Linux's limit is 107 bytes): it is reached
// through its directory's descriptor.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "protocol/os/byte_stream.h"
#include "protocol/os/fd.h"

namespace protocol::os {

// Who is at the other end of a connected unix socket.
struct Peer {
  uid_t uid = 0;
  pid_t pid = 0;  // 0: not known on this system
};
result<Peer> peer_of(int socket);

// Errc::not_found (no such socket), gone (nobody listens), denied (another user's).
awaitable<result<std::unique_ptr<ByteStream>>> connect_unix(executor ex,
                                                            std::filesystem::path path);

class UnixListener {
 public:
  // A socket left by a dead process is replaced; Errc::exists when somebody listens there.
  static result<UnixListener> listen(executor ex, const std::filesystem::path& path);
  UnixListener(UnixListener&&) noexcept;
  UnixListener& operator=(UnixListener&&) noexcept;
  ~UnixListener();  // closes; the socket file stays (see remove)

  // The next connection of our own user (or root's). Errc::gone after close().
  awaitable<result<std::unique_ptr<ByteStream>>> accept();
  void close() noexcept;
  // Takes the socket's name away, so that nobody connects to a listener that is about to go.
  void remove() noexcept;

 private:
  struct State;
  explicit UnixListener(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace protocol::os
