// The command table: every command is a row, and parsing and help (help.h) are made from the rows.
// A noun has rows of its own, one a verb: `sandbox boxes add`. The only place that knows
// Boost.Program_options.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/arguments.h"
#include "protocol/os/async.h"

namespace cli {

struct Context;

struct Option {
  const char* name;             // "dir,d": long name, then the short one if there is one
  const char* value = nullptr;  // what help calls the value; nullptr: a flag
  const char* help = "";
  const char* when_bare =
      nullptr;  // the value of `--name` without `=value`; nullptr: a value must be given
};

struct Command {
  const char* name;     // of a verb: "boxes add"
  const char* summary;  // starts with a capitalised verb, no full stop
  const char* usage;    // starts with the name
  const char* details;  // prose for `sandbox NAME --help`, which breaks its lines; may be empty
  std::vector<Option> options;
  std::size_t most_positional = 0;
  bool takes_command = false;                               // `-- COMMAND...` may follow
  protocol::os::awaitable<int> (*run)(Context&) = nullptr;  // of a noun: without a verb
  std::vector<Command> verbs = {};
  std::vector<std::string> instead = {};  // options that stand in the place of `-- COMMAND...`
};

const std::vector<Command>& commands();
const std::vector<Option>& global_options();
const Command* find_command(std::string_view name);  // "exec", "boxes add"

struct ParsedLine {
  const Command* command = nullptr;  // nullptr: none was named
  Arguments arguments;               // global options too
};
// Throws UserError (status 2) that names the argument and what would be right.
ParsedLine parse_line(const std::vector<std::string>& words);

}  // namespace cli
