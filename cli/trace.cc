#include "cli/trace.h"

#include "protocol/wire/quoting.h"

namespace cli {
namespace wire = protocol::wire;

std::string trace_line(char direction, std::uint32_t request, const wire::Message& message) {
  wire::Message shown = message;
  if (auto* exec = std::get_if<wire::Exec>(&shown)) {
    for (auto& [name, value] : exec->env) {
      value = "...";
    }
  }
  return std::string(1, direction) + " " + std::to_string(request) + " " +
         wire::printable(wire::encode(shown), 2000);
}

void Trace::sent(std::uint32_t request, const wire::Message& message) {
  if (on_) {
    output_.trace(trace_line('>', request, message));
  }
}

void Trace::received(std::uint32_t request, const wire::Message& message) {
  if (on_) {
    output_.trace(trace_line('<', request, message));
  }
}

void Trace::event(const std::string& text) {
  if (on_) {
    output_.trace("* " + text);
  }
}

}  // namespace cli
