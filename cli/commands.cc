#include "cli/commands.h"

#include <algorithm>
#include <boost/program_options.hpp>
#include <set>

#include "cli/command_runs.h"
#include "cli/commands_boxes.h"
#include "cli/error.h"
#include "cli/help.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace options = boost::program_options;

namespace {

const Option kDir{"dir,d", "DIR", "work as if started in DIR"};
const Option kId{"id", "ID", "the sandbox with this id, whatever the project and branch"};
const Option kOpen{"open", nullptr, "print the sandbox's address, too: ssh://ID@HOST:PORT"};
const Option kOpenIgnored{"open", nullptr, "accepted and ignored: the address is always shown"};
const Option kInit{"init", "KEY=VALUE",
                   "environment of the setup commands, when a sandbox is made; may be repeated"};
const Option kIsolation{"isolation", "MODE", "auto, bwrap or none: what a new sandbox runs in"};
const Option kInclude{"include", "PATH", "carry this ignored path, too; may be repeated"};
const Option kDiscard{"discard", nullptr, "also what was never pulled"};
const Option kWaitLock{"wait", "DURATION",
                       "wait for the lock, without limit or so long (90, 5m, 1h30m)", "inf"};
const Option kNoWait{"no-wait", nullptr,
                     "do not wait for the lock: exit 75 at once when it is held"};
const Option kForceCommand{"force-command", nullptr,
                           "go ahead though the box is busy or locked; frees nobody's lock"};

}  // namespace

const std::vector<Option>& global_options() {
  static const std::vector<Option> rows = {
      {"json", nullptr, "answer and errors in one JSON line, after any output"},
      {"format", "FORMAT", "text, or json, which is --json"},
      {"box", "NAME|HOST:PORT",
       "the box (default: SANDBOX_BOX; then, for what is about one project, the `box` of its "
       "trusted "
       "configuration file; else this machine)"},
      {"color", "WHEN", "auto, always or never"},
      {"trace", nullptr, "show on stderr each message sent and answered"},
      {"help,h", nullptr, "show this help"},
      {"version", nullptr, "show the version"},
  };
  return rows;
}

