// A way to a box, and sessions on it. Starts the local box's agent when it has to. Two ways: the
// agent's own port (here), and through the box's sshd (bridge_connection.h).
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "cli/boxes.h"
#include "cli/session.h"
#include "cli/trace.h"
#include "protocol/ssh/key.h"

namespace cli {

struct Context;

// For connecting and proving who we are, all together.
inline constexpr std::chrono::milliseconds kConnectTime{10'000};

class Connection {
 public:
  explicit Connection(Box box) : box_(std::move(box)) {}
  virtual ~Connection() = default;

  // With the host key that was seen.
  const Box& box() const { return box_; }
  // A fresh session; what is sent at once travels with the request for it. Throws UserError.
  virtual protocol::os::awaitable<std::unique_ptr<Session>> open_session(Trace& trace) = 0;
  // ssh://ID@HOST:PORT; empty when no stock client gets there.
  std::string url(const std::string& sandbox) const;

 private:
  Box box_;
};

// How people compare a host key (SHA256:...); what is no key is shown as it is.
std::string fingerprint(const std::string& host_key);

// The user's key, made on first use. Throws UserError.
protocol::ssh::PrivateKey own_key(const Context& context);

// To the box of that name; pins its host key at the first contact. Throws UserError: nobody
// answers in time, another host key, our key not accepted.
protocol::os::awaitable<std::shared_ptr<Connection>> connect(
    Context& context, const std::string& box, std::chrono::milliseconds time = kConnectTime);

// The same for the local box, but only if its agent runs; nullptr otherwise.
protocol::os::awaitable<std::shared_ptr<Connection>> connect_if_running(Context& context);

// To a box that need not be on record; its host key has to be the one in `box`, if there is one.
// Writes nothing down, and lets nobody ask the user anything. Throws UserError as connect does.
protocol::os::awaitable<std::shared_ptr<Connection>> contact(
    Context& context, const Box& box, std::chrono::milliseconds time = kConnectTime);

}  // namespace cli
