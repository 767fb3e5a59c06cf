#include "tests/support/team.h"

#include <signal.h>

#include <stdexcept>

namespace test {

Team::Team(Words box_options, std::map<std::string, std::string> box_environment)
    : box("rig", std::move(box_options), std::move(box_environment)) {
  join(alice, "alice");
  join(bob, "bob");
  for (Machine* machine : {&alice, &bob}) {
    auto made = machine->exec("true");
    if (made.status != 0) {
      throw std::runtime_error("no sandbox was made: " + made.err);
    }
  }
}

void Team::join(Machine& machine, const std::string& user) {
  machine.make_repository();
  machine.environment["SANDBOX_BOX"] = box.name();
  box.introduce(machine, user);
}

Running Team::hold(Machine& machine, const Words& options) {
  Words words = {"exec"};
  words.insert(words.end(), options.begin(), options.end());
  words.insert(words.end(), {"--", "sh", "-c", "echo held; exec sleep 600"});
  Running running = machine.start(words);
  if (!running.out_has("held")) {
    throw std::runtime_error("the command does not run: " + running.err());
  }
  return running;
}

Ended Team::end(Running& running) {
  running.signal(SIGINT);
  return running.wait();
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

std::string line_with(const std::string& text, const std::string& beginning) {
  for (const auto& line : lines_of(text)) {
    if (line.rfind(beginning, 0) == 0) {
      return line;
    }
  }
  return {};
}

}  // namespace test
