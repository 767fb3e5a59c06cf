// What doctor looks at on this machine. Each check answers with a row and never throws; those that
// run a program or read files block.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/environment.h"

namespace cli {

struct Check {
  enum class Status {
    ok,
    warning,  // something is missing that not everybody needs
    error     // sandboxes cannot be used like this
  };
  std::string name;
  Status status = Status::ok;
  std::string detail;
  std::string fix;  // what to do about it, a sentence; empty when there is nothing to do
};

Check check_git();
Check check_ssh(const Environment& environment);
Check check_agent_program(const Environment& environment);
// Ours, private, and a file can be written in it; or it can be made.
Check check_directory(const std::string& name, const std::filesystem::path& directory);
Check check_storage(const Paths& paths);
Check check_disk(const std::filesystem::path& directory);
Check check_key(const Paths& paths);
// Whether bubblewrap can keep commands apart from this machine, tried as the agent does it.
Check check_isolation(const Environment& environment, const Paths& paths);

}  // namespace cli
