// An authenticated connection to a box, and sessions on it. Starts the local box's agent when it
// has to.
#pragma once

#include <memory>
#include <string>

#include "cli/boxes.h"
#include "cli/session.h"
#include "cli/trace.h"
#include "protocol/ssh/client.h"

namespace cli {

class Connection {
 public:
  Connection(protocol::os::executor executor, std::shared_ptr<protocol::ssh::ClientConnection> ssh,
             Box box)
      : executor_(executor), ssh_(std::move(ssh)), box_(std::move(box)) {}

  const Box& box() const { return box_; }
  // A fresh session channel; what is sent at once travels with the request for it.
  protocol::os::awaitable<std::unique_ptr<Session>> open_session(Trace& trace);
  // ssh://ID@HOST:PORT
  std::string url(const std::string& sandbox) const;

 private:
  protocol::os::executor executor_;
  std::shared_ptr<protocol::ssh::ClientConnection> ssh_;
  Box box_;
};

struct Context;

// The user's key, made on first use. Throws UserError.
protocol::ssh::PrivateKey own_key(const Context& context);

// To the box of that name. Throws UserError: nobody answers, another host key, our key not
// accepted.
protocol::os::awaitable<std::shared_ptr<Connection>> connect(Context& context,
                                                             const std::string& box);

// The same for the local box, but only if its agent runs; nullptr otherwise.
protocol::os::awaitable<std::shared_ptr<Connection>> connect_if_running(Context& context);

}  // namespace cli
