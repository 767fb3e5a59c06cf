#include "cli/target.h"

#include "cli/boxes.h"
#include "cli/ci_identity.h"
#include "cli/duration.h"
#include "cli/ids.h"
#include "cli/trusted_configs.h"
#include "cli/waiting_line.h"
#include "protocol/os/offload.h"
#include "protocol/os/paths.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

ResolveRequest Target::request() const {
  ResolveRequest request;
  request.key = key;
  request.config_named = config_named;
  request.config_digest = config.digest;
  return request;
}

std::pair<std::string, std::string> parse_assignment(const std::string& text,
                                                     const std::string& option) {
  auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw UserError("arguments",
                    option + " takes NAME=VALUE, not `" + wire::printable(text, 80) + "`", {},
                    kMisuse);
  }
  return {text.substr(0, equals), text.substr(equals + 1)};
}

std::optional<std::string> chosen_box(const Arguments& arguments, const Environment& environment) {
  if (auto named = arguments.value("box")) {
    return named;
  }
  std::string variable = environment.get("SANDBOX_BOX");
  return variable.empty() ? std::nullopt : std::optional<std::string>(variable);
}

namespace {

Consent consent_of(const Context& context) {
  const Arguments& arguments = context.arguments;
  Consent consent;
  consent.box = chosen_box(arguments, context.environment).value_or("");
  consent.isolation = arguments.value("isolation").value_or("");
  consent.includes = arguments.values("include");
  if (arguments.has("isolation") && consent.isolation != "auto" && consent.isolation != "bwrap" &&
      consent.isolation != "none") {
    throw UserError("arguments",
                    "--isolation takes auto, bwrap or none, not `" +
                        wire::printable(consent.isolation, 80) + "`",
                    {}, kMisuse);
  }
  return consent;
}

// Asked only of a file that needs it.
bool is_trusted(const Context& context, const Config& config, const Consent& consent) {
  return !reaching(config, consent).empty() && TrustedConfigs(context.paths).trusts(config);
}

}  // namespace

Target find_target(Context& context) {
  const auto& positional = context.arguments.positional;
  if (!positional.empty() && positional.front().empty()) {
    throw UserError("arguments", "the name of the configuration file is empty", {}, kMisuse);
  }
  return find_target(context, positional.empty() ? std::string() : positional.front());
}

Target find_target(Context& context, const std::string& config) {
  const Arguments& arguments = context.arguments;
  Target target;
  target.project = find_project(context.environment, arguments.value("dir").value_or(""));
  target.config_named = !config.empty();
  target.config = load_config(config, target.project.directory, target.project.root);

  Consent consent = consent_of(context);
  apply_consent(target.config, consent, is_trusted(context, target.config, consent));
  for (const auto& text : arguments.values("init")) {
    target.init.insert_or_assign(parse_assignment(text, "--init").first,
                                 parse_assignment(text, "--init").second);
  }

  target.key.box = target.config.box.empty() ? kLocalBox : target.config.box;
  if (target.key.box == kLocalBox) {
    target.key.machine = machine_id();
  } else {
    find_box(context.paths, target.key.box);  // says so, before anything is put on record
  }
  target.key.project = target.project.root.string();
  target.key.device = target.project.device;
  target.key.inode = target.project.inode;
  target.key.branch = target.project.branch;
  target.key.config = target.config.file.string();
  return target;
}

std::int64_t lock_wait(const Arguments& arguments, const Environment& environment,
                       const std::string& box) {
  if (arguments.has("no-wait") && arguments.has("wait")) {
    throw UserError("arguments", "--wait and --no-wait exclude each other", {}, kMisuse);
  }
  if (arguments.has("no-wait")) {
    return 0;
  }
  if (auto text = arguments.value("wait")) {
    auto wait = parse_wait(*text);
    if (!wait) {
      throw UserError("arguments",
                      "--wait takes a duration such as 90, 5m or 1h30m, not `" +
                          wire::printable(*text, 80) + "`",
                      {}, kMisuse);
    }
    return *wait;
  }
  std::string variable = environment.get("SANDBOX_LOCK_WAIT");
  if (!variable.empty()) {
    bool number = variable.find_first_not_of("0123456789") == std::string::npos;
    auto wait = parse_wait(variable);
    if (!wait || (!number && variable != "inf")) {
      throw UserError(
          "arguments",
          "SANDBOX_LOCK_WAIT must be seconds or `inf`, not `" + wire::printable(variable, 80) + "`",
          {}, kMisuse);
    }
    return *wait;
  }
  if (box == kLocalBox) {
    return -1;
  }
  return environment.get("CI") == "true" ? wire::kCiWait.count() : 0;
}

