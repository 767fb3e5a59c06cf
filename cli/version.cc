// sandbox version: which version this is, and which protocol it speaks.
#include <boost/json.hpp>

#include "cli/command_runs.h"
#include "cli/context.h"
#include "protocol/wire/limits.h"

namespace cli {

protocol::os::awaitable<int> run_version(Context& context) {
  if (context.output.json()) {
    boost::json::object answer;
    answer["Version"] = SANDBOX_VERSION;
    answer["Protocol"] = protocol::wire::kProtocolVersion;
    context.output.json_line(answer);
  } else {
    context.output.line("sandbox " SANDBOX_VERSION " (protocol " +
                        std::to_string(protocol::wire::kProtocolVersion) + ")");
  }
  co_return 0;
}

}  // namespace cli