const std::vector<Command>& commands() {
  static const std::vector<Command> rows = {
      {"init",
       "Write a commented configuration file",
       "init [FILE]",
       "Writes FILE, or .sandbox.yml at the project's root. A file that is there is left as it is.",
       {kDir},
       1,
       false,
       run_init},
      {"start",
       "Make this project's sandbox, or find it",
       "start [CONFIG]",
       "Makes the sandbox of this project and branch and runs its setup commands. One that is "
       "there is named and left as it is. With --id, an existing sandbox becomes the one of this "
       "project and branch.",
       {kDir,
        kId,
        kOpenIgnored,
        {"wait", "DURATION",
         "wait until it is ready when another process is making it, and for the lock: without "
         "limit "
         "or so long",
         "inf"},
        kNoWait,
        kForceCommand,
        kInit,
        kIsolation,
        kInclude},
       1,
       false,
       run_start},
      {"exec",
       "Run a command in this project's sandbox",
       "exec [CONFIG] -- COMMAND [ARGUMENT...]",
       "Sends the work tree, runs COMMAND in the sandbox, in the same directory as here, and "
       "brings changed files back. Makes the sandbox when there is none.\n"
       "\n"
       "While another command has the sandbox, or another process makes it, exec waits on this "
       "machine's own box, without limit, and on any other box says who has it and exits with 75; "
       "with CI=true it waits there for up to 30 minutes. --wait, --no-wait and SANDBOX_LOCK_WAIT "
       "change that.\n"
       "\n"
       "The exit status is the command's, or\n"
       "    2  the arguments or the configuration cannot be used; nothing was done\n"
       "   75  the sandbox is busy or locked by somebody else; nothing was done\n"
       "  124  waiting for it timed out; nothing was done\n"
       "  126  the command cannot be run (127: there is no such command)\n"
       "128+N  signal N ended the command, or us (130: Ctrl+C)\n"
       "  254  the command ended with 0, but not all it changed or printed is here\n"
       "  255  we failed; the message says at what",
       {kDir,
        kId,
        kOpen,
        {"reset", nullptr, "end the old sandbox first and make a new one"},
        {"discard", nullptr, "with --reset: also what was never pulled"},
        kInit,
        {"cwd", "DIR",
         "directory in the sandbox, from the project's root (default: the same as here)"},
        {"env,e", "NAME[=VALUE]",
         "set a variable for the command; without a value, the one from here; may be repeated"},
        {"tty,t", nullptr, "give the command a terminal"},
        {"no-stdin,n", nullptr, "give the command no input"},
        {"rm", nullptr, "remove the sandbox afterwards, unless somebody else uses it"},
        kWaitLock,
        kNoWait,
        kForceCommand,
        {"detach", nullptr, "leave it running and print its job's id: see `attach` and `kill`"},
        {"reattach", "ID", "the same as `sandbox attach ID`"},
        {"kill", "ID", "the same as `sandbox kill ID`"},
        {"kill-all", nullptr, "the same as `sandbox kill --all`"},
        {"no-sync", nullptr, "accepted and ignored: an exec always syncs"},
        kIsolation,
        kInclude},
       1,
       true,
       run_exec,
       {},
       {"reattach", "kill", "kill-all"}},
      {"push",
       "Send the work tree without running anything",
       "push",
       "",
       {kDir, kId, kInclude, kWaitLock, kNoWait, kForceCommand},
       0,
       false,
       run_push},
      {"pull",
       "Bring back what earlier commands changed",
       "pull",
       "Brings results that were not brought back when their command ended. Runs nothing and waits "
       "for no lock.",
       {kDir, kId},
       0,
       false,
       run_pull},
      {"jobs",
       "List detached jobs",
       "jobs",
       "Those of the box, or without --box those of this machine and of every box where one was "
       "detached from here.",
       {},
       0,
       false,
       run_jobs},
      {"attach",
       "Show a detached job's output and wait for its end",
       "attach ID",
       "All of its output from the beginning, then live; ends with the job's exit status and "
       "brings "
       "back what it changed. Ctrl+C asks whether to end the job, Ctrl+D leaves it running. Waits "
       "for no lock.",
       {kDir},
       1,
       false,
       run_attach},
      {"kill",
       "End a detached job and all its processes",
       "kill ID | --all [OPTION...]",
       "INT, after 5 seconds TERM, after 2 more KILL. Comes back when all of it has ended. Waits "
       "for "
       "no lock.",
       {{"all", nullptr, "all of your jobs on the box"},
        {"signal", "NAME", "the first signal that it gets (default: INT)"},
        {"force", nullptr, "other people's, too; that is recorded"}},
       1,
       false,
       run_kill},
      {"status", "Show this project's sandbox", "status", "", {kDir, kId}, 0, false, run_status},
      {"list",
       "List sandboxes",
       "list",
       "STATUS says orphaned (its project directory is gone from this machine), active (somebody "
       "uses it now), detached (a detached command runs in it), and starting, unreachable or "
       "unknown (another agent answers there); nothing "
       "for an idle one.",
       {{"all", nullptr, "on every box that is known here, not only on one"},
        {"sort", "ORDER", "name (default), created, used or size, ascending"},
        {"no-size", nullptr, "do not ask how much disk they take"}},
       0,
       false,
       run_list},
      {"sessions",
       "Show who is attached to which sandbox, and what for",
       "sessions",
       "Of a box that cannot be reached it shows what runs on this machine.",
       {{"all", nullptr, "on every box that is known here, not only on one"}},
       0,
       false,
       run_sessions},
      {"prune",
       "Remove sandboxes that nobody uses",
       "prune",
       "Without an option: the orphaned ones, whose project directory is gone from this machine. "
       "One that is in use is never removed, and one with work that was never pulled only with "
       "--discard. Several options narrow each other. Asks first.",
       {{"all", nullptr, "every sandbox"},
        {"keep", "N", "all but the N that were used last"},
        {"older-than", "DURATION", "those that were not used for so long (1h, 30d, 2w)"},
        {"orphaned", nullptr, "of those, the orphaned ones"},
        {"dry-run", nullptr, "say what would be removed, and leave it"},
        {"force,f", nullptr, "do not ask"},
        kDiscard},
       0,
       false,
       run_prune},
      {"trust",
       "Let a project's configuration file reach beyond the sandbox",
       "trust [CONFIG]",
       "Shows what the file asks for and asks you. It is trusted as it is now: after any change "
       "you are asked again. Without it `box`, `isolation: none` and `sync.include` count only "
       "when the command line says them too.",
       {kDir,
        {"list", nullptr, "show the files that are trusted"},
        {"remove", nullptr, "trust it no more"}},
       1,
       false,
       run_trust},
      {"doctor",
       "Check what works on this machine and its boxes",
       "doctor",
       "Says how to mend what does not. Exit status 1 when something is in the way of using "
       "sandboxes.",
       {},
       0,
       false,
       run_doctor},
      {"stop",
       "End this project's sandbox",
       "stop",
       "Ends the sandbox and removes its files on the box. Keeps it, and says why, while a command "
       "runs in it (--force ends that command, too), while others have its box busy or locked "
       "(--force-command), and while it has work that was never pulled (--discard).",
       {kDir,
        kId,
        {"all", nullptr, "every sandbox on record"},
        kWaitLock,
        kNoWait,
        kForceCommand,
        kDiscard,
        {"force", nullptr,
         "though a command runs in it; and forget it when its box cannot be asked"}},
       0,
       false,
       run_stop},
      {"reset",
       "End this project's sandbox and make a new one",
       "reset [CONFIG]",
       "Says who has the sandbox and exits with 75 while a command runs in it; --wait waits for "
       "the "
       "end of that, and --force ends it.",
       {kDir,
        kId,
        kDiscard,
        kOpenIgnored,
        kInit,
        kWaitLock,
        kNoWait,
        kForceCommand,
        {"force", nullptr, "the same, also though a command runs in the old sandbox: it is ended"},
        kIsolation,
        kInclude},
       1,
       false,
       run_reset},
      boxes_row(),
      {"update",
       "Replace the agents of installed boxes by this one",
       "update --box NAME | --all [--force-command]",
       "For boxes that `sandbox boxes install` made. Locks the whole box first, and\n"
       "never waits for that: with --all a box that is locked or busy is skipped, and\n"
       "named. User locks and detached jobs outlive the change. A new agent that does\n"
       "not start, or does not answer, is rolled back.",
       {{"all", nullptr, "every box on record, one after the other"},
        {"force-command", nullptr,
         "though it is busy or locked; a detached job goes on, "
         "any other command gets 10 seconds to end"}},
       0,
       false,
       run_update},
      {"key",
       "Print the public key that boxes know you by",
       "key",
       "The key is made on first use. A box lets you in when `sandbox-agent authorize` was run "
       "there with it.",
       {},
       0,
       false,
       run_key},
      {"ssh-config",
       "Print a Host block with which ssh reaches this project's sandbox",
       "ssh-config",
       "",
       {kDir, kId, {"host", "NAME", "the name to use in the block"}},
       0,
       false,
       run_ssh_config},
      {"version", "Print the version", "version", "", {}, 0, false, run_version},
  };
  return rows;
}

