#include "cli/target.h"

#include <boost/json.hpp>

#include "cli/report.h"
#include "tests/support/catch.h"

namespace {

namespace wire = protocol::wire;

std::int64_t wait(std::map<std::string, std::vector<std::string>> options,
                  std::map<std::string, std::string> variables, const std::string& box) {
  cli::Arguments arguments;
  arguments.options = std::move(options);
  cli::Environment environment;
  environment.variables = std::move(variables);
  return cli::lock_wait(arguments, environment, box);
}

}  // namespace

TEST_CASE("on the local box everybody waits, elsewhere only CI does") {
  CHECK(wait({}, {}, "local") == -1);
  CHECK(wait({}, {}, "rig") == 0);
  CHECK(wait({}, {{"CI", "true"}}, "rig") == 1800);
  CHECK(wait({}, {{"CI", "1"}}, "rig") == 0);
  CHECK(wait({}, {{"CI", "true"}}, "local") == -1);
}

TEST_CASE("the variable and then the command line override") {
  CHECK(wait({}, {{"SANDBOX_LOCK_WAIT", "7"}}, "rig") == 7);
  CHECK(wait({}, {{"SANDBOX_LOCK_WAIT", "inf"}}, "rig") == -1);
  CHECK(wait({}, {{"SANDBOX_LOCK_WAIT", ""}, {"CI", "true"}}, "rig") == 1800);
  CHECK(wait({{"wait", {"inf"}}}, {{"SANDBOX_LOCK_WAIT", "0"}}, "rig") == -1);
  CHECK(wait({{"wait", {"5m"}}}, {}, "local") == 300);
  CHECK(wait({{"no-wait", {""}}}, {}, "local") == 0);
}

TEST_CASE("the box is the command line's, else the variable's, else nobody's") {
  cli::Arguments arguments;
  cli::Environment environment;
  CHECK_FALSE(cli::chosen_box(arguments, environment));
  environment.variables["SANDBOX_BOX"] = "";
  CHECK_FALSE(cli::chosen_box(arguments, environment));
  environment.variables["SANDBOX_BOX"] = "rig";
  CHECK(cli::chosen_box(arguments, environment) == "rig");
  arguments.options["box"] = {"bench"};
  CHECK(cli::chosen_box(arguments, environment) == "bench");
}

TEST_CASE("what is no time to wait is misuse") {
  CHECK_THROWS_AS(wait({}, {{"SANDBOX_LOCK_WAIT", "5m"}}, "rig"), cli::UserError);
  CHECK_THROWS_AS(wait({}, {{"SANDBOX_LOCK_WAIT", "-1"}}, "rig"), cli::UserError);
  CHECK_THROWS_AS(wait({{"wait", {"soon"}}}, {}, "rig"), cli::UserError);
  CHECK_THROWS_AS(wait({{"wait", {"1"}}, {"no-wait", {""}}}, {}, "rig"), cli::UserError);
}

TEST_CASE("the option --init takes a name and a value") {
  CHECK(cli::parse_assignment("a=b=c", "--init") ==
        std::pair<std::string, std::string>("a", "b=c"));
  CHECK(cli::parse_assignment("a=", "--init").second.empty());
  CHECK_THROWS_AS(cli::parse_assignment("a", "--init"), cli::UserError);
  CHECK_THROWS_AS(cli::parse_assignment("=b", "--init"), cli::UserError);
}

TEST_CASE("a busy box names its command and holder, and how to override") {
  wire::Refused refused;
  refused.why = "busy";
  refused.box = "what-the-agent-calls-it";
  refused.holders = {{"bob", "exec", "make", 61, "", "", ""}};
  auto busy = cli::refused_error(refused, "rig");
  CHECK(busy.status == 75);
  CHECK(std::string(busy.what()) ==
        "box 'rig' is busy, 'exec' in progress by bob, use --force-command to override");
  CHECK(busy.next == "It runs `make`, for 1m 01s. --wait waits in line. Nothing was sent or run.");
  refused.holders = {{"bob", "exec", "make", 61, "", "", ""},
                     {"bot", "push", "", 1, "ci:generic:h", "", ""}};
  CHECK(std::string(cli::refused_error(refused, "rig").what())
            .find("'exec' in progress by bob, 'push' in progress by bot for ci on h,") !=
        std::string::npos);
  refused.holders.resize(5);
  CHECK(std::string(cli::refused_error(refused, "rig").what()).find(" and 2 more,") !=
        std::string::npos);
  refused.holders.clear();
  CHECK(std::string(cli::refused_error(refused, "rig").what()) ==
        "box 'rig' is busy, use --force-command to override");
}

