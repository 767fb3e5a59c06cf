// Sessions with a sandbox that is on record: binding one, holding and ending the sandbox, and what
// to do when its agent does not know it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "cli/config.h"
#include "cli/connection.h"
#include "cli/context.h"
#include "cli/error.h"
#include "cli/session_client.h"
#include "cli/session_locks.h"
#include "cli/storage.h"

namespace cli {

// Takes the command lock, which the session keeps. Requires a bound session. std::nullopt: granted.
// Throws UserError.
protocol::os::awaitable<std::optional<protocol::wire::Refused>> take_lock(
    SessionClient& client, const protocol::wire::LockRequested& lock, std::string box);
// Gives it back. Requires that nothing was done under it. Throws UserError.
protocol::os::awaitable<void> release_lock(SessionClient& client, std::string box);

// What a command that runs nothing does on a box that others use, too: it takes the command lock
// for a moment, so that it is refused as every other is. Requires a bound session. Nothing on the
// local box. Throws UserError.
protocol::os::awaitable<void> take_and_release(Context& context, SessionClient& client,
                                               std::string verb, std::string box);

struct EndOptions {
  bool force = false;          // whoever uses it
  bool keep_unpulled = false;  // only if nothing would be lost with it
  // Only under the command lock.
  std::optional<protocol::wire::LockRequested> lock;
};
// Ends a sandbox on a session of its own. Errc::not_found: the agent does not know it; Errc::busy
// with who uses it; Errc::refused with what would be lost. `agent` gets the id of the agent that
// answered. Throws UserError when the lock is refused, and when a command runs in it.
protocol::os::awaitable<protocol::wire::result<void>> end_sandbox(Context& context,
                                                                  Connection& connection,
                                                                  const std::string& id,
                                                                  EndOptions options,
                                                                  std::string& agent);

// This machine's hold on a sandbox (session_locks.h), for this command. Throws UserError.
protocol::os::awaitable<std::shared_ptr<SessionLock>> hold_sandbox(Context& context,
                                                                   const std::string& id,
                                                                   const std::string& box);

// What this command does, for people: the text after `--`.
std::string command_text(const Context& context);

// The origin of a session that syncs nothing.
inline constexpr std::string_view kNoOrigin = "00000000000000000000000000000000";

// A session for the sandbox, with bind sent and not yet answered. The answer is checked to come
// from the entry's agent. The sandbox is held as long as the client lives.
protocol::os::awaitable<std::unique_ptr<SessionClient>> bind_sandbox(Context& context,
                                                                     Connection& connection,
                                                                     const Entry& entry,
                                                                     const std::string& origin_id);

// What the user says that a sandbox has to run in, found or made: by --isolation, or on the local
// box by SANDBOX_ISOLATION=bwrap, unless a trusted file says none. Empty: nothing.
std::string demanded_isolation(const Context& context, const Config& config,
                               const std::string& box);
// Waits until the client is bound, if anything is wanted. Throws UserError when the sandbox runs in
// something else, or --isolation was given and an older agent does not say; BindFailed.
protocol::os::awaitable<void> require_isolation(const Context& context, SessionClient& client,
                                                std::string wanted);

// Says so when the sandbox was made with what the configuration file said then, and it says
// something else now.
void note_changed_config(Context& context, const Config& config, const Entry& entry);

// The entry's sandbox is on an agent that no longer answers for its box.
UserError another_agent(const Entry& entry);

// bind was answered with failed: if the entry's own agent says that the sandbox is gone, the entry
// is forgotten and this returns; everything else is thrown as UserError.
protocol::os::awaitable<void> forget_if_gone(Context& context, SessionClient& client,
                                             const Entry& entry, const BindFailed& failure);

}  // namespace cli