os::awaitable<std::shared_ptr<protocol::sync::Origin>> open_origin(Context& context,
                                                                   const Target& target) {
  protocol::sync::OriginOptions options;
  options.work_tree = target.project.root;
  options.store = context.paths.origins() / target.key.origin_name();
  options.includes = target.config.includes;
  options.depth = target.config.depth;
  auto work = [options] {
    std::shared_ptr<protocol::sync::Origin> origin;
    if (auto made = os::make_private_directory(options.store.parent_path()); !made) {
      throw UserError("storage", "cannot make " + made.error().what,
                      "Make the directory above it writable, or set SANDBOX_STATE_DIR.");
    }
    auto opened = protocol::sync::Origin::open(options);
    if (!opened) {
      bool no_id = opened.error().code == wire::Errc::bad_input &&
                   opened.error().what.starts_with((options.store / "id").string());
      throw UserError(
          "sync",
          "cannot prepare to send " + options.work_tree.string() + ": " + opened.error().what,
          opened.error().code == wire::Errc::unsupported ? "Install git 2.39 or newer."
          : no_id ? "It says by which id boxes know this directory. Put a copy of it back; or move "
                    "it away to have a new one, with which what sandboxes have not brought back "
                    "yet cannot be pulled any more."
                  : "");
    }
    origin = std::move(*opened);
    return origin;
  };
  std::shared_ptr<protocol::sync::Origin> origin =
      co_await os::offload(context.pool, std::move(work));
  co_return origin;
}

Resolver make_resolver(Context& context) {
  return Resolver(context.executor, context.pool, context.output, context.paths);
}

os::awaitable<void> adopt_detached(Context& context, const Target& target) {
  auto ancestors = [root = target.project.root,
                    environment = &context.environment](const std::vector<std::string>& commits) {
    return ancestors_of_head(root, commits, *environment);
  };
  Resolver resolver = make_resolver(context);
  co_await resolver.adopt_detached(target.key, ancestors);
}

os::awaitable<Entry> named_entry(Context& context, const Target& target, std::string id, bool use) {
  Resolver resolver = make_resolver(context);
  if (!is_plain_id(id)) {
    throw UserError("arguments", "`" + wire::printable(id, 80) + "` is no sandbox's id",
                    "`sandbox list` shows them.", kMisuse);
  }
  Entry entry;
  auto storage = co_await resolver.lock();
  if (Entry* found = find_by_id(*storage, id); found != nullptr) {
    if (use && found->state == EntryState::ready) {
      storage->note_use(*found);
    }
    entry = *found;
    co_return entry;
  }
  entry.id = id;
  entry.key = target.key;
  entry.state = EntryState::ready;
  co_return entry;
}

namespace {

bool is_of(const Entry& entry, const Project& project) {
  return entry.key.project == project.root && entry.key.device == project.device &&
         entry.key.inode == project.inode;
}

// The configuration that the entry's sandbox was made with, as it is now.
void take_config(Context& context, Target& target, const Entry& entry) {
  target.config = entry.key.config.empty() ? Config()
                                           : load_config(entry.key.config, target.project.directory,
                                                         target.project.root);
  Consent consent = consent_of(context);
  consent.box = entry.key.box;
  apply_consent(target.config, consent, is_trusted(context, target.config, consent));
}

}  // namespace

os::awaitable<Target> find_target_of(Context& context, std::string id) {
  std::optional<Entry> known;
  {
    Resolver resolver = make_resolver(context);
    auto storage = co_await resolver.lock();
    if (Entry* found = find_by_id(*storage, id); found != nullptr) {
      known = *found;
    }
  }
  if (!known || context.arguments.has("dir") || !context.arguments.positional.empty()) {
    Target here = find_target(context);
    if (known) {
      co_await aim_at(context, here, id);
    }
    co_return here;
  }
  Target target;
  std::error_code error;
  if (std::filesystem::is_directory(known->key.project, error)) {
    target.project = find_project(context.environment, known->key.project);
  }
  if (!is_of(*known, target.project)) {
    throw UserError("project",
                    "the sandbox " + known->id + " belongs to " +
                        wire::printable(known->key.project) + ", which is not there any more" +
                        (error || target.project.root.empty() ? "" : ": another directory is"),
                    "Put it back there, or copy files with scp: `sandbox ssh-config --id " +
                        known->id + "` prints how it reaches the sandbox.");
  }
  if (std::filesystem::exists(known->key.config, error)) {
    take_config(context, target, *known);
  }
  target.key = known->key;
  target.config_named = true;
  co_return target;
}

os::awaitable<void> aim_at(Context& context, Target& target, std::string id) {
  Resolver resolver = make_resolver(context);
  Entry entry;
  {
    auto storage = co_await resolver.lock();
    Entry* known = find_by_id(*storage, id);
    if (known == nullptr) {
      throw UserError("project",
                      "there is no sandbox " + wire::printable(id, 80) + " on record here",
                      "`sandbox list` shows them.");
    }
    entry = *known;
  }
  if (!is_of(entry, target.project)) {
    throw UserError("project",
                    "the sandbox " + entry.id + " belongs to " + wire::printable(entry.key.project),
                    "Name that directory with --dir.");
  }
  if (entry.key.config != target.key.config) {
    take_config(context, target, entry);
  }
  target.key = entry.key;
  target.config_named = true;
}

wire::LockRequested lock_request(const Context& context, const std::string& verb,
                                 const std::string& command, const std::string& box) {
  wire::LockRequested lock;
  lock.verb = verb;
  lock.command = wire::printable(command, wire::kMaxTextBytes);
  lock.wait_seconds = lock_wait(context.arguments, context.environment, box);
  lock.force = context.arguments.has("force-command");
  return lock;
}

