#include "cli/install_service.h"

#include <vector>

#include "protocol/wire/quoting.h"

namespace cli {
namespace wire = protocol::wire;

namespace {

// The value of `# NAME=VALUE` on a line of its own.
std::optional<std::string> noted(std::string_view text, const std::string& name) {
  std::string front = "\n# " + name + "=";
  auto begin = text.find(front);
  if (begin == std::string_view::npos) {
    return std::nullopt;
  }
  begin += front.size();
  auto end = text.find('\n', begin);
  return std::string(text.substr(begin, end == std::string_view::npos ? end : end - begin));
}

// One word of a unit file's command line: quotes and backslashes, and what it would expand.
std::string unit_word(const std::string& word) {
  std::string quoted = "\"";
  for (char c : word) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
    } else if (c == '%' || c == '$') {
      quoted += c;
    }
    quoted += c;
  }
  return quoted + "\"";
}

}  // namespace

std::string serve_script(const std::string& program, const std::string& state,
                         const ServiceOptions& options) {
  std::string text =
      "#!/bin/sh\n"
      "# Starts this box's agent. `sandbox boxes install` wrote it, and reads these lines again:\n";
  text += "# name=" + options.name + "\n# listen=" + options.listen + "\n# slots=" + options.slots +
          "\n";
  std::vector<std::string> words = {program,   "serve",      "--state",  state,
                                    "--name",  options.name, "--listen", options.listen,
                                    "--slots", options.slots};
  return text + "exec " + wire::shell_join(words) + "\n";
}

std::optional<ServiceOptions> parse_serve_script(std::string_view text) {
  auto name = noted(text, "name");
  auto listen = noted(text, "listen");
  auto slots = noted(text, "slots");
  if (!name || !listen || !slots) {
    return std::nullopt;
  }
  return ServiceOptions{*name, *listen, *slots};
}

std::string unit_file(const std::string& script, const ServiceOptions& options) {
  // KillMode=process: what runs in sandboxes, and the supervisors, are the next agent's to find.
  // 2 and 75: it was misused, or another agent has the directory; trying again would not help.
  return "[Unit]\nDescription=Agent of the sandbox box " + options.name +
         "\n\n[Service]\nType=notify\nExecStart=" + unit_word(script) +
         "\nKillMode=process\nRestart=always\nRestartSec=2\nRestartPreventExitStatus=2 75\n"
         "TimeoutStopSec=60\n\n[Install]\nWantedBy=default.target\n";
}

}  // namespace cli
