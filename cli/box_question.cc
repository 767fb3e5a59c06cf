#include "cli/box_question.h"

#include "cli/session_client.h"
#include "cli/target.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

os::awaitable<wire::Message> ask_box(Context& context, Connection& connection,
                                     wire::Message question) {
  auto session = co_await connection.open_session(context.trace);
  SessionClient client(context.executor, context.pool, std::move(session), context.output);
  wire::Message answer = co_await client.ask(question);
  co_await client.finish();
  co_return answer;
}

UserError no_answer(const std::string& box, const wire::Message& answer) {
  if (const auto* failed = std::get_if<wire::Failed>(&answer)) {
    if (wire::errc_from_name(failed->code) == wire::Errc::unsupported) {
      return UserError("agent",
                       "the agent of the box " + box + " is older than this and cannot do that",
                       "Update it (`sandbox update --box " + wire::shell_quote(box) +
                           "`), then try again. Nothing was changed.");
    }
    return failed_error(*failed, box);
  }
  return UserError("agent", "the box " + box + " does not answer what it was asked",
                   "Are both programs of the same version? `sandbox boxes` shows the box's.");
}

}  // namespace cli
