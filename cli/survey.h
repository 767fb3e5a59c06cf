// What is on record here, and what the boxes say of it: what list, sessions and prune begin with.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/connection.h"
#include "cli/context.h"
#include "cli/error.h"
#include "cli/session_client.h"
#include "cli/storage.h"

namespace cli {

// One sandbox, as far as it is known.
struct KnownSandbox {
  std::string id;
  std::string box;
  std::string project;
  std::string branch;
  std::string config;
  std::string url;         // empty: its box was not reached
  std::string state;       // ready, starting, unreachable, unknown (another agent answers there)
  std::string created_at;  // RFC 3339, UTC; empty: not known
  std::string used_at;
  std::int64_t size_bytes = -1;  // on its box; -1: not known
  bool active = false;           // somebody uses it now: asked, never stored
  bool orphaned = false;         // its project directory is gone from this machine
  std::vector<protocol::wire::Holder> holders;
  std::optional<Entry> entry;  // on record here
};

// What one box answered.
struct BoxSurvey {
  std::string box;
  bool reached = false;  // false without `failed`: the local agent does not run
  std::optional<UserError> failed;
  std::string agent;
  std::shared_ptr<Connection> connection;
  std::vector<KnownSandbox> sandboxes;
  std::vector<Entry> gone;  // of which the box itself says that they are there no more
  std::vector<protocol::wire::SessionInfo> sessions;
};

struct SurveyOptions {
  bool sizes = false;
  bool sessions = false;  // and not the sandboxes
};

// The entries that count on this machine.
protocol::os::awaitable<std::vector<Entry>> entries_here(Context& context);

// Asks the boxes, all at once and each for its time; of several none asks the user anything. Starts
// the local agent only when a sandbox of its is on record, or when its directory has one or a
// removal that was cut off.
// Throws nothing that one of them is the cause of.
protocol::os::awaitable<std::vector<BoxSurvey>> survey(Context& context,
                                                       std::vector<std::string> boxes,
                                                       const std::vector<Entry>& entries,
                                                       SurveyOptions options);

// The box that the command line or the environment names; std::nullopt: none is named.
std::optional<std::string> named_box(const Context& context);
// The boxes that list and sessions ask: the named one, the local one, or with --all every one that
// is known. Throws UserError when --all and a name are given together.
std::vector<std::string> boxes_to_ask(const Context& context, const std::vector<Entry>& entries);

// Is this directory gone? Only when the system says so; not when it cannot be looked at.
bool is_gone(const std::string& directory);

// A detached job runs in it.
bool is_detached(const KnownSandbox& sandbox);

// "orphaned, active, detached, starting": what people see of a sandbox's state; empty for an idle
// one.
std::string describe_state(const KnownSandbox& sandbox);

// {"Box", "Message"} of a box that was not reached.
boost::json::object unreachable_json(const BoxSurvey& survey);

// "1.5 MB", "3 B": base 1024, one decimal.
std::string show_bytes(std::int64_t bytes);

}  // namespace cli