namespace {

const Command* find_row(const std::vector<Command>& rows, std::string_view name) {
  auto found = std::find_if(rows.begin(), rows.end(),
                            [name](const Command& row) { return name == row.name; });
  return found == rows.end() ? nullptr : &*found;
}

}  // namespace

const Command* find_command(std::string_view name) {
  auto space = name.find(' ');
  const Command* row = find_row(commands(), name.substr(0, space));
  return row == nullptr || space == std::string_view::npos ? row : find_row(row->verbs, name);
}

namespace {

std::string long_name(const Option& option) {
  std::string name = option.name;
  return name.substr(0, name.find(','));
}

void add(options::options_description& description, const Option& option) {
  if (option.value == nullptr) {
    description.add_options()(option.name, option.help);
    return;
  }
  description.add_options()(option.name, options::value<std::vector<std::string>>()->composing(),
                            option.help);
}

UserError misuse(const std::string& message, const Command* command) {
  return UserError("arguments", message,
                   command == nullptr ? "`sandbox --help` shows the commands."
                                      : "Usage: sandbox " + usage(*command) + "   (`sandbox " +
                                            command->name + " --help` shows the options)",
                   kMisuse);
}

// Is this word an option whose value is the next word? Asked only for those before the command's
// name.
bool takes_next_word(std::string_view word) {
  return std::any_of(global_options().begin(), global_options().end(),
                     [word](const Option& option) {
                       return option.value != nullptr && word == "--" + long_name(option);
                     });
}

// Index of the command's name among `words` from `at` on, or words.size().
std::size_t command_index(const std::vector<std::string>& words, std::size_t at) {
  while (at < words.size() && words[at].size() > 1 && words[at].front() == '-') {
    at += takes_next_word(words[at]) ? 2 : 1;
  }
  return std::min(at, words.size());
}

std::string describe(const options::error& error) {
  std::string text = error.what();
  return text.empty() ? "bad arguments" : text;
}

// `--wait` alone becomes `--wait=inf`: the word after it is not its value.
std::vector<std::string> fill_in_bare(std::vector<std::string> words, const Command* command) {
  if (command != nullptr) {
    for (auto& word : words) {
      for (const auto& option : command->options) {
        if (option.when_bare != nullptr && word == "--" + long_name(option)) {
          word += "=" + std::string(option.when_bare);
          break;
        }
      }
    }
  }
  return words;
}

Arguments sort_words(const std::vector<std::string>& given, const Command* command) {
  std::vector<std::string> words = fill_in_bare(given, command);
  options::options_description described;
  for (const auto& option : global_options()) {
    add(described, option);
  }
  if (command != nullptr) {
    for (const auto& option : command->options) {
      add(described, option);
    }
  }
  options::options_description hidden;
  hidden.add(described);
  hidden.add_options()("positional", options::value<std::vector<std::string>>());
  options::positional_options_description positions;
  positions.add("positional", -1);

  namespace style = options::command_line_style;
  Arguments sorted;
  try {
    auto parsed = options::command_line_parser(words)
                      .options(hidden)
                      .positional(positions)
                      .style(style::default_style & ~style::allow_guessing)
                      .run();
    for (const auto& option : parsed.options) {
      if (option.position_key >= 0) {
        sorted.positional.insert(sorted.positional.end(), option.value.begin(), option.value.end());
        continue;
      }
      auto& values = sorted.options[option.string_key];
      if (option.value.empty()) {
        values.emplace_back();
      } else {
        values.insert(values.end(), option.value.begin(), option.value.end());
      }
    }
  } catch (const options::error& error) {
    throw misuse(describe(error), command);
  }
  return sorted;
}

// The command that `words` name, whose name is taken out of them; nullptr: none is named.
const Command* take_command(std::vector<std::string>& words) {
  std::size_t at = command_index(words, 0);
  if (at == words.size()) {
    return nullptr;
  }
  const Command* command = find_row(commands(), words[at]);
  if (command == nullptr) {
    throw misuse("there is no command `" + protocol::wire::printable(words[at], 80) + "`", nullptr);
  }
  words.erase(words.begin() + static_cast<std::ptrdiff_t>(at));
  if (command->verbs.empty()) {
    return command;
  }
  at = command_index(words, at);
  if (at == words.size()) {
    return command;
  }
  const Command* verb = find_row(command->verbs, std::string(command->name) + " " + words[at]);
  if (verb == nullptr) {
    throw misuse("there is no command `" + std::string(command->name) + " " +
                     protocol::wire::printable(words[at], 80) + "`",
                 command);
  }
  words.erase(words.begin() + static_cast<std::ptrdiff_t>(at));
  return verb;
}

}  // namespace

