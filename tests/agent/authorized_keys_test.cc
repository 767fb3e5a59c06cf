#include "agent/authorized_keys.h"

#include <sys/stat.h>

#include "protocol/os/paths.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

using agent::authorize_key;
using agent::AuthorizedKeys;
using agent::parse_key_line;
using protocol::ssh::PrivateKey;
using protocol::wire::Errc;

namespace {

std::string new_key() { return PrivateKey::generate_ed25519()->public_key().text(); }

std::optional<std::string> user_of(AuthorizedKeys& keys, const std::string& text) {
  auto key = protocol::ssh::PublicKey::parse(text);
  REQUIRE(key);
  return keys.user_of(*key);
}

}  // namespace

TEST_CASE("a key's user is its option, else its comment") {
  auto line = parse_key_line("ssh-ed25519 AAAA ann@laptop and more");
  REQUIRE(line);
  CHECK((*line)->user == "ann@laptop and more");
  CHECK((*line)->key == "ssh-ed25519 AAAA");
  line = parse_key_line("  user=\"Ann B\" ssh-ed25519 AAAA ignored \r");
  REQUIRE(line);
  CHECK((*line)->user == "Ann B");
}

TEST_CASE("blank lines and comments are no keys, and no errors") {
  for (std::string text : {"", "   ", "# ssh-ed25519 AAAA x", "\t\r"}) {
    auto line = parse_key_line(text);
    REQUIRE(line);
    CHECK(!*line);
  }
}

TEST_CASE("a line that says more than we honour lets nobody in") {
  for (std::string text :
       {"command=\"false\" ssh-ed25519 AAAA x", "restrict ssh-ed25519 AAAA x",
        "user=\"a\",command=\"b\" ssh-ed25519 AAAA x", "user=\"a\" no-pty ssh-ed25519 AAAA x",
        "user=\"\" ssh-ed25519 AAAA x", "user= ssh-ed25519 AAAA x", "user=\"a ssh-ed25519 AAAA x",
        "ssh-ed25519", "ssh-ed25519 AAAA", "nonsense"}) {
    INFO(text);
    auto line = parse_key_line(text);
    REQUIRE(!line);
    CHECK(line.error().code == Errc::bad_input);
  }
}

TEST_CASE("bad lines are passed over, and the file is read again when it has changed") {
  test::TemporaryDirectory directory;
  auto file = directory / "authorized_keys";
  AuthorizedKeys keys(file);
  std::string ann = new_key(), bob = new_key();
  CHECK(!user_of(keys, ann));
  REQUIRE(protocol::os::write_file(file, "garbage\n" + ann + " ann\nssh-ed25519 AAAA broken\n"));
  CHECK(user_of(keys, ann) == "ann");
  CHECK(!user_of(keys, bob));
  REQUIRE(protocol::os::write_file(file, ann + " ann\n" + bob + " bob\n" + ann + " queen ann"));
  CHECK(user_of(keys, ann) == "queen ann");
  CHECK(user_of(keys, bob) == "bob");
  std::filesystem::remove(file);
  CHECK(!user_of(keys, ann));
}

TEST_CASE("authorize adds a key once, keeps what is there, and leaves the file to its owner") {
  test::TemporaryDirectory directory;
  auto file = directory / "authorized_keys";
  std::string ann = new_key(), bob = new_key();
  REQUIRE(protocol::os::write_file(file, "# mine\n" + ann + " ann"));
  auto added = authorize_key(file, bob + " bob@laptop", "bob");
  REQUIRE(added);
  CHECK(*added);
  added = authorize_key(file, bob, "bob");
  REQUIRE(added);
  CHECK(!*added);
  AuthorizedKeys keys(file);
  CHECK(user_of(keys, ann) == "ann");
  CHECK(user_of(keys, bob) == "bob");
  auto text = protocol::os::read_file(file, 100000);
  REQUIRE(text);
  CHECK(text->rfind("# mine\n", 0) == 0);
  struct stat status {};
  REQUIRE(::stat(file.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  // The same key for somebody else: the last line counts.
  REQUIRE(authorize_key(file, bob, "robert"));
  CHECK(user_of(keys, bob) == "robert");
}

TEST_CASE("authorize takes one good key and says what is wrong with others") {
  test::TemporaryDirectory directory;
  auto file = directory / "authorized_keys";
  std::string ann = new_key();
  for (std::string line : {std::string("nonsense"), std::string(""), std::string("# comment"),
                           std::string("ssh-ed25519 AAAA x"), ann + " a\n" + ann + " b", ann}) {
    INFO(line);
    auto added = authorize_key(file, line, "");
    REQUIRE(!added);
    CHECK(added.error().code == Errc::bad_input);
  }
  CHECK(!authorize_key(file, ann, "a\"b"));
  CHECK(!std::filesystem::exists(file));
}
