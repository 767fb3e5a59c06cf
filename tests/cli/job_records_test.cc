#include "cli/job_records.h"

#include <fstream>

#include "cli/error.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

namespace {

namespace fs = std::filesystem;

struct Home {
  test::TemporaryDirectory directory;
  cli::Paths paths{directory / "state", directory / "config"};
};

std::string id_of(std::size_t number) {
  std::string digits = std::to_string(number);
  return std::string(32 - digits.size(), '0') + digits;
}

}  // namespace

TEST_CASE("a remembered job is found by how its id begins") {
  Home home;
  cli::JobRecord job{std::string(32, 'a'), "rig", std::string(32, '1'), "/p\xff", "make test"};
  cli::remember_job(home.paths, job);
  cli::remember_job(home.paths, {std::string(32, 'b'), "local", "", "", ""});
  auto found = cli::remembered_jobs(home.paths, "aaaa").jobs;
  REQUIRE(found.size() == 1);
  CHECK(found[0].id == job.id);
  CHECK(found[0].box == "rig");
  CHECK(found[0].sandbox == job.sandbox);
  CHECK(found[0].project == "/p\xff");
  CHECK(found[0].command == "make test");
  CHECK(cli::remembered_jobs(home.paths, "").jobs.size() == 2);
  CHECK(cli::remembered_jobs(home.paths, "cccc").jobs.empty());
}

TEST_CASE("a damaged record is kept beside and told of once, the others are found") {
  Home home;
  CHECK(cli::remembered_jobs(home.paths, "").jobs.empty());  // not even a directory
  cli::remember_job(home.paths, {id_of(1), "rig", "", "", ""});
  std::ofstream(home.paths.jobs() / "README") << "{\"box\":\"rig\"}";
  for (const char* damage : {"{\"box\"", "[]", "{}", "{\"box\":7}", ""}) {
    INFO(damage);
    fs::path file = home.paths.jobs() / id_of(2);
    std::ofstream(file) << damage;
    CHECK(cli::remembered_jobs(home.paths, id_of(1)).damaged.empty());
    auto found = cli::remembered_jobs(home.paths, "");
    CHECK(found.jobs.size() == 1);
    REQUIRE(found.damaged.size() == 1);
    fs::path aside = file.string() + ".damaged-1";
    CHECK(found.damaged[0].find(aside.string()) != std::string::npos);
    CHECK(found.damaged[0].find("attach --box BOX " + id_of(2)) != std::string::npos);
    std::ifstream kept(aside);
    CHECK(std::string(std::istreambuf_iterator<char>(kept), {}) == damage);
    CHECK(cli::remembered_jobs(home.paths, "").damaged.empty());
    fs::remove(aside);
  }
}

TEST_CASE("the oldest records go when there are too many") {
  Home home;
  cli::remember_job(home.paths, {id_of(0), "rig", "", "", ""});
  fs::last_write_time(home.paths.jobs() / id_of(0),
                      fs::file_time_type::clock::now() - std::chrono::hours(1));
  for (std::size_t i = 1; i < cli::kMostKept; ++i) {
    std::ofstream(home.paths.jobs() / id_of(i)) << "{\"box\":\"rig\"}";
  }
  CHECK(cli::remembered_jobs(home.paths, "").jobs.size() == cli::kMostKept);
  cli::remember_job(home.paths, {id_of(cli::kMostKept), "rig", "", "", ""});
  CHECK(cli::remembered_jobs(home.paths, "").jobs.size() == cli::kMostKept);
  CHECK_FALSE(fs::exists(home.paths.jobs() / id_of(0)));
}

TEST_CASE("an id is 4 to 32 hex digits") {
  CHECK(cli::is_job_id("0a9f"));
  CHECK(cli::is_job_id(std::string(32, 'f')));
  for (const auto* wrong : {"", "abc", "ABCD", "../x", "abcg", "abcd/"}) {
    INFO(wrong);
    CHECK_FALSE(cli::is_job_id(wrong));
  }
  CHECK_FALSE(cli::is_job_id(std::string(33, 'f')));
}

TEST_CASE("nothing but a whole id becomes a file's name") {
  Home home;
  for (const std::string& wrong :
       {std::string("../x"), (home.directory / "x").string(), std::string(31, 'a'),
        std::string(30, 'a') + "/b", std::string(32, 'A'), std::string()}) {
    INFO(wrong);
    CHECK_FALSE(cli::is_whole_job_id(wrong));
    CHECK_THROWS_AS(cli::remember_job(home.paths, {wrong, "rig", "", "", ""}), cli::UserError);
  }
  CHECK_FALSE(fs::exists(home.directory / "x"));
  CHECK_FALSE(fs::exists(home.paths.state / "x"));
  CHECK(cli::remembered_jobs(home.paths, "").jobs.empty());
}