TEST_CASE("a locked box names who has reserved it, since when and why") {
  wire::Refused refused;
  refused.why = "locked";
  refused.holders = {{"alice", "lock", "", 5, "", "", ""}};
  refused.since = "2026-01-31T00:00:00Z";
  refused.reason = "measuring\x1b[2J";
  auto locked = cli::refused_error(refused, "rig");
  CHECK(locked.status == 75);
  CHECK(std::string(locked.what()) ==
        "box 'rig' is locked by alice (since 2026-01-31T00:00:00Z): measuring\\x1b[2J, use "
        "--force-command to override");
  CHECK(std::string(locked.what()).find("busy") == std::string::npos);
  CHECK(locked.next.find("sandbox boxes unlock --box rig --force") != std::string::npos);
}

TEST_CASE("a wait that is over and a full line say so, with the status of their kind") {
  wire::Refused refused;
  refused.why = "expired";
  refused.holders = {{"bob", "exec", "make", 61, "", "", ""}};
  auto expired = cli::refused_error(refused, "rig", 90);
  CHECK(expired.status == 124);
  CHECK(std::string(expired.what()) ==
        "timed out after 1m 30s waiting for box 'rig': 'exec' in progress by bob");
  CHECK(std::string(cli::refused_error(refused, "rig", -1).what()).find("timed out waiting") == 0);
  CHECK(
      cli::refused_error(refused, "rig", 90, "The old one is gone.").next ==
      "It runs `make`, for 1m 01s. Try again, or wait longer with --wait=DURATION. The old one is "
      "gone.");
  refused.why = "queue_full";
  CHECK(cli::refused_error(refused, "rig").status == 75);
}

TEST_CASE("a wait behind a user lock says whose it is and since when, not that it runs") {
  wire::Refused refused;
  refused.why = "expired";
  refused.holders = {{"alice", "lock", "measuring", 5, "", "", ""},
                     {"alice", "exec", "make", 61, "", "", ""}};
  refused.since = "2026-01-31T00:00:00Z";
  refused.reason = "measuring";
  auto expired = cli::refused_error(refused, "rig", 2);
  CHECK(expired.status == 124);
  CHECK(std::string(expired.what()) ==
        "timed out after 2s waiting for box 'rig': locked by alice (since 2026-01-31T00:00:00Z): "
        "measuring");
  CHECK(expired.next.find("sandbox boxes unlock --box rig --force") != std::string::npos);
  CHECK(expired.next.find("It runs") == std::string::npos);
}

TEST_CASE("a sandbox that is in use is not ended, and no wait is advised that there is not") {
  wire::Refused refused;
  refused.why = "busy";
  refused.holders = {{"bob", "exec", "make", 61, "", "", ""}};
  auto in_use = cli::in_use_error(refused, "local", "abc");
  CHECK(in_use.status == 75);
  CHECK(std::string(in_use.what()) == "the sandbox abc is in use: 'exec' in progress by bob");
  CHECK(in_use.next ==
        "It runs `make`, for 1m 01s. With --force it is ended all the same. Nothing was changed.");
}

TEST_CASE("a failed step has the status of its kind") {
  CHECK(cli::failed_error({"exec", "not_found", "make"}, "rig").status == 127);
  CHECK(cli::failed_error({"exec", "denied", "make"}, "rig").status == 126);
  CHECK(cli::failed_error({"exec", "io", "make"}, "rig").status == 255);
  CHECK(cli::failed_error(
            {std::string(wire::message_name(wire::SyncStart{})), "no_space", "disk full"}, "rig")
            .origin == "sync");
  CHECK(cli::failed_error({"end", "busy", "bob"}, "rig").status == 75);
}

