#include "cli/program.h"

#include <signal.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <memory>
#include <optional>

#include "cli/command_runs.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/error.h"
#include "cli/help.h"
#include "cli/trust.h"
#include "protocol/os/signals.h"

namespace cli {
namespace asio = boost::asio;
namespace os = protocol::os;

namespace {

constexpr std::size_t kPoolThreads =
    8;  // blocked at once: input, output, errors, a pack, a lock, git

// Looked for before the arguments are understood: what is wrong with them is told in JSON, too.
bool wants_json(const std::vector<std::string>& words) {
  auto end = std::find(words.begin(), words.end(), "--");
  for (auto word = words.begin(); word != end; ++word) {
    bool format = *word == "--format" && word + 1 != end && word[1] == "json";
    if (*word == "--json" || *word == "--format=json" || format) {
      return true;
    }
  }
  return false;
}

OutputOptions output_options(const Environment& environment) {
  OutputOptions options;
  options.json = wants_json(environment.arguments);
  options.no_color = !environment.get("NO_COLOR").empty();
  options.stdout_open = environment.stdout_open;
  options.stdout_is_terminal = environment.stdout_is_terminal;
  options.stderr_is_terminal = environment.stderr_is_terminal && environment.get("TERM") != "dumb";
  return options;
}

ColorChoice color_choice(const Arguments& arguments) {
  std::string when = arguments.value("color").value_or("auto");
  if (when == "auto") {
    return ColorChoice::automatic;
  }
  if (when == "always") {
    return ColorChoice::always;
  }
  if (when == "never") {
    return ColorChoice::never;
  }
  throw UserError("arguments", "--color takes auto, always or never, not `" + when + "`", {},
                  kMisuse);
}

void check_format(const Arguments& arguments) {
  std::string format = arguments.value("format").value_or("text");
  if (format != "text" && format != "json") {
    throw UserError("arguments", "--format takes text or json, not `" + format + "`", {}, kMisuse);
  }
  if (arguments.has("format") && arguments.has("json")) {
    throw UserError("arguments", "--json and --format exclude each other", {}, kMisuse);
  }
}

UserError interrupted(int signal) { return UserError("command", "interrupted", {}, 128 + signal); }

os::awaitable<void> deliver(os::executor executor, Signals& signals) {
  os::SignalStream stream(executor, {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH});
  for (;;) {
    int signal = co_await stream.next();
    if (signal == 0) {
      co_return;
    }
    signals.deliver(signal);
  }
}

// What escaped a command, as the user is told it.
UserError as_user_error(const std::exception_ptr& escaped) {
  try {
    std::rethrow_exception(escaped);
  } catch (const UserError& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return UserError("command", "there is not enough memory");
  } catch (const std::exception& error) {
    return UserError("command", std::string("this should not have happened: ") + error.what(),
                     "Please report it with the command line and the output of --trace.");
  }
}

int run_command(const ParsedLine& line, const Environment& environment, Output& output) {
  Paths paths = find_paths(environment);
  // Left to the system at exit: threads of the pool may block in a standard stream for ever.
  auto& io = *new asio::io_context(1);
  auto& pool = *new asio::thread_pool(kPoolThreads);
  Trace trace(output, line.arguments.has("trace"));
  std::optional<int> status;
  std::optional<UserError> failed;
  auto give_up = [&io, &failed, &status](const UserError& error) {
    if (!status && !failed) {
      failed = error;
    }
    io.stop();
  };
  Signals signals([&give_up](int signal) {
    if (signal != SIGWINCH) {
      give_up(interrupted(signal));
    }
  });
  os::spawn(io.get_executor(), "signals", deliver(io.get_executor(), signals));
  auto& context = *new Context{
      environment, paths,   line.arguments,    output, trace, signals, io.get_executor(),
      pool,        give_up, line.command->name};
  asio::co_spawn(io, run_asking(context, line.command->run),
                 [&](const std::exception_ptr& escaped, int result) {
                   if (escaped) {
                     failed = as_user_error(escaped);
                   } else {
                     status = result;
                   }
                   io.stop();
                 });
  io.run();
  if (failed) {
    output.error(*failed);
    return failed->status;
  }
  return status.value_or(kFailed);
}

}  // namespace

int run(const Environment& environment) {
  os::reset_signals();
  OutputOptions options = output_options(environment);
  auto& output = *new Output(options);
  try {
    ParsedLine line = parse_line(environment.arguments);
    options.color = color_choice(line.arguments);
    check_format(line.arguments);
    output = Output(options);
    if (line.arguments.has("help")) {
      std::string text = line.command == nullptr ? overview() : help(*line.command);
      text.pop_back();
      output.line(text);
      return 0;
    }
    if (line.arguments.has("version")) {
      line.command = find_command("version");
    }
    if (line.command == nullptr) {
      if (output.json()) {
        throw UserError("arguments", "no command was given", "`sandbox --help` shows the commands.",
                        kMisuse);
      }
      std::string text = overview();
      text.pop_back();
      output.note(text);
      return kMisuse;
    }
    return run_command(line, environment, output);
  } catch (...) {
    UserError error = as_user_error(std::current_exception());
    output.error(error);
    return error.status;
  }
}

}  // namespace cli
