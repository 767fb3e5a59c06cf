// What a command is about: the project, its configuration, the box, and the key of its sandbox; and
// the sync store of the work tree. What start, exec, push, pull, status, stop, reset and ssh-config
// have in common.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "cli/config.h"
#include "cli/context.h"
#include "cli/project.h"
#include "cli/resolve.h"
#include "protocol/sync/origin.h"

namespace cli {

struct Target {
  Project project;
  Config config;
  Key key;
  bool config_named = false;
  std::map<std::string, std::string> init;  // --init

  ResolveRequest request() const;
};

// --box, else SANDBOX_BOX where it is set and not empty; std::nullopt: neither.
std::optional<std::string> chosen_box(const Arguments& arguments, const Environment& environment);

// From --dir, [CONFIG], --box, --isolation, --include and --init. Throws UserError.
Target find_target(Context& context);
// The same with this configuration file in the place of [CONFIG]; empty: the project's.
Target find_target(Context& context, const std::string& config);

// KEY=VALUE. Throws UserError (status 2) that names the option.
std::pair<std::string, std::string> parse_assignment(const std::string& text,
                                                     const std::string& option);

// What --wait, --no-wait, SANDBOX_LOCK_WAIT and CI say about waiting for the lock of this box.
std::int64_t lock_wait(const Arguments& arguments, const Environment& environment,
                       const std::string& box);

// Opens the work tree's sync store. Throws UserError.
protocol::os::awaitable<std::shared_ptr<protocol::sync::Origin>> open_origin(Context& context,
                                                                             const Target& target);

Resolver make_resolver(Context& context);

// Resolver::adopt_detached for this target: git says what HEAD has moved on from. Throws UserError.
protocol::os::awaitable<void> adopt_detached(Context& context, const Target& target);

// The entry of --id, from the storage; one made of nothing but the id when it is not on record.
// Throws UserError for a bad id.
// `use`: it is going to be used, which its entry notes.
protocol::os::awaitable<Entry> named_entry(Context& context, const Target& target, std::string id,
                                           bool use);

// What --id means to a command that brings files here: the work tree that this sandbox belongs to,
// wherever the command was given. With --dir or [CONFIG], and for a sandbox that is not on record,
// the work tree that those name. Throws UserError when the sandbox's own is not there any more.
protocol::os::awaitable<Target> find_target_of(Context& context, std::string id);

// Makes the target the one of the sandbox on record with this id: its branch, box and configuration
// file. Throws UserError when there is none, or when it belongs to another project.
protocol::os::awaitable<void> aim_at(Context& context, Target& target, std::string id);

// The request for a box's command lock: who waits how long, and --force-command.
protocol::wire::LockRequested lock_request(const Context& context, const std::string& verb,
                                           const std::string& command, const std::string& box);

// "locked by alice (since 2026-01-31T00:00:00Z): measuring": what a refusal says of a user lock.
std::string locked_by(const protocol::wire::Refused& refused);

inline constexpr const char* kNothingDone = "Nothing was sent or run.";

// What to say of a lock that was not granted. `box`: as this user calls it. `wait_seconds`: as the
// lock was asked for; below zero: nothing is known of that. `done`: what has happened all the same.
UserError refused_error(const protocol::wire::Refused& refused, const std::string& box,
                        std::int64_t wait_seconds = -1, const std::string& done = kNothingDone);

// What to say when a sandbox is not ended because of the commands that run in it. `option`: the one
// with which it is.
UserError in_use_error(const protocol::wire::Refused& refused, const std::string& box,
                       const std::string& id, const std::string& option = "--force");

// What to say of a step that the box could not do.
UserError failed_error(const protocol::wire::Failed& failed, const std::string& box);

}  // namespace cli
