// Makes a sandbox on a box: creates it, runs the setup commands in it, declares it ready.
// Idempotent: a start that was cut off is taken up where the agent knows it to be.
#pragma once

#include <memory>

#include "cli/connection.h"
#include "cli/context.h"
#include "cli/resolve.h"
#include "cli/session_client.h"
#include "cli/target.h"

namespace cli {

class BoxStarter : public SandboxStarter {
 public:
  BoxStarter(Context& context, const Target& target) : context_(context), target_(target) {}

  protocol::os::awaitable<std::string> start(const Entry& entry) override;
  protocol::os::awaitable<std::optional<Unrecorded>> find_unrecorded(
      const Entry& entry, std::vector<std::string> on_record) override;
  protocol::os::awaitable<void> abandon(const Entry& entry) override;

  // What start() used, to go on with: the session is bound to the sandbox.
  std::shared_ptr<Connection> connection() const { return connection_; }
  std::unique_ptr<SessionClient> take_client() { return std::move(client_); }
  std::shared_ptr<protocol::sync::Origin> origin() const { return origin_; }

 private:
  protocol::os::awaitable<void> set_up();
  // Under one lock, which the first takes and the last, or the one that fails, gives back.
  protocol::os::awaitable<void> run_setup_command(std::string command, bool first, bool last);
  protocol::os::awaitable<void> end_replaced(const Entry& entry);

  Context& context_;
  const Target& target_;
  std::shared_ptr<Connection> connection_;
  std::unique_ptr<SessionClient> client_;
  std::shared_ptr<protocol::sync::Origin> origin_;
};

}  // namespace cli
