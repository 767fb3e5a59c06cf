// Small records that were damaged on either end: kept beside under another name, and told of.
#include "tests/integration/sync/two_ends.h"

using namespace sync_test;

namespace {

constexpr const char* kDamage = "not what was written here\n";

bool names(const std::vector<wire::LeftOut>& all, const std::string& end) {
  for (const auto& one : all) {
    if (one.path.ends_with(end)) return true;
  }
  return false;
}

}  // namespace

TEST_CASE(
    "a damaged id of a work tree is an error that names it, and no other id takes its place") {
  Scratch scratch;
  write_file(scratch / "laptop/f", "f\n");
  auto open = [&] {
    sync::OriginOptions options;
    options.work_tree = scratch / "laptop";
    options.store = scratch / "laptop-store";
    return sync::Origin::open(options);
  };
  const std::string id = must(open())->id();
  const fs::path file = scratch / "laptop-store/id";
  for (const std::string& damage : {std::string(kDamage), std::string(), id.substr(1)}) {
    INFO(damage);
    write_file(file, damage);
    auto failed = open();
    REQUIRE_FALSE(failed);
    CHECK(failed.error().code == wire::Errc::bad_input);
    CHECK(failed.error().what.starts_with(file.string()));
    CHECK(read_file(file) == damage);
  }
  write_file(file, id + "\n");
  CHECK(must(open())->id() == id);
  fs::remove(file);
  CHECK(must(open())->id() != id);
}

TEST_CASE("a damaged record of what could not be written here is kept, and told of once") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "f", "f\n");
  ends.push();
  const fs::path file = scratch / "laptop-store/unwritten" / TwoEnds::kSandbox;
  SECTION("by a pull") {
    write_file(file, kDamage);
    auto again = must(ends.origin().merge_unwritten(TwoEnds::kSandbox));
    CHECK_FALSE(again.complete());
    CHECK(names(again.refused, TwoEnds::kSandbox + std::string(".damaged-1")));
  }
  SECTION("by the next result") {
    write_file(file, kDamage);
    write_file(ends.box() / "new", "new\n");
    auto report = ends.pull();
    REQUIRE(report);
    CHECK(report->written == std::vector<std::string>{"new"});
    CHECK(names(report->refused, TwoEnds::kSandbox + std::string(".damaged-1")));
  }
  CHECK(read_file(file.string() + ".damaged-1") == kDamage);
  CHECK_FALSE(fs::exists(file));
  CHECK(must(ends.origin().merge_unwritten(TwoEnds::kSandbox)).complete());
}

TEST_CASE("a damaged record of the workspace is kept on the box, and the next sync tells of it") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_file(ends.laptop() / "f", "f\n");
  ends.push();
  const fs::path file = ends.box_store() / "workspace-state";
  const std::string whole = read_file(file);
  for (const std::string& damage : {std::string(kDamage), whole.substr(0, whole.size() / 2)}) {
    INFO(damage);
    write_file(file, damage);
    ends.restart();
    auto applied = ends.push();
    CHECK(names(applied.left_out, "workspace-state.damaged-1"));
    CHECK(read_file(file.string() + ".damaged-1") == damage);
    CHECK(read_file(ends.box() / "f") == "f\n");
    ends.restart();
    CHECK(ends.push().left_out.empty());
    fs::remove(file.string() + ".damaged-1");
  }
}
