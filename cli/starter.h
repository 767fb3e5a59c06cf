// Makes a sandbox on a box: creates it, runs the setup commands in it, declares it ready.
// Idempotent: a start that was cut off is taken up where the agent knows it to be.
#pragma once

#include <memory>
#include <optional>
#include <string>

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

  // What runs `command` after start() is to do so under the lock of the setup, which is asked for
  // in its name and kept: take_client() has it then.
  void keep_lock_for(std::string command) { command_ = std::move(command); }
  // A sandbox was ended to make room for this one. There is no way back: unless --wait or --no-wait
  // was given, whoever came into line meanwhile is waited for, however long that takes.
  void replaces(std::string id) { replaced_ = std::move(id); }
  bool has_lock() const { return has_lock_; }

  // What start() used, to go on with: the session is bound to the sandbox.
  std::shared_ptr<Connection> connection() const { return connection_; }
  std::unique_ptr<SessionClient> take_client() { return std::move(client_); }
  std::shared_ptr<protocol::sync::Origin> origin() const { return origin_; }
  // What start()'s setup commands did to the files here; std::nullopt: it ran none.
  const std::optional<CycleOutcome>& setup() const { return setup_; }

 private:
  protocol::wire::LockRequested setup_lock() const;
  UserError refused(const protocol::wire::Refused& refused, std::int64_t wait_seconds) const;
  protocol::os::awaitable<void> set_up();
  protocol::os::awaitable<void> bring_back();
  // Under one lock, which the first takes and the last, or the one that fails, gives back; the last
  // does not when it is to be kept.
  protocol::os::awaitable<void> run_setup_command(std::string command, bool first, bool last);
  void note_setup(const CycleOutcome& outcome);
  protocol::os::awaitable<void> end_replaced(const Entry& entry);

  Context& context_;
  const Target& target_;
  std::optional<std::string> command_;  // that goes on under the lock
  std::string replaced_;                // empty: nothing was
  bool has_lock_ = false;
  std::shared_ptr<Connection> connection_;
  std::unique_ptr<SessionClient> client_;
  std::shared_ptr<protocol::sync::Origin> origin_;
  std::optional<CycleOutcome> setup_;
};

}  // namespace cli
