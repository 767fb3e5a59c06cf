#include "cli/boxes_table.h"

#include <boost/json.hpp>

#include "tests/support/catch.h"

namespace {

using cli::BoxRow;
using cli::BoxStatus;
using Lines = std::vector<std::string>;

std::string plain(std::string_view text, const char*) { return std::string(text); }
std::string colored(std::string_view text, const char* ansi) {
  return "<" + std::string(ansi) + ">" + std::string(text) + "</>";
}

BoxRow row(const std::string& name, BoxStatus status) {
  BoxRow made;
  made.name = name;
  made.address = "h:1";
  made.version = status == BoxStatus::unreachable ? "" : "0.1.0";
  made.status = status;
  if (status != BoxStatus::unreachable) made.sandboxes = 2;
  return made;
}

}  // namespace

TEST_CASE("versions compare number by number") {
  CHECK(cli::compare_versions("0.1.0", "0.1.0") == BoxStatus::current);
  CHECK(cli::compare_versions("0.9.0", "0.10.0") == BoxStatus::needs_update);
  CHECK(cli::compare_versions("1.0", "0.10.0") == BoxStatus::newer);
  CHECK(cli::compare_versions("0.1", "0.1.0") == BoxStatus::current);
  CHECK(cli::compare_versions("0.1.1", "0.1") == BoxStatus::newer);
  CHECK(cli::compare_versions("", "0.1.0") == BoxStatus::needs_update);
  CHECK(cli::compare_versions("99999999999999999999", "1") == BoxStatus::newer);
}

TEST_CASE("free boxes have the base columns and no others") {
  auto lines = cli::box_table(
      {row("rig2", BoxStatus::current), row("rig10", BoxStatus::unreachable)}, plain);
  CHECK(lines == Lines{"name    address   version   status        sandboxes",
                       "===================================================",
                       "rig2    h:1       0.1.0     current       2",
                       "rig10   h:1       -         unreachable   -"});
}

TEST_CASE("each of the two extra columns is there when some box has a value") {
  BoxRow locked = row("b", BoxStatus::current);
  locked.locked_by = "alice";
  BoxRow busy = row("c", BoxStatus::current);
  busy.users = {{"bob", "exec", "make"}};
  BoxRow free = row("a", BoxStatus::current);
  auto only_locked = cli::box_table({free, locked}, plain);
  CHECK(only_locked[0].find("locked by") != std::string::npos);
  CHECK(only_locked[0].find("busy") == std::string::npos);
  CHECK(only_locked[2] == "a      h:1       0.1.0     current   2");
  CHECK(only_locked[3] == "b      h:1       0.1.0     current   2           alice");
  auto only_busy = cli::box_table({free, busy}, plain);
  CHECK(only_busy[0].find("locked by") == std::string::npos);
  CHECK(only_busy[3].find("bob (exec)") != std::string::npos);
  auto both = cli::box_table({locked, busy}, plain);
  CHECK(both[0].find("locked by   busy") != std::string::npos);
  CHECK(both[3].find("bob (exec)") == both[0].find("busy"));
}

TEST_CASE("a user without a verb stands alone, and many are counted") {
  BoxRow busy = row("c", BoxStatus::current);
  busy.users = {{"bob", "", ""}};
  CHECK(cli::box_table({busy}, plain)[2].find("bob") != std::string::npos);
  CHECK(cli::box_table({busy}, plain)[2].find('(') == std::string::npos);
  busy.users = {
      {"a", "exec", ""}, {"b", "exec", ""}, {"c", "exec", ""}, {"d", "exec", ""}, {"e", "", ""}};
  CHECK(cli::box_table({busy}, plain)[2].find("a (exec), b (exec), c (exec) and 2 more") !=
        std::string::npos);
}

TEST_CASE("a CI job is shown readably in the table, and as it is in JSON") {
  BoxRow ci = row("c", BoxStatus::current);
  ci.locked_by = "bot";
  ci.lock_scope = "ci:generic:h1";
  ci.users = {{"bot", "exec", "make", "ci:generic:h2"}};
  std::string line = cli::box_table({ci}, plain)[2];
  CHECK(line.find("bot for ci on h1") != std::string::npos);
  CHECK(line.find("bot for ci on h2 (exec)") != std::string::npos);
  auto json = cli::box_json(ci);
  CHECK(json.at("LockedBy") == "bot");
  CHECK(json.at("LockScope") == "ci:generic:h1");
  CHECK(json.at("Busy").at(0).at("User") == "bot");
  CHECK(json.at("Busy").at(0).at("Scope") == "ci:generic:h2");
}

TEST_CASE("every status and both holders have their colour, and none takes up room") {
  BoxRow current = row("a", BoxStatus::current);
  current.locked_by = "alice";
  current.users = {{"bob", "exec", ""}};
  auto lines = cli::box_table({current, row("b", BoxStatus::needs_update),
                               row("c", BoxStatus::newer), row("d", BoxStatus::unreachable)},
                              colored);
  CHECK(lines[2].find("<32>current</>        2 ") != std::string::npos);
  CHECK(lines[2].find("<35>alice</>") != std::string::npos);
  CHECK(lines[2].find("<33>bob (exec)</>") != std::string::npos);
  CHECK(lines[3].find("<33>needs update</>") != std::string::npos);
  CHECK(lines[4].find("<36>newer</>") != std::string::npos);
  CHECK(lines[5].find("<31>unreachable</>") != std::string::npos);
}

TEST_CASE("what a box calls itself cannot move the cursor") {
  BoxRow evil = row("a", BoxStatus::current);
  evil.locked_by = "x\x1b[2J";
  evil.users = {{"y\n", "z\r", ""}};
  auto lines = cli::box_table({evil}, plain);
  REQUIRE(lines.size() == 3);
  CHECK(lines[2].find('\x1b') == std::string::npos);
  CHECK(lines[2].find('\n') == std::string::npos);
  CHECK(lines[2].find('\r') == std::string::npos);
}

TEST_CASE("the footer names this version and counts what needs attention") {
  CHECK(cli::box_footer({row("a", BoxStatus::current)}, "0.2.0", plain) ==
        Lines{"CLI version: 0.2.0"});
  CHECK(cli::box_footer({row("a", BoxStatus::needs_update), row("b", BoxStatus::newer),
                         row("c", BoxStatus::newer), row("d", BoxStatus::unreachable)},
                        "0.2.0", colored) ==
        Lines{"CLI version: 0.2.0", "<33>1 box needs an update</>",
              "<36>2 boxes are newer than this CLI</>", "<31>1 box is unreachable</>"});
}

TEST_CASE("a row in JSON has every key, whatever is known") {
  auto lost = cli::box_json(row("a", BoxStatus::unreachable));
  CHECK(lost.at("Sandboxes").is_null());
  CHECK(lost.at("Status") == "unreachable");
  BoxRow busy = row("b", BoxStatus::current);
  busy.locked_by = "alice";
  busy.since = "2026-01-01T00:00:00Z";
  busy.users = {{"bob", "exec", "make"}};
  auto known = cli::box_json(busy);
  CHECK(known.size() == lost.size());
  CHECK(known.at("LockedBy") == "alice");
  CHECK(known.at("LockedSince") == "2026-01-01T00:00:00Z");
  CHECK(known.at("Busy").at(0).at("Verb") == "exec");
}
