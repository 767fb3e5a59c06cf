#include "cli/commands.h"

#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "cli/error.h"
#include "cli/help.h"
#include "tests/support/catch.h"
#include "tests/support/places.h"

namespace {

using cli::parse_line;

std::string misuse(const std::vector<std::string>& words) {
  try {
    parse_line(words);
  } catch (const cli::UserError& error) {
    CHECK(error.status == cli::kMisuse);
    CHECK(error.origin == "arguments");
    return error.what();
  }
  return "";
}

// All rows: the nouns', and their verbs'.
std::vector<const cli::Command*> all_rows() {
  std::vector<const cli::Command*> rows;
  for (const auto& row : cli::commands()) {
    rows.push_back(&row);
    for (const auto& verb : row.verbs) rows.push_back(&verb);
  }
  return rows;
}

}  // namespace

TEST_CASE("every row has a summary, a usage and something to run") {
  std::set<std::string> names;
  for (const cli::Command* each : all_rows()) {
    const cli::Command& row = *each;
    INFO(row.name);
    CHECK(names.insert(row.name).second);
    std::string summary = row.summary;
    CHECK(std::isupper(static_cast<unsigned char>(summary.front())));
    CHECK(summary.back() != '.');
    CHECK(summary.size() < 70);
    CHECK(std::string(row.usage).rfind(row.name, 0) == 0);
    CHECK(row.run != nullptr);
    CHECK(cli::find_command(row.name) == &row);
  }
}

TEST_CASE("a usage says that there are options where there are some") {
  CHECK(cli::usage(*cli::find_command("pull")) == "pull [OPTION...]");
  CHECK(cli::usage(*cli::find_command("exec")) ==
        "exec [OPTION...] [CONFIG] -- COMMAND [ARGUMENT...]");
  CHECK(cli::usage(*cli::find_command("kill")) == "kill ID | --all [OPTION...]");  // by itself
  CHECK(cli::usage(*cli::find_command("jobs")) == "jobs");
}

TEST_CASE("every option says what it does, and none is there twice") {
  for (const cli::Command* each : all_rows()) {
    const cli::Command& row = *each;
    std::set<std::string> names;
    auto look = [&names](const cli::Option& option) {
      INFO(option.name);
      std::string name = option.name;
      CHECK(names.insert(name.substr(0, name.find(','))).second);
      CHECK(!std::string(option.help).empty());
    };
    for (const auto& option : row.options) look(option);
    for (const auto& option : cli::global_options()) look(option);
  }
}

TEST_CASE("help is made from the rows and fits a terminal") {
  std::string overview = cli::overview();
  auto fits = [](const std::string& text) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      INFO(line);
      CHECK(line.size() <= 80);
      CHECK((line.empty() || line.back() != ' '));
    }
  };
  fits(overview);
  for (const auto& row : cli::commands()) {
    CHECK(overview.find(row.summary) != std::string::npos);
    for (const auto& verb : row.verbs) {
      CHECK(cli::help(row).find(verb.summary) != std::string::npos);
    }
  }
  for (const cli::Command* each : all_rows()) {
    const cli::Command& row = *each;
    fits(cli::help(row));
    for (const auto& option : row.options) {
      std::string name = option.name;
      CHECK(cli::help(row).find("--" + name.substr(0, name.find(','))) != std::string::npos);
    }
  }
  CHECK(std::count(overview.begin(), overview.end(), '\n') < 50);
}

TEST_CASE("the overview names every variable of ours that is read") {
  std::regex literal("\"(SANDBOX_[A-Z_]*[A-Z])\"");
  std::set<std::string> read;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(SANDBOX_SOURCE_DIR) / "cli")) {
    std::ifstream file(entry.path());
    std::string text{std::istreambuf_iterator<char>(file), {}};
    for (std::sregex_iterator each(text.begin(), text.end(), literal), end; each != end; ++each) {
      read.insert((*each)[1]);
    }
  }
  CHECK(read.count("SANDBOX_BOX") == 1);
  for (const auto& variable : read) {
    INFO(variable);
    CHECK(cli::overview().find("\n  " + variable + " ") != std::string::npos);
  }
}

TEST_CASE("an option that does nothing says so") {
  for (const auto& row : cli::commands()) {
    for (const auto& option : row.options) {
      if (std::string(option.name) == "open") {
        INFO(row.name);
        bool read = std::string(row.name) == "exec";
        CHECK((std::string(option.help).find("ignored") == std::string::npos) == read);
      }
    }
  }
}

TEST_CASE("exec's help says what each status of ours means") {
  for (const auto& row : cli::commands()) {
    if (std::string(row.name) != "exec") continue;
    for (const char* status :
         {"    2  ", "   75  ", "  124  ", "  126  ", "128+N  ", "  254  ", "  255  "}) {
      INFO(status);
      CHECK(cli::help(row).find("\n" + std::string(status)) != std::string::npos);
    }
  }
}

