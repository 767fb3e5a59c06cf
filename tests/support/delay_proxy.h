// A TCP proxy on the loopback that holds back every byte for a while in each direction, as a long
// line does, and counts round trips without a clock. Has a thread of its own: what is measured may
// be this process or others.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

namespace test {

class DelayProxy {
 public:
  // Listens on a free port of 127.0.0.1 and connects each client to 127.0.0.1:`target`.
  DelayProxy(std::uint16_t target, std::chrono::milliseconds each_way);
  ~DelayProxy();
  DelayProxy(const DelayProxy&) = delete;
  DelayProxy& operator=(const DelayProxy&) = delete;

  std::uint16_t port() const;

  // Of all connections so far.
  int connections() const;
  // How often the client spoke after it had been spoken to: so often it had waited. For an SSH
  // client that is its round trips, without TCP's own: the wait for the banner is half a one, the
  // next for the other half. Bytes that come together count once; with a delay of 20 ms and more
  // nothing else interferes.
  int round_trips() const;
  std::uint64_t bytes_to_server() const;
  std::uint64_t bytes_to_client() const;

  // From now on nothing passes in either direction, and nobody is told: a cut cable. Or passes
  // again.
  void stall(bool on);
  // From now on nothing is read from the server, and so nothing passes to the client, which is
  // still heard: as if it had stopped reading. Or passes again.
  void stall_client(bool on);
  // Connections from now on are closed when the client has sent so many bytes, of which all were
  // passed on.
  void cut_after(std::uint64_t bytes);
  // Closes all connections.
  void drop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace test
