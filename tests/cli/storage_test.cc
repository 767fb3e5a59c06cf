#include "cli/storage.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "cli/error.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

namespace {

namespace fs = std::filesystem;

cli::Entry entry(const std::string& id, const std::string& branch) {
  cli::Entry made;
  made.id = id;
  made.key.box = "local";
  made.key.machine = "m";
  made.key.project = "/p";
  made.key.device = 2049;
  made.key.inode = ~std::uint64_t{0};
  made.key.branch = branch;
  made.key.config = "/p/.sandbox.yml";
  made.state = cli::EntryState::ready;
  made.agent = "agent";
  made.created_at = "2026-01-31T23:59:59Z";
  return made;
}

std::string content(const fs::path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("entries survive writing and reading, whatever their bytes") {
  auto first = entry("a", "main");
  auto second = entry("b", "br\xff\n\"anch");
  second.key.project = "/p\xfe";
  second.state = cli::EntryState::failed;
  second.failure = "setup `x` failed";
  second.agent = "\xff";
  second.ending = {"c", "d"};
  auto read = cli::decode_storage(cli::encode_storage({first, second}));
  REQUIRE(read);
  REQUIRE(read->size() == 2);
  CHECK((*read)[0].key == first.key);
  CHECK((*read)[0].created_at == first.created_at);
  CHECK((*read)[1].key == second.key);
  CHECK((*read)[1].state == cli::EntryState::failed);
  CHECK((*read)[1].failure == second.failure);
  CHECK((*read)[1].agent == second.agent);
  CHECK((*read)[1].ending == second.ending);
}

TEST_CASE("keys differ in every part, and so do their lock files") {
  auto a = entry("a", "main").key;
  for (auto change : {+[](cli::Key& k) { k.box = "x"; }, +[](cli::Key& k) { k.machine = "x"; },
                      +[](cli::Key& k) { k.project = "/x"; }, +[](cli::Key& k) { k.device = 1; },
                      +[](cli::Key& k) { k.inode = 1; }, +[](cli::Key& k) { k.branch = "x"; },
                      +[](cli::Key& k) { k.config = "x"; }}) {
    auto b = a;
    change(b);
    CHECK_FALSE(a == b);
    CHECK(a.file_name() != b.file_name());
  }
}

TEST_CASE("a file of every damaged kind is refused, a newer one is told apart") {
  for (const char* text :
       {"", "{", "[]", "{}", "{\"version\":1}", "{\"version\":0,\"sandboxes\":[]}",
        "{\"version\":1,\"sandboxes\":[1]}", "{\"version\":1,\"sandboxes\":[{}]}",
        "{\"version\":1,\"sandboxes\":[{\"id\":\"a\",\"box\":\"b\",\"state\":\"odd\"}]}",
        "{\"version\":1,\"sandboxes\":[{\"id\":7,\"box\":\"b\",\"state\":\"ready\"}]}"}) {
    INFO(text);
    auto read = cli::decode_storage(text);
    REQUIRE_FALSE(read);
    CHECK(read.error().code == protocol::wire::Errc::bad_input);
  }
  auto newer = cli::decode_storage("{\"version\":2,\"sandboxes\":{}}");
  REQUIRE_FALSE(newer);
  CHECK(newer.error().code == protocol::wire::Errc::unsupported);
}

TEST_CASE("the storage is written for its owner alone") {
  test::TemporaryDirectory directory;
  cli::Storage storage(directory / "state/sandboxes.json");
  {
    auto locked = storage.try_lock();
    REQUIRE(locked);
    CHECK(locked->entries().empty());
    locked->entries().push_back(entry("a", "main"));
    locked->save();
  }
  struct stat status {};
  REQUIRE(::stat((directory / "state/sandboxes.json").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  REQUIRE(::stat((directory / "state").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0700);
  auto again = storage.try_lock();
  REQUIRE(again);
  CHECK(again->find_id("a") != nullptr);
  CHECK(again->find(entry("a", "main").key) != nullptr);
  CHECK(again->find(entry("a", "other").key) == nullptr);
}

TEST_CASE("one at a time has the storage") {
  test::TemporaryDirectory directory;
  cli::Storage storage(directory / "state/sandboxes.json");
  auto first = storage.try_lock();
  REQUIRE(first);
  CHECK(storage.try_lock() == nullptr);
  first.reset();
  CHECK(storage.try_lock() != nullptr);
}

TEST_CASE("a damaged file is kept beside a fresh one, each time under its own name") {
  test::TemporaryDirectory directory;
  fs::path file = directory / "state/sandboxes.json";
  fs::create_directories(file.parent_path());
  fs::permissions(file.parent_path(), fs::perms::owner_all);
  cli::Storage storage(file);
  for (int n = 1; n <= 2; ++n) {
    std::string text = "not json " + std::to_string(n);
    std::ofstream(file) << text;
    auto locked = storage.try_lock();
    REQUIRE(locked);
    REQUIRE(locked->damaged());
    CHECK(*locked->damaged() == file.string() + ".damaged-" + std::to_string(n));
    CHECK(content(*locked->damaged()) == text);
    CHECK(locked->entries().empty());
    CHECK(cli::decode_storage(content(file)).has_value());
  }
}

TEST_CASE("a newer file is left as it is") {
  test::TemporaryDirectory directory;
  fs::path file = directory / "state/sandboxes.json";
  fs::create_directories(file.parent_path());
  fs::permissions(file.parent_path(), fs::perms::owner_all);
  std::ofstream(file) << "{\"version\":7}";
  CHECK_THROWS_AS(cli::Storage(file).try_lock(), cli::UserError);
  CHECK(content(file) == "{\"version\":7}");
}

namespace {

// Runs `work` where no file can grow, and returns what it complained of.
std::string on_full_disk(const std::function<void()>& work) {
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit all{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &all) == 0);
  rlimit none{8, all.rlim_max};  // bytes: no file of ours is as short
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &none) == 0);
  std::string said;
  try {
    work();
  } catch (const cli::UserError& error) {
    said = std::string(error.what()) + " " + error.next;
  }
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &all) == 0);
  return said;
}

}  // namespace

