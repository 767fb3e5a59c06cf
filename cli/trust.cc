// sandbox trust: lets a project's configuration file reach beyond the sandbox, as it is now.
#include "cli/trust.h"

#include <boost/json.hpp>

#include "cli/command_runs.h"
#include "cli/confirm.h"
#include "cli/project.h"
#include "cli/trusted_configs.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace fs = std::filesystem;
namespace json = boost::json;
namespace os = protocol::os;
using protocol::wire::printable;

os::awaitable<bool> ask_for_trust(Context& context, const Untrusted& untrusted) {
  Untrusted asked = untrusted;
  Output& output = context.output;
  output.note(printable(asked.config.file.string(), 4096) + " reaches beyond the sandbox:");
  for (const auto& reach : asked.reaches) {
    output.note("  line " + std::to_string(reach.line) + ": " + reach.what);
  }
  bool yes =
      co_await confirm(context, "Trust this file as it is now?", "the same on the command line");
  if (yes) {
    TrustedConfigs(context.paths).add(asked.config);
  }
  co_return yes;
}

os::awaitable<int> run_asking(Context& context, os::awaitable<int> (*run)(Context&)) {
  for (;;) {
    std::optional<Untrusted> untrusted;
    try {
      int status = co_await run(context);
      co_return status;
    } catch (const Untrusted& found) {
      untrusted = found;
    }
    bool yes = false;
    if (can_ask(context)) {
      yes = co_await ask_for_trust(context, *untrusted);
    }
    if (!yes) {
      throw Untrusted(*untrusted);
    }
  }
}

namespace {

void list(Context& context) {
  auto all = TrustedConfigs(context.paths).all();
  if (context.output.json()) {
    json::array out;
    for (const auto& one : all) {
      out.push_back(json::object{{"File", json_text(one.file.native())},
                                 {"SHA256", json_text(one.sha256)},
                                 {"Since", json_text(one.since)}});
    }
    context.output.json_line(json::object{{"Trusted", std::move(out)}});
    return;
  }
  if (all.empty()) {
    context.output.line("No configuration file is trusted.");
    return;
  }
  std::vector<std::vector<std::string>> rows = {{"FILE", "SHA-256", "SINCE"}};
  for (const auto& one : all) {
    rows.push_back({one.file.native(), one.sha256.substr(0, 16), one.since});
  }
  for (const auto& line : table(rows)) {
    context.output.line(line);
  }
}

void say(Context& context, const fs::path& file, const char* what, bool trusted) {
  if (context.output.json()) {
    context.output.json_line(
        json::object{{"File", json_text(file.native())}, {"Trusted", trusted}});
  } else {
    context.output.line(what + printable(file.string(), 4096));
  }
}

// The file that was named, or the project's; also one that is there no more.
fs::path named_file(const Context& context, const Project& project) {
  if (!context.arguments.positional.empty()) {
    return fs::weakly_canonical(project.directory / context.arguments.positional.front());
  }
  return load_config("", project.directory, project.root).file;
}

}  // namespace

os::awaitable<int> run_trust(Context& context) {
  const Arguments& arguments = context.arguments;
  if (arguments.has("list") && (arguments.has("remove") || !arguments.positional.empty())) {
    throw UserError("arguments", "--list stands alone", {}, kMisuse);
  }
  if (arguments.has("list")) {
    list(context);
    co_return 0;
  }
  Project project = find_project(context.environment, arguments.value("dir").value_or(""));
  if (arguments.has("remove")) {
    fs::path file = named_file(context, project);
    bool removed = TrustedConfigs(context.paths).remove(file);
    say(context, file, removed ? "No longer trusted: " : "Was not trusted: ", false);
    co_return 0;
  }
  std::string named = arguments.positional.empty() ? std::string() : arguments.positional.front();
  Config config = load_config(named, project.directory, project.root);
  if (config.file.empty()) {
    throw UserError("config", "there is no configuration file in " + project.root.string(),
                    "`sandbox init` writes one.");
  }
  auto reaches = reaching(config, {});
  if (reaches.empty()) {
    say(context, config.file, "Nothing in it reaches beyond the sandbox: ", false);
    co_return 0;
  }
  if (TrustedConfigs(context.paths).trusts(config)) {
    say(context, config.file, "Is trusted already: ", true);
    co_return 0;
  }
  if (!can_ask(context)) {
    throw UserError("config",
                    "`sandbox trust` asks a person: it needs a terminal on stdin and stderr, "
                    "and no --json",
                    "Without one, the command line has to say the same: see `sandbox exec --help`.",
                    kMisuse);
  }
  Untrusted untrusted(config, std::move(reaches));
  bool yes = co_await ask_for_trust(context, untrusted);
  context.output.line((yes ? "Trusted: " : "Not trusted: ") +
                      printable(config.file.string(), 4096));
  co_return 0;
}

}  // namespace cli
