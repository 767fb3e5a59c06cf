// What was on the command line, sorted by the command table. A value; knows nothing of how it was
// parsed.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace cli {

struct Arguments {
  std::map<std::string, std::vector<std::string>>
      options;                          // by long name; a flag has one empty value
  std::vector<std::string> positional;  // before `--`
  std::vector<std::string> command;     // after `--`
  bool separated = false;               // there was a `--`

  bool has(const std::string& name) const { return options.count(name) != 0; }
  // The last one given.
  std::optional<std::string> value(const std::string& name) const {
    auto found = options.find(name);
    if (found == options.end() || found->second.empty()) {
      return std::nullopt;
    }
    return found->second.back();
  }
  std::vector<std::string> values(const std::string& name) const {
    auto found = options.find(name);
    return found == options.end() ? std::vector<std::string>() : found->second;
  }
};

}  // namespace cli