ParsedLine parse_line(const std::vector<std::string>& words) {
  auto dashes = std::find(words.begin(), words.end(), "--");
  std::vector<std::string> head(words.begin(), dashes);
  ParsedLine line;
  line.command = take_command(head);
  line.arguments = sort_words(head, line.command);
  if (dashes != words.end()) {
    line.arguments.separated = true;
    line.arguments.command.assign(dashes + 1, words.end());
  }
  if (line.arguments.has("help") || line.arguments.has("version") || line.command == nullptr) {
    return line;
  }
  const Command& command = *line.command;
  if (line.arguments.positional.size() > command.most_positional) {
    const std::string& extra = line.arguments.positional[command.most_positional];
    throw misuse("`" + protocol::wire::printable(extra, 80) + "` is one argument too many" +
                     (command.takes_command ? ": the command to run stands after `--`" : ""),
                 &command);
  }
  if (line.arguments.separated && !command.takes_command) {
    if (!line.arguments.command.empty()) {
      throw misuse("`" + std::string(command.name) + "` runs no command: nothing may follow `--`",
                   &command);
    }
  }
  auto given = std::find_if(command.instead.begin(), command.instead.end(),
                            [&line](const auto& name) { return line.arguments.has(name); });
  if (given != command.instead.end() && !line.arguments.command.empty()) {
    throw misuse("with --" + *given + " there is no command to run", &command);
  }
  if (command.takes_command && given == command.instead.end() && line.arguments.command.empty()) {
    throw misuse("there is no command to run: it stands after `--`", &command);
  }
  return line;
}

}  // namespace cli
