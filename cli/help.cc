#include "cli/help.h"

#include <algorithm>

namespace cli {
namespace {

constexpr std::size_t kColumns = 80;
constexpr std::size_t kOptionColumn = 28;  // where it is said what an option does

// `text` with its lines broken between words. All but the first get an indent; the first begins in
// the column after it.
std::string broken(const std::string& text, std::size_t indent) {
  std::string out;
  std::size_t column = indent;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = std::min(text.find_first_of(" \n", at), text.size());
    if (column > indent && column + (end - at) > kColumns) {
      out.pop_back();  // the space before this word
      out += "\n" + std::string(indent, ' ');
      column = indent;
    }
    out.append(text, at, end - at);
    column += end - at;
    if (end < text.size()) {
      out += text[end];
      column = text[end] == '\n' ? indent : column + 1;
    }
    at = end + 1;
  }
  return out;
}

std::string option_lines(const std::vector<Option>& rows) {
  std::string text;
  for (const auto& option : rows) {
    std::string name = option.name;
    auto comma = name.find(',');
    std::string left = comma == std::string::npos
                           ? "      --" + name
                           : "  -" + name.substr(comma + 1) + ", --" + name.substr(0, comma);
    if (option.value != nullptr) {
      left += option.when_bare != nullptr ? "[=" + std::string(option.value) + "]"
                                          : " " + std::string(option.value);
    }
    if (left.size() + 2 > kOptionColumn) {
      text += left + "\n";
      left.clear();
    }
    left.resize(kOptionColumn, ' ');
    text += left + broken(option.help, kOptionColumn) + "\n";
  }
  return text;
}

// The variables that we read, but for those of others (CI, XDG_CONFIG_HOME ...).
std::string variable_lines() {
  return "  SANDBOX_BOX         what --box says, where it is not given\n"
         "  SANDBOX_LOCK_WAIT   how long to wait for the lock: seconds, or inf\n"
         "  SANDBOX_ISOLATION   auto, bwrap or none: for new sandboxes of the local box\n"
         "  SANDBOX_EXPOSE      PATH:PATH which the local box's sandboxes see\n"
         "  SANDBOX_STATE_DIR   where sandboxes are remembered\n"
         "  SANDBOX_USER        your name on the local box\n"
         "  SANDBOX_SSH         the ssh to run for boxes added with --via-ssh\n";
}

std::string command_lines(const std::vector<Command>& rows, std::size_t width) {
  std::string text;
  for (const auto& row : rows) {
    std::string left = "  " + std::string(row.name);
    left.resize(width, ' ');
    text += left + broken(row.summary, width) + "\n";
  }
  return text;
}

// Does the command's own usage say that there are options?
bool names_options(std::string_view usage) {
  for (auto at = usage.find("--"); at != std::string_view::npos; at = usage.find("--", at + 2)) {
    if (at + 2 < usage.size() && usage[at + 2] != ' ') {
      return true;
    }
  }
  return usage.find("OPTION...") != std::string_view::npos;
}

}  // namespace

std::string usage(const Command& command) {
  std::string text = command.usage;
  if (!command.options.empty() && !names_options(text)) {
    text.insert(std::string_view(command.name).size(), " [OPTION...]");
  }
  return text;
}

std::string overview() {
  std::string text =
      "Runs commands on another machine as if they ran here.\n\n"
      "Usage: sandbox [OPTION...] COMMAND [ARGUMENT...]\n\nCommands:\n" +
      command_lines(commands(), 14);
  return text + "\nOptions of every command:\n" + option_lines(global_options()) +
         "\nEnvironment:\n" + variable_lines() +
         "\n`sandbox COMMAND --help` shows a command's own options.\n"
         "Example: sandbox exec -- make test\n";
}

std::string help(const Command& command) {
  std::string text = std::string(command.summary) + ".\n\nUsage: sandbox " + usage(command) + "\n";
  if (*command.details != '\0') {
    text += "\n" + broken(command.details, 0) + "\n";
  }
  if (!command.verbs.empty()) {
    text += "\nCommands:\n" + command_lines(command.verbs, 20) + "\n`sandbox " +
            std::string(command.name) + " VERB --help` shows a command's own options.\n";
  }
  if (!command.options.empty()) {
    text += "\nOptions:\n" + option_lines(command.options);
  }
  return text + "\nOptions of every command:\n" + option_lines(global_options());
}

}  // namespace cli