TEST_CASE("a noun's verb is a command of its own, and without one the noun is") {
  auto add = parse_line({"boxes", "add", "--name", "rig", "--host", "h"});
  CHECK(std::string(add.command->name) == "boxes add");
  CHECK(add.arguments.value("name") == "rig");
  CHECK(add.arguments.positional.empty());
  CHECK(std::string(parse_line({"boxes"}).command->name) == "boxes");
  CHECK(std::string(parse_line({"boxes", "--json"}).command->name) == "boxes");
  CHECK(std::string(parse_line({"--json", "boxes", "--json", "list"}).command->name) ==
        "boxes list");
  CHECK(std::string(parse_line({"boxes", "--box", "add", "list"}).command->name) == "boxes list");
  CHECK(parse_line({"boxes", "export", "list"}).arguments.positional ==
        std::vector<std::string>{"list"});
  CHECK(misuse({"boxes", "frob"}).find("`boxes frob`") != std::string::npos);
  CHECK(misuse({"boxes", "add", "rig"}).find("`rig`") != std::string::npos);
  CHECK(parse_line({"boxes", "add", "--help"}).arguments.has("help"));
  CHECK(cli::find_command("boxes add") != nullptr);
  CHECK(cli::find_command("boxes frob") == nullptr);
  CHECK(cli::find_command("frob add") == nullptr);
}

TEST_CASE("what stands after -- is the command, untouched") {
  auto line = parse_line({"exec", "-t", "--", "make", "--json", "-d", "--", ""});
  CHECK(std::string(line.command->name) == "exec");
  CHECK(line.arguments.command == std::vector<std::string>{"make", "--json", "-d", "--", ""});
  CHECK(line.arguments.has("tty"));
  CHECK_FALSE(line.arguments.has("json"));
}

TEST_CASE("every command that takes the lock can be forced, by its own options alone") {
  for (const char* name : {"exec", "push", "start", "stop", "reset"}) {
    INFO(name);
    CHECK(cli::help(*cli::find_command(name)).find("--force-command") != std::string::npos);
  }
  CHECK(parse_line({"exec", "--force-command", "--", "x"}).arguments.has("force-command"));
  auto line = parse_line({"exec", "--", "echo", "--force-command"});
  CHECK_FALSE(line.arguments.has("force-command"));
  CHECK(line.arguments.command == std::vector<std::string>{"echo", "--force-command"});
  CHECK(misuse({"list", "--force-command"}) != "");
}

TEST_CASE("global options may stand before and after the command's name") {
  auto before = parse_line({"--json", "--box", "rig1:22", "list"});
  CHECK(before.arguments.has("json"));
  CHECK(before.arguments.value("box") == "rig1:22");
  auto after = parse_line({"list", "--box=rig1:22", "--json"});
  CHECK(after.arguments.value("box") == "rig1:22");
}

TEST_CASE("a value may be joined or follow, and a repeated option keeps its values in order") {
  auto line = parse_line({"exec", "-e", "A=1", "--env=B=2 3", "--env", "C", "--", "x"});
  CHECK(line.arguments.values("env") == std::vector<std::string>{"A=1", "B=2 3", "C"});
}

TEST_CASE("the option --wait takes a value only when it is joined") {
  CHECK(parse_line({"exec", "--wait", "--", "x"}).arguments.value("wait") == "inf");
  CHECK(parse_line({"exec", "--wait=5m", "--", "x"}).arguments.value("wait") == "5m");
  auto line = parse_line({"exec", "--wait", "my.yml", "--", "x"});
  CHECK(line.arguments.value("wait") == "inf");
  CHECK(line.arguments.positional == std::vector<std::string>{"my.yml"});
}

TEST_CASE("what names a detached job stands in the place of a command") {
  CHECK(parse_line({"exec", "--reattach", "abcd"}).arguments.value("reattach") == "abcd");
  CHECK(parse_line({"exec", "--kill=abcd"}).arguments.value("kill") == "abcd");
  CHECK(parse_line({"exec", "--kill-all"}).arguments.has("kill-all"));
  CHECK(misuse({"exec", "--kill", "abcd", "--", "x"}).find("--kill") != std::string::npos);
  CHECK(misuse({"exec", "--detach"}).find("after `--`") != std::string::npos);
}

TEST_CASE("misuse names the argument") {
  CHECK(misuse({"exce", "--", "x"}).find("`exce`") != std::string::npos);
  CHECK(misuse({"exec", "--frobnicate", "--", "x"}).find("frobnicate") != std::string::npos);
  CHECK(misuse({"exec"}).find("after `--`") != std::string::npos);
  CHECK(misuse({"exec", "--"}).find("after `--`") != std::string::npos);
  CHECK(misuse({"exec", "make", "test"}).find("`test`") != std::string::npos);
  CHECK(misuse({"list", "more"}).find("`more`") != std::string::npos);
  CHECK(misuse({"list", "--", "x"}).find("runs no command") != std::string::npos);
  CHECK(misuse({"exec", "--id", "--", "x"}).find("id") != std::string::npos);
  CHECK(misuse({"exec", "--tty=yes", "--", "x"}).find("tty") != std::string::npos);
  CHECK(misuse({"list", "--js"}) != "");  // no guessing
}

TEST_CASE("help needs no command to run") {
  CHECK(parse_line({"exec", "--help"}).arguments.has("help"));
  CHECK(parse_line({"-h"}).command == nullptr);
}
