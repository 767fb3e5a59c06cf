// What ssh is asked to run on another machine, and what is read from its answer.
#include "cli/remote_shell.h"

#include <algorithm>

#include "protocol/os/run.h"
#include "tests/support/catch.h"

namespace {

namespace os = protocol::os;

// What `sh` says when it gets the script as a host would, from these very words of ssh.
cli::RemoteAnswer run_here(const cli::RemoteScript& script) {
  std::string text = cli::script_text(script);
  os::Spawn spawn;
  spawn.argv = {"/bin/sh", "-c", cli::ssh_words("", "rig", text.size()).back()};
  auto ran = os::run(spawn, text + script.input);
  REQUIRE(ran);
  return cli::parse_answer(ran->out);
}

}  // namespace

TEST_CASE("ssh is told to ask nothing, and the host cannot be taken for an option") {
  auto words = cli::ssh_words("", "-oProxyCommand=harm", 10);
  CHECK(words.front() == "ssh");
  CHECK(cli::ssh_words("/opt/ssh", "rig", 10).front() == "/opt/ssh");
  CHECK(std::find(words.begin(), words.end(), "BatchMode=yes") != words.end());
  auto dashes = std::find(words.begin(), words.end(), "--");
  REQUIRE(words.end() - dashes == 3);
  CHECK(*(dashes + 1) == "-oProxyCommand=harm");
  CHECK(std::find(words.begin(), dashes, "-oProxyCommand=harm") == dashes);
}

TEST_CASE("a script gets its values and its stdin whole, whatever is in them") {
  cli::RemoteScript script{"try",
                           "say value \"$value\"\nsay empty \"$empty\"\nsay input \"$(cat)\"\n"};
  script.values = {{"value", "a 'b' \"c\" $d `e` \\f !g"}, {"empty", ""}};
  script.input = "exit 3\n$(touch /nowhere)";
  auto answer = run_here(script);
  CHECK(answer.first("value") == "a 'b' \"c\" $d `e` \\f !g");
  CHECK(answer.has("empty"));
  CHECK(answer.first("empty").empty());
  CHECK(answer.first("input") == "exit 3");
  CHECK(answer.has("end"));
}

TEST_CASE("lines are said one by one, the last without its end too") {
  cli::RemoteScript script{"try", "printf 'one two\\nthree' | say_lines line\n"};
  auto answer = run_here(script);
  CHECK(answer.said["line"] == std::vector<std::string>{"one two", "three"});
  CHECK(answer.all("line") == "one two; three");
}

TEST_CASE("a script that breaks off does not say that it came to its end") {
  CHECK_FALSE(run_here({"try", "say first yes\nexit 0\n"}).has("end"));
  CHECK_FALSE(run_here({"try", "say first \"$not_set\"\n"}).has("end"));
}

TEST_CASE("what a profile prints is no answer") {
  auto answer = cli::parse_answer("Welcome!\n@sandbox end yes\nuse @sandbox end\n@sandbox");
  CHECK(answer.said.size() == 1);
  CHECK(answer.first("end") == "yes");
  CHECK(answer.first("other").empty());
}
