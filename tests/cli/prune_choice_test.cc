#include "cli/prune_choice.h"

#include "cli/error.h"
#include "tests/support/catch.h"

using cli::Arguments;
using cli::PruneCandidate;
using cli::PruneChoice;

namespace {

const std::string kNow = "2026-06-30T12:00:00Z";

// Used 1, 2, 3, 4 and 5 days ago; the second is in use, the third and the fifth are orphaned.
const std::vector<PruneCandidate> kFive = {
    {"2026-06-28T12:00:00Z", false, true},  {"2026-06-25T12:00:00Z", true, false},
    {"2026-06-29T12:00:00Z", false, false}, {"2026-06-26T12:00:00Z", false, false},
    {"2026-06-27T12:00:00Z", true, false},
};
using Days = std::vector<int>;

// Which of them go, named by how many days ago they were used.
Days days(const PruneChoice& choice) {
  Days chosen;
  for (std::size_t index : cli::choose_to_prune(kFive, choice, kNow)) {
    chosen.push_back(30 - std::stoi(kFive[index].used_at.substr(8, 2)));
  }
  return chosen;
}

std::string complaint(const std::string& option, const std::string& value) {
  Arguments arguments;
  arguments.options[option] = {value};
  try {
    cli::prune_choice(arguments);
  } catch (const cli::UserError& error) {
    CHECK(error.status == cli::kMisuse);
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("without a choice the orphaned ones go, and one in use never does") {
  CHECK(days({}) == Days{3, 5});
  CHECK(days({.all = true}) == Days{1, 3, 4, 5});
}

TEST_CASE("of the N to keep, those in use count, too") {
  CHECK(days({.keep = 0}) == Days{1, 3, 4, 5});
  CHECK(days({.keep = 1}) == Days{3, 4, 5});
  CHECK(days({.keep = 2}) == Days{3, 4, 5});
  CHECK(days({.keep = 3}) == Days{4, 5});
  CHECK(days({.keep = 9}).empty());
}

TEST_CASE("age counts from the last use") {
  using std::chrono::hours;
  CHECK(days({.older_than = hours(24 * 3)}) == Days{4, 5});
  CHECK(days({.older_than = hours(24 * 3 - 1)}) == Days{3, 4, 5});
  CHECK(days({.older_than = hours(0)}) == Days{1, 3, 4, 5});
}

TEST_CASE("several options narrow each other") {
  using std::chrono::hours;
  CHECK(days({.keep = 4, .older_than = hours(24)}) == Days{5});
  CHECK(days({.keep = 1, .older_than = hours(24 * 4)}) == Days{5});
  CHECK(days({.all = true, .orphaned = true}) == Days{3, 5});
  CHECK(days({.keep = 3, .orphaned = true}) == Days{5});
  CHECK(days({.orphaned = true}) == Days{3, 5});
  CHECK(days({.older_than = hours(24 * 4), .orphaned = true}) == Days{5});
}

TEST_CASE("one whose last use is not known is the oldest") {
  std::vector<PruneCandidate> two = {{"", false, false}, {"2026-06-25T12:00:00Z", false, false}};
  CHECK(cli::choose_to_prune(two, {.keep = 1}, kNow) == std::vector<std::size_t>{0});
  CHECK(cli::choose_to_prune(two, {.older_than = std::chrono::hours(24 * 30)}, kNow) ==
        std::vector<std::size_t>{0});
}

TEST_CASE("what is no number of sandboxes and no age is misuse") {
  for (const char* text : {"", "-1", "x", "1x", "99999999999999999999999"}) {
    INFO(text);
    CHECK(complaint("keep", text).find("--keep") == 0);
  }
  for (const char* text : {"", "-1d", "soon", "30x"}) {
    INFO(text);
    CHECK(complaint("older-than", text).find("--older-than") == 0);
  }
  Arguments fine;
  fine.options["keep"] = {"2"};
  fine.options["older-than"] = {"2w"};
  CHECK(cli::prune_choice(fine).keep == 2);
  CHECK(cli::prune_choice(fine).older_than == std::chrono::hours(24 * 14));
}
