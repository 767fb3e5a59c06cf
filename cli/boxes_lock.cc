// sandbox boxes lock, unlock: a person's reservation of a whole box. It ends only by unlock.
#include <boost/json.hpp>

#include "cli/box_question.h"
#include "cli/ci_identity.h"
#include "cli/command_runs.h"
#include "cli/target.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr const char* kGreen = "32";

std::string required_box(const Context& context) {
  auto box = chosen_box(context.arguments, context.environment);
  if (!box) {
    throw UserError("arguments", "which box? --box NAME is missing", "`sandbox boxes` shows them.",
                    kMisuse);
  }
  return *box;
}

std::string in_quotes(const std::string& box) { return "'" + wire::printable(box, 200) + "'"; }

std::string unlock_line(const std::string& box) {
  return "`sandbox boxes unlock --box " + wire::shell_quote(box) + " --force` unlocks it";
}

void add_lock(json::object& answer, const wire::UserLockInfo& lock) {
  answer["LockedBy"] = json_text(lock.user);
  answer["Scope"] = json_text(lock.scope);
  answer["LockedSince"] = json_text(lock.since);
  answer["Reason"] = json_text(lock.reason);
}

}  // namespace

os::awaitable<int> run_boxes_lock(Context& context) {
  std::string box = required_box(context);
  wire::UserLockRequest request;
  request.reason = context.arguments.value("reason").value_or("");
  if (request.reason.size() > wire::kMaxTextBytes) {
    throw UserError("arguments", "--reason takes 4096 bytes at most", {}, kMisuse);
  }
  request.user = user_name(context.environment);
  request.scope = ci_scope(context.environment);
  auto connection = co_await connect(context, box);
  wire::Message answer = co_await ask_box(context, *connection, request);
  if (const auto* refused = std::get_if<wire::Refused>(&answer)) {
    throw UserError(
        "lock", "box " + in_quotes(box) + " is already " + locked_by(*refused),
        "Ask them to unlock it; " + unlock_line(box) + " all the same. Nothing was changed.",
        kBusy);
  }
  const auto* locked = std::get_if<wire::UserLocked>(&answer);
  if (locked == nullptr) {
    throw no_answer(box, answer);
  }
  Output& output = context.output;
  if (output.json()) {
    json::object out;
    out["Box"] = json_text(box);
    add_lock(out, locked->lock);
    out["Taken"] = locked->taken;
    output.json_line(out);
    co_return 0;
  }
  std::string text = "Box " + in_quotes(box) + " locked by " +
                     shown_user(locked->lock.user, locked->lock.scope) + " at " +
                     wire::printable(locked->lock.since, 64);
  output.line(output.paint(text, kGreen, true));
  if (!locked->taken) {
    output.note("sandbox: it was yours already, and stays as it was");
  }
  co_return 0;
}

os::awaitable<int> run_boxes_unlock(Context& context) {
  std::string box = required_box(context);
  wire::UserUnlockRequest request;
  request.force = context.arguments.has("force");
  request.user = user_name(context.environment);
  request.scope = ci_scope(context.environment);
  auto connection = co_await connect(context, box);
  wire::Message answer = co_await ask_box(context, *connection, request);
  if (const auto* refused = std::get_if<wire::Refused>(&answer)) {
    throw UserError("lock", "box " + in_quotes(box) + " is " + locked_by(*refused),
                    unlock_line(box) + " all the same. Nothing was changed.", kBusy);
  }
  const auto* unlocked = std::get_if<wire::UserUnlocked>(&answer);
  if (unlocked == nullptr) {
    throw no_answer(box, answer);
  }
  Output& output = context.output;
  const auto& was = unlocked->was;
  if (output.json()) {
    json::object out;
    out["Box"] = json_text(box);
    out["WasLocked"] = was.has_value();
    add_lock(out, was.value_or(wire::UserLockInfo()));
    output.json_line(out);
    co_return 0;
  }
  if (!was) {
    output.line("Box " + in_quotes(box) + " was not locked.");
    co_return 0;
  }
  std::string text = "Box " + in_quotes(box) + " unlocked";
  output.line(output.paint(text, kGreen, true));
  if (request.force) {
    output.note("sandbox: it was locked by " + shown_user(was->user, was->scope) + " since " +
                wire::printable(was->since, 64));
  }
  co_return 0;
}

}  // namespace cli