TEST_CASE("a damaged file that was moved on a full disk is named, since no other word will be") {
  test::TemporaryDirectory directory;
  fs::path file = directory / "state/sandboxes.json";
  fs::create_directories(file.parent_path());
  fs::permissions(file.parent_path(), fs::perms::owner_all);
  std::ofstream(file) << "not json at all";
  cli::Storage storage(file);
  std::string said = on_full_disk([&] { storage.try_lock(); });
  CHECK(said.find(file.string() + ".damaged-1") != std::string::npos);
  CHECK(said.find("Free some space") != std::string::npos);
  CHECK(content(file.string() + ".damaged-1") == "not json at all");
}

TEST_CASE("on a full disk saving says so and loses nothing") {
  test::TemporaryDirectory directory;
  fs::path file = directory / "state/sandboxes.json";
  cli::Storage storage(file);
  {
    auto locked = storage.try_lock();
    locked->entries().push_back(entry("a", "main"));
    locked->save();
  }
  std::string before = content(file);
  auto locked = storage.try_lock();
  locked->entries().clear();
  std::string said = on_full_disk([&] { locked->save(); });
  CHECK(said.find("sandboxes.json") != std::string::npos);
  CHECK(said.find("Free some space") != std::string::npos);
  CHECK(content(file) == before);
  std::size_t files = 0;
  for (const auto& each : fs::directory_iterator(file.parent_path())) {
    INFO(each.path());
    ++files;
  }
  CHECK(files == 2);  // the storage and its lock
}

TEST_CASE("what stands in the storage's place is named once, with what to do about it") {
  test::TemporaryDirectory directory;
  fs::path file = directory / "state/sandboxes.json";
  fs::create_directories(file);
  fs::permissions(file.parent_path(), fs::perms::owner_all);
  try {
    cli::Storage(file).try_lock();
    FAIL("it was taken for a storage");
  } catch (const cli::UserError& error) {
    CHECK(error.what() == "cannot use the storage " + file.string() + ": not a regular file");
    CHECK(error.next.find("Move it away") == 0);
  }
}