namespace {

constexpr std::size_t kMostHolders = 3;  // in one sentence

// "'exec' in progress by alice"
std::string in_progress(const std::vector<wire::Holder>& holders) {
  std::string text;
  for (std::size_t i = 0; i < holders.size() && i < kMostHolders; ++i) {
    const wire::Holder& holder = holders[i];
    text += (i == 0 ? "'" : ", '") + wire::printable(holder.verb, 32) + "' in progress by " +
            shown_user(holder.user, holder.scope);
  }
  if (holders.size() > kMostHolders) {
    text += " and " + std::to_string(holders.size() - kMostHolders) + " more";
  }
  return text;
}

// "It runs `make`, for 1m 01s. "
std::string running(const std::vector<wire::Holder>& holders) {
  if (holders.size() != 1 || holders.front().command.empty()) {
    return {};
  }
  return "It runs `" + wire::printable(holders.front().command, 200) + "`, for " +
         show_duration(std::chrono::seconds(holders.front().held_seconds)) + ". ";
}

}  // namespace

std::string locked_by(const wire::Refused& refused) {
  std::string who = refused.holders.empty()
                        ? "another user"
                        : shown_user(refused.holders[0].user, refused.holders[0].scope);
  return "locked by " + who +
         (refused.since.empty() ? "" : " (since " + wire::printable(refused.since, 64) + ")") +
         (refused.reason.empty() ? "" : ": " + wire::printable(refused.reason, 400));
}

UserError refused_error(const wire::Refused& refused, const std::string& box,
                        std::int64_t wait_seconds, const std::string& done) {
  std::string where = "box '" + wire::printable(box, 200) + "'";
  std::string unlock =
      "`sandbox boxes unlock --box " + wire::shell_quote(box) + " --force` unlocks it for good. ";
  if (refused.why == "locked") {
    return UserError("lock",
                     where + " is " + locked_by(refused) + ", use --force-command to override",
                     unlock + done, kBusy);
  }
  // A user lock stands before whoever runs something there.
  bool locked = !refused.holders.empty() && is_user_lock(refused.holders.front());
  std::string held = locked ? locked_by(refused) : in_progress(refused.holders);
  if (refused.why == "expired") {
    std::string time =
        wait_seconds > 0 ? "after " + show_duration(std::chrono::seconds(wait_seconds)) + " " : "";
    return UserError(
        "lock", "timed out " + time + "waiting for " + where + (held.empty() ? "" : ": " + held),
        (locked ? unlock : running(refused.holders)) +
            "Try again, or wait longer with --wait=DURATION. " + done,
        kTimedOut);
  }
  if (refused.why == "queue_full") {
    return UserError("lock", "too many commands wait in line on " + where,
                     "Try again later. " + done, kBusy);
  }
  return UserError(
      "lock",
      where + " is busy" + (held.empty() ? "" : ", " + held) + ", use --force-command to override",
      running(refused.holders) + "--wait waits in line. " + done, kBusy);
}

UserError in_use_error(const wire::Refused& refused, const std::string& box, const std::string& id,
                       const std::string& option) {
  if (refused.why != "busy") {
    return refused_error(refused, box);
  }
  std::string held = in_progress(refused.holders);
  return UserError("lock", "the sandbox " + id + " is in use" + (held.empty() ? "" : ": " + held),
                   running(refused.holders) + "With " + option +
                       " it is ended all the same. Nothing was changed.",
                   kBusy);
}

UserError failed_error(const wire::Failed& failed, const std::string& box) {
  wire::Errc code = wire::errc_from_name(failed.code);
  std::string message = wire::printable(failed.message, 1000);
  if (failed.step == "exec") {
    int status = code == wire::Errc::not_found ? kNotFound
                 : code == wire::Errc::denied  ? kNotExecutable
                                               : kFailed;
    std::string next =
        code == wire::Errc::not_found
            ? "A sandbox sees programs of its own PATH: `sandbox exec -- env` shows it."
        : code == wire::Errc::denied
            ? "Is it executable (chmod +x), and is the program of its #! line there?"
            : "Nothing was run. `sandbox doctor` looks at the box.";
    return UserError("command", "the command could not be started: " + message, next, status);
  }
  if (failed.step == wire::message_name(wire::SyncStart{}) ||
      failed.step == wire::message_name(wire::SyncEnd{})) {
    std::string next =
        code == wire::Errc::no_space
            ? "Free some space on the box."
            : "Nothing was run, and your files are as they were. Try again; `sandbox "
              "reset` makes a new sandbox.";
    return UserError("sync", "the work tree could not be brought to the sandbox: " + message, next);
  }
  if (code == wire::Errc::busy) {
    return UserError("lock", "the sandbox on the box " + box + " is busy: " + message,
                     "Try again when that has ended. Nothing was run.", kBusy);
  }
  return UserError(
      "agent",
      "the box " + box + " could not do " + wire::printable(failed.step, 80) + ": " + message,
      "`sandbox doctor` looks at the box; its agent's log may say more.");
}

}  // namespace cli
