// What the sandboxes of the tests run in. Most tests want to see with their own eyes what a command
// did to this machine, so it is none, unless SANDBOX_TEST_ISOLATION says otherwise.
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

namespace test {

inline std::string isolation_under_test() {
  const char* said = std::getenv("SANDBOX_TEST_ISOLATION");
  return said != nullptr && *said != '\0' ? said : "none";
}

// For `sandbox-agent serve`.
inline std::vector<std::string> isolation_options() {
  std::vector<std::string> options = {"--isolation", isolation_under_test()};
  if (options.back() == "none") {
    options.emplace_back("--trust-commands");
  }
  return options;
}

}  // namespace test