TEST_CASE("every failed step says what to do next") {
  for (const std::string& step :
       {std::string("exec"), std::string("end"), std::string(wire::message_name(wire::SyncStart{})),
        std::string(wire::message_name(wire::SyncEnd{}))}) {
    for (const char* code : {"not_found", "denied", "io", "busy", "no_space", "unsupported"}) {
      INFO(step << " " << code);
      CHECK_FALSE(cli::failed_error({step, code, "why"}, "rig").next.empty());
    }
  }
}

TEST_CASE("the exit status is the command's, and 254 only in place of 0") {
  cli::CycleOutcome outcome;
  outcome.exited.emplace();
  CHECK(cli::exit_status(outcome) == 0);
  outcome.not_merged = "disk full";
  CHECK(cli::exit_status(outcome) == 254);
  outcome.exited->status = 3;
  CHECK(cli::exit_status(outcome) == 3);
  outcome.exited->signal = "KILL";
  CHECK(cli::exit_status(outcome) == 137);
  outcome.exited->signal = "NO-SUCH";
  CHECK(cli::exit_status(outcome) == 255);
  // What setup could not bring back counts as what the command could not.
  cli::CycleOutcome setup;
  setup.merged.refused = {{"Name", "folds to the same as name"}};
  CHECK(cli::exit_status(outcome, setup) == 255);
  CHECK(cli::exit_status(cli::CycleOutcome(), setup) == 254);
  CHECK(cli::exit_status(cli::CycleOutcome(), std::nullopt) == 0);
}

TEST_CASE("a report names everything that did not go as wanted") {
  cli::CycleOutcome outcome;
  outcome.exited.emplace();
  outcome.exited->leftovers = {"sleep (pid 12)"};
  outcome.left_out = {{"nested", "nested repository"}};
  outcome.applied.drift = "refs/drift/1";
  outcome.applied.drifted = {"log"};
  outcome.merged.written = {"a", "b\n", "c", "d", "e", "f", "g"};
  outcome.merged.deleted = {"old"};
  outcome.merged.commits = {"refs/sandbox/main", "refs/sandbox/drift/1"};
  outcome.merged.drift = {{"d41f7", "/state/store.git"}};
  outcome.merged.conflicts = {{"x", "x.sandbox-conflict", "changed on both sides"}};
  outcome.merged.refused = {{"../y", "outside of the work tree"}};
  outcome.merged.kept = {{"c0ffee", "/state/a b/store.git"}};
  outcome.not_merged = "disk full";
  std::string all;
  for (const auto& line : cli::describe_outcome(outcome)) all += line.text + "\n";
  for (const char* text : {"nested repository", "refs/sandbox/drift/1", "1 file: log",
                           "git --git-dir /state/store.git show d41f7:PATH", "sleep (pid 12)",
                           "7 files: a, b\\n, c, d, e and 2 more", "1 file: old",
                           "refs/sandbox/main", "x.sandbox-conflict", "../y",
                           "git --git-dir '/state/a b/store.git' show c0ffee:PATH", "disk full"}) {
    INFO(text);
    CHECK(all.find(text) != std::string::npos);
  }
  boost::json::object answer;
  cli::add_outcome(answer, outcome);
  CHECK(answer.at("PulledFiles").as_array().size() == 7);
  CHECK(answer.at("DeletedFiles").at(0) == "old");
  CHECK(answer.at("Conflicts").at(0).at("Saved") == "x.sandbox-conflict");
  CHECK(answer.at("Refused").at(0).at("Path") == "../y");
  CHECK(answer.at("LeftOut").at(0).at("Why") == "nested repository");
  CHECK(answer.at("Drift").at("Files").at(0) == "log");
  CHECK(answer.at("Leftovers").at(0) == "sleep (pid 12)");
  CHECK(answer.at("Kept").at(0).at("Commit") == "c0ffee");
  CHECK(answer.at("Complete") == false);
}

TEST_CASE("a hundred conflicts do not fill the screen") {
  cli::CycleOutcome outcome;
  for (int i = 0; i < 100; ++i)
    outcome.merged.conflicts.push_back({"x" + std::to_string(i), "", "why"});
  auto lines = cli::describe_outcome(outcome);
  CHECK(lines.size() == 21);
  CHECK(lines.back().text.find("80 more") != std::string::npos);
}

TEST_CASE("nothing is said when nothing happened") {
  cli::CycleOutcome outcome;
  outcome.exited.emplace();
  CHECK(cli::describe_outcome(outcome).empty());
}
