// The list of boxes: its file, its names, its order.
#include "cli/boxes.h"

#include <sys/stat.h>

#include <fstream>
#include <sstream>

#include "cli/error.h"
#include "protocol/os/flock.h"
#include "protocol/os/paths.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

namespace {

namespace fs = std::filesystem;
namespace os = protocol::os;
using protocol::wire::Errc;

struct Place {
  test::TemporaryDirectory temporary;
  cli::Paths paths;
  Place() { paths.config = temporary / "config"; }
  void write(const std::string& text) {
    fs::create_directories(paths.config);
    std::ofstream(paths.boxes()) << text;
  }
  std::string text() {
    std::stringstream all;
    all << std::ifstream(paths.boxes()).rdbuf();
    return all.str();
  }
};

cli::Box box(const std::string& name, const std::string& address, const std::string& key = "") {
  cli::Box made;
  made.name = name;
  made.address = *cli::parse_address(address);
  made.host_key = key;
  return made;
}

std::string next_step(const std::function<void()>& what) {
  try {
    what();
  } catch (const cli::UserError& error) {
    return error.next;
  }
  return "it did not throw";
}

}  // namespace

TEST_CASE("a host without a port gets the default one") {
  CHECK(cli::parse_host("rig")->text() == "rig:43215");
  CHECK(cli::parse_host("rig:22")->text() == "rig:22");
  CHECK(cli::parse_host("[::1]")->text() == "[::1]:43215");
  CHECK(cli::parse_host("[::1]:22")->text() == "[::1]:22");
  for (const char* text : {"", "rig:", "::1", "-oX", "u@rig", "rig:x"}) {
    INFO(text);
    CHECK_FALSE(cli::parse_host(text));
  }
}

TEST_CASE("names sort as people count") {
  CHECK(cli::natural_less("rig2", "rig10"));
  CHECK_FALSE(cli::natural_less("rig10", "rig2"));
  CHECK(cli::natural_less("a", "b"));
  CHECK(cli::natural_less("rig", "rig1"));
  CHECK(cli::natural_less("rig9a", "rig09b"));
  CHECK(cli::natural_less("rig01", "rig1"));
  CHECK_FALSE(cli::natural_less("rig1", "rig01"));
  CHECK_FALSE(cli::natural_less("rig1", "rig1"));
  CHECK(cli::natural_less("b99999999999999999999998", "b99999999999999999999999"));
}

TEST_CASE("a box has a plain name that is not the built-in one's") {
  for (const char* name : {"rig", "rig-1", "a.b_c", "7"}) CHECK_NOTHROW(cli::check_box_name(name));
  for (const char* name :
       {"", "local", "-rig", ".rig", "a b", "rig:1", "a/b", "r\xc3\xafg", "\x1b"}) {
    INFO(name);
    CHECK_THROWS_AS(cli::check_box_name(name), cli::UserError);
  }
  CHECK_THROWS_AS(cli::check_box_name(std::string(65, 'a')), cli::UserError);
}

TEST_CASE("what is written is read again, in natural order, with what a later version knows") {
  cli::Box ssh;
  ssh.name = "far";
  ssh.via_ssh = "jump-host";
  ssh.agent = "/opt/sandbox-agent";
  std::string text =
      cli::encode_boxes({box("rig10", "h:1", "ssh-ed25519 A"), box("rig2", "h:2"), ssh});
  text.insert(text.find("\"address\":\"h:2\""), "\"color\":\"red\",");
  auto boxes = cli::decode_boxes(text);
  REQUIRE(boxes);
  REQUIRE(boxes->size() == 3);
  CHECK(boxes->at(0).name == "far");
  CHECK(boxes->at(0).via_ssh == "jump-host");
  CHECK(boxes->at(0).agent == "/opt/sandbox-agent");
  CHECK(boxes->at(0).place() == "ssh jump-host");
  CHECK(boxes->at(1).name == "rig2");
  CHECK(boxes->at(1).host_key.empty());
  CHECK(boxes->at(2).host_key == "ssh-ed25519 A");
  CHECK(boxes->at(2).place() == "h:1");
  CHECK(cli::encode_boxes(*boxes).find("\"color\":\"red\"") != std::string::npos);
}

