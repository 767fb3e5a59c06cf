#include "tests/support/sandbox_list.h"

#include <sstream>

namespace test {

std::string status_of(Machine& machine, const std::string& id) {
  How anywhere;
  anywhere.directory = machine.root();
  std::istringstream lines(machine.run({"list", "--no-size"}, anywhere).out);
  std::string header, line;
  std::getline(lines, header);
  auto from = header.find("STATUS");
  auto to = header.find("PROJECT");
  while (from != std::string::npos && to != std::string::npos && std::getline(lines, line)) {
    if (line.compare(0, id.size(), id) == 0) {
      std::string status = line.substr(from, to - from);
      return status.substr(0, status.find_last_not_of(' ') + 1);
    }
  }
  return "not listed";
}

}  // namespace test
