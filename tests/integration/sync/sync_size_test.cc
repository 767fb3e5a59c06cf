// Many files, both ways.
#include "tests/integration/sync/two_ends.h"

using namespace sync_test;

namespace {

constexpr int kFiles = 20'000;

void write_all(const fs::path& root, const std::string& text) {
  for (int i = 0; i < kFiles; ++i) {
    fs::path directory = root / std::to_string(i / 100);
    if (i % 100 == 0) fs::create_directories(directory);
    std::ofstream(directory / ("f" + std::to_string(i)), std::ios::trunc) << text << i << "\n";
  }
}

}  // namespace

TEST_CASE("20,000 files go to a box, and come back changed") {
  Scratch scratch;
  TwoEnds ends(scratch);
  write_all(ends.laptop(), "file ");
  CHECK(ends.push().left_out.empty());
  CHECK(read_tree(ends.box()) == read_tree(ends.laptop()));
  write_all(ends.box(), "changed file ");
  auto report = ends.pull();
  REQUIRE(report);
  CHECK(report->complete());
  CHECK(report->written.size() == kFiles);
  CHECK(read_tree(ends.laptop()) == read_tree(ends.box()));
}