TEST_CASE("what is no list of boxes is told apart from one of a newer version") {
  CHECK(cli::decode_boxes("{\"version\":2,\"boxes\":{}}").error().code == Errc::unsupported);
  for (const char* text :
       {"", "[]", "{}", "{\"version\":1}",
        "{\"version\":1,\"boxes\":{\"local\":{\"address\":\"h:1\"}}}",
        "{\"version\":1,\"boxes\":{\"\":{\"address\":\"h:1\"}}}",
        "{\"version\":1,\"boxes\":{\"rig\":{}}}",
        "{\"version\":1,\"boxes\":{\"rig\":{\"address\":7}}}",
        "{\"version\":1,\"boxes\":{\"rig\":{\"viaSsh\":\"-oProxyCommand=x\"}}}"}) {
    INFO(text);
    auto boxes = cli::decode_boxes(text);
    REQUIRE_FALSE(boxes);
    CHECK(boxes.error().code == Errc::bad_input);
  }
}

TEST_CASE("a list that cannot be read is never written over") {
  for (const char* text : {"{", "{\"version\":2,\"boxes\":{}}"}) {
    Place place;
    place.write(text);
    auto add = [](std::vector<cli::Box>& all) { all.push_back(box("rig", "h:1")); };
    CHECK_THROWS_AS(cli::change_boxes(place.paths, add), cli::UserError);
    CHECK(place.text() == text);
  }
}

TEST_CASE("a change that fails half-way leaves the old list") {
  Place place;
  cli::change_boxes(place.paths, [](auto& all) { all.push_back(box("rig", "h:1")); });
  std::string before = place.text();
  for (const char* call : {"open", "write", "fsync", "rename"}) {
    os::set_write_fault([call](std::string_view now) { return now == call ? ENOSPC : 0; });
    CHECK_THROWS_AS(
        cli::change_boxes(place.paths, [](auto& all) { all.push_back(box("two", "h:2")); }),
        cli::UserError);
    os::set_write_fault(nullptr);
    CHECK(place.text() == before);
  }
  CHECK_THROWS_AS(cli::change_boxes(place.paths,
                                    [](auto& all) {
                                      all.clear();
                                      throw cli::UserError("box", "no");
                                    }),
                  cli::UserError);
  CHECK(place.text() == before);
}

TEST_CASE("the list is this user's alone, and its lock file stays") {
  Place place;
  cli::change_boxes(place.paths, [](auto& all) { all.push_back(box("rig", "h:1")); });
  struct stat status {};
  REQUIRE(::stat(place.paths.boxes().c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  fs::path lock = place.paths.boxes().string() + ".lock";
  REQUIRE(::stat(lock.c_str(), &status) == 0);
  auto inode = status.st_ino;
  cli::change_boxes(place.paths, [](auto& all) { all.clear(); });
  REQUIRE(::stat(lock.c_str(), &status) == 0);
  CHECK(status.st_ino == inode);
  CHECK(os::FileLock::try_lock(lock, os::FileLock::Kind::exclusive));
}

TEST_CASE("a box that is not there is answered with those that are") {
  Place place;
  cli::change_boxes(place.paths, [](auto& all) {
    all.push_back(box("rig10", "h:1"));
    all.push_back(box("rig2", "h:2"));
  });
  std::string next = next_step([&] { cli::find_box(place.paths, "rgi2"); });
  CHECK(next.find("local, rig2, rig10") != std::string::npos);
  CHECK(next.find("boxes add") != std::string::npos);
}

TEST_CASE("an address is checked against the key that is pinned for it under another name") {
  Place place;
  cli::change_boxes(place.paths,
                    [](auto& all) { all.push_back(box("rig", "h:1", "ssh-ed25519 A")); });
  CHECK(cli::find_box(place.paths, "h:1").host_key == "ssh-ed25519 A");
  CHECK(cli::find_box(place.paths, "h:2").host_key.empty());
}

TEST_CASE("a key is not pinned for a box that has moved meanwhile") {
  Place place;
  cli::change_boxes(place.paths, [](auto& all) { all.push_back(box("rig", "h:2")); });
  CHECK(cli::pin_host_key(place.paths, box("rig", "h:1"), "ssh-ed25519 A") == "ssh-ed25519 A");
  CHECK(cli::find_box(place.paths, "rig").host_key.empty());
}
