#include "agent/supervisor/ledger.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

using namespace agent::supervisor;
using protocol::wire::Errc;
using State = Ledger::State;
using Words = std::vector<std::string>;

namespace {

struct Fixture {
  test::TemporaryDirectory directory;
  std::filesystem::path file = directory / "jobs";
  Ledger open() {
    auto ledger = Ledger::open(file);
    REQUIRE(ledger);
    return std::move(*ledger);
  }
};

std::vector<Ledger::Entry> used(const Ledger& ledger) {
  std::vector<Ledger::Entry> all;
  for (const Ledger::Entry& entry : ledger.entries())
    if (entry.state != State::free) all.push_back(entry);
  return all;
}

}  // namespace

TEST_CASE("each step of a job is there for the next one who opens the ledger") {
  Fixture f;
  Ledger ledger = f.open();
  REQUIRE(ledger.starting("j1", "origin"));
  REQUIRE(ledger.starting("j2", ""));
  auto seen = used(f.open());
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].state == State::starting);
  CHECK(seen[0].job == "j1");
  CHECK(seen[0].origin == "origin");
  CHECK_FALSE(seen[0].boot.empty());

  ledger.running("j1", 4711, 123456789012);
  ledger.running("j2", 4712, 5);
  seen = used(f.open());
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].state == State::running);
  CHECK(seen[0].pid == 4711);
  CHECK(seen[0].started == 123456789012);
  CHECK(seen[1].origin.empty());
  CHECK(f.open().owed().empty());

  ledger.ended("j1");
  ledger.ended("j2");
  seen = used(f.open());
  REQUIRE(seen.size() == 1);
  CHECK(seen[0].state == State::owed);
  CHECK(seen[0].pid == 0);
  CHECK(f.open().owed() == Words{"origin"});

  ledger.taken(ledger.owing_jobs("origin"));
  CHECK(used(f.open()).empty());
}

TEST_CASE("a job that could not be started leaves nothing") {
  Fixture f;
  Ledger ledger = f.open();
  REQUIRE(ledger.starting("j1", "origin"));
  ledger.forget("j1");
  CHECK(used(f.open()).empty());
}

TEST_CASE("a job that ends while a result is taken stays owed") {
  Fixture f;
  Ledger ledger = f.open();
  for (const char* job : {"j1", "j2"}) REQUIRE(ledger.starting(job, "origin"));
  ledger.ended("j1");
  auto jobs = ledger.owing_jobs("origin");
  CHECK(jobs == Words{"j1"});
  ledger.ended("j2");
  ledger.taken(jobs);
  CHECK(ledger.is_owed("origin"));
  CHECK(f.open().owed() == Words{"origin"});
}

TEST_CASE("however many results could not be taken, each origin has one place") {
  Fixture f;
  Ledger ledger = f.open();
  for (int i = 0; i < 500; ++i) {
    std::string job = "j" + std::to_string(i);
    REQUIRE(ledger.starting(job, i % 2 ? "one" : "two"));
    ledger.ended(job);
  }
  CHECK(used(ledger).size() == 2);
  CHECK(std::filesystem::file_size(f.file) == Ledger::kPlaces * 256);
}

TEST_CASE("more jobs than there are places make more of them") {
  Fixture f;
  Ledger ledger = f.open();
  for (std::size_t i = 0; i < 3 * Ledger::kPlaces; ++i)
    REQUIRE(ledger.starting("j" + std::to_string(i), ""));
  CHECK(used(f.open()).size() == 3 * Ledger::kPlaces);
  for (std::size_t i = 0; i < 3 * Ledger::kPlaces; ++i) ledger.ended("j" + std::to_string(i));
  CHECK(used(f.open()).empty());
}

TEST_CASE("what is no record of a job is a free place, whatever stands there") {
  Fixture f;
  std::string noise;
  for (unsigned i = 0; i < 100'000; ++i) noise += static_cast<char>((i * 7919 + i * i * 31) >> 3);
  for (std::string line : {"r j1 boot 1 5 origin", "r j2 boot -7 5 origin", "r j3 boot x 5 origin",
                           "x j4 boot 77 5 origin", "r j5 boot 99999999999999999999 5 o"}) {
    line.resize(255, ' ');
    noise += line + "\n";
  }
  noise.insert(0, std::string(256 - noise.size() % 256, ' '));
  std::ofstream(f.file, std::ios::binary) << noise;
  Ledger ledger = f.open();
  CHECK(used(ledger).empty());
  REQUIRE(ledger.starting("j1", "origin"));
  CHECK(used(f.open()).size() == 1);
}

TEST_CASE("a ledger is private, no link is followed and nothing else is taken for one") {
  Fixture f;
  f.open();
  struct stat status;
  REQUIRE(::stat(f.file.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  std::filesystem::remove(f.file);
  std::filesystem::create_symlink(f.directory / "elsewhere", f.file);
  CHECK_FALSE(Ledger::open(f.file));
  CHECK_FALSE(std::filesystem::exists(f.directory / "elsewhere"));
  std::filesystem::remove(f.file);
  REQUIRE(::mkfifo(f.file.c_str(), 0600) == 0);
  auto refused = Ledger::open(f.file);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Errc::refused);
}
