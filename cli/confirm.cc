#include "cli/confirm.h"

#include <unistd.h>

#include <cerrno>

#include "protocol/os/offload.h"

namespace cli {

namespace {

constexpr std::size_t kMostBytes = 4096;

// One line of stdin, byte by byte: what follows is not ours. Blocks.
std::string read_line() {
  std::string line;
  while (line.size() < kMostBytes) {
    char c = 0;
    ssize_t got = ::read(0, &c, 1);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return {};  // an answer without its end is none
    }
    if (c == '\n') {
      return line;
    }
    line += c;
  }
  return {};
}

}  // namespace

bool can_ask(const Context& context) {
  const Environment& environment = context.environment;
  return environment.stdin_is_terminal && environment.stderr_is_terminal && !context.output.json();
}

protocol::os::awaitable<bool> confirm(Context& context, const std::string& question,
                                      const std::string& option) {
  if (!can_ask(context)) {
    throw UserError("arguments", question + " Nobody can be asked here",
                    "Give " + option + " to do it. Nothing was changed.", kMisuse);
  }
  context.output.prompt(question + " [y/N] ");
  auto read = [] { return read_line(); };
  std::string answer = co_await protocol::os::offload(context.pool, std::move(read));
  co_return answer == "y" || answer == "Y" || answer == "yes" || answer == "Yes";
}

}  // namespace cli
