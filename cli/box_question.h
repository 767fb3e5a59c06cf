// One question to a box on a session of its own, bound to no sandbox: how it is, who has reserved
// it. Such questions never wait for a lock.
#pragma once

#include "cli/connection.h"
#include "cli/context.h"
#include "protocol/wire/messages.h"

namespace cli {

// The answer; Failed and Refused are answers, too. An agent that does not know the question answers
// Failed with Errc::unsupported. Throws UserError when the connection is lost.
protocol::os::awaitable<protocol::wire::Message> ask_box(Context& context, Connection& connection,
                                                         protocol::wire::Message question);

// What to say of an answer that is none to the question.
UserError no_answer(const std::string& box, const protocol::wire::Message& answer);

}  // namespace cli
