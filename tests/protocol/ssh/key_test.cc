// Keys in text and in files.
#include "protocol/ssh/key.h"

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "tests/support/catch.h"

namespace {

namespace fs = std::filesystem;
using protocol::ssh::PrivateKey;
using protocol::ssh::PublicKey;
using protocol::wire::Errc;

struct Directory {
  Directory() {
    std::string name = (fs::temp_directory_path() / "key-test.XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path = name;
  }
  ~Directory() { fs::remove_all(path); }
  fs::path path;
};

std::string content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(const fs::path& file, const std::string& text) { std::ofstream(file) << text; }

unsigned mode(const fs::path& file) {
  struct stat info {};
  REQUIRE(::stat(file.c_str(), &info) == 0);
  return info.st_mode & 0777;
}

constexpr const char* kKnown =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ37zQSGlPqnRlnXH2kcKYIvTIvSKnRyfC8XjwTSdMdN";
constexpr const char* kFingerprint =
    "SHA256:ve0MoCXHJMSDFZcCe/tt/wM4gThEitlolkasxmYvcj0";  // by ssh-keygen -l

}  // namespace

TEST_CASE("a public key is read from its text and written back the same") {
  auto key = PublicKey::parse(kKnown);
  REQUIRE(key);
  CHECK(key->type() == "ssh-ed25519");
  CHECK(key->text() == kKnown);
  CHECK(key->fingerprint() == kFingerprint);
  CHECK(*PublicKey::parse(std::string(kKnown) + " and a comment") == *key);
  CHECK(*PublicKey::parse(std::string(kKnown) + "\n") == *key);
}

TEST_CASE("what is no public key is bad input") {
  for (const char* text :
       {"", " ", "ssh-ed25519", "ssh-ed25519 ", "ssh-ed25519 !!!!", "ssh-ed25519 AAAA",
        "no-such-type AAAA", "AAAAC3NzaC1lZDI1NTE5AAAAIJ37zQSGlPqnRlnXH2kcKYIvTIvSKnRyfC8XjwTSdMdN",
        "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIJ37zQSGlPqnRlnXH2kcKYIvTIvSKnRyfC8XjwTSdMdN"}) {
    INFO(text);
    auto key = PublicKey::parse(text);
    REQUIRE_FALSE(key);
    CHECK(key.error().code == Errc::bad_input);
  }
}

TEST_CASE("keys are equal when they are the same key") {
  const auto one = *PrivateKey::generate_ed25519();
  const auto two = *PrivateKey::generate_ed25519();
  CHECK(one.public_key() == one.public_key());
  CHECK_FALSE(one.public_key() == two.public_key());
  CHECK(*PublicKey::parse(one.public_key().text()) == one.public_key());
  CHECK(PublicKey() == PublicKey());
  CHECK_FALSE(PublicKey() == one.public_key());
}

TEST_CASE("a key is made on first use, for its owner alone, and found again") {
  Directory directory;
  const fs::path file = directory.path / "id_ed25519";
  ::umask(0);
  auto made = PrivateKey::load_or_make(file, "me@here");
  REQUIRE(made);
  CHECK(mode(file) == 0600);
  CHECK(content(directory.path / "id_ed25519.pub") == made->public_key().text() + " me@here\n");
  CHECK(std::distance(fs::directory_iterator(directory.path), {}) == 2);

  auto again = PrivateKey::load_or_make(file, "other");
  REQUIRE(again);
  CHECK(again->public_key() == made->public_key());

  // Stopped between the two files.
  fs::remove(directory.path / "id_ed25519.pub");
  REQUIRE(PrivateKey::load_or_make(file, "me@here"));
  CHECK(content(directory.path / "id_ed25519.pub") == made->public_key().text() + " me@here\n");
}

TEST_CASE("several that make the key at once get the same one") {
  for (int round = 0; round < 20; ++round) {
    Directory directory;
    std::vector<std::string> got(8);
    std::vector<std::thread> threads;
    for (auto& text : got) {
      threads.emplace_back([&text, &directory] {
        auto key = PrivateKey::load_or_make(directory.path / "key", "x");
        if (key) text = key->public_key().text();
      });
    }
    for (auto& thread : threads) thread.join();
    for (const auto& text : got) {
      CHECK_FALSE(text.empty());
      CHECK(text == got[0]);
    }
    CHECK(std::distance(fs::directory_iterator(directory.path), {}) == 2);
  }
}

TEST_CASE("a file that holds no usable key says which and is left as it is") {
  Directory directory;
  const fs::path file = directory.path / "key";
  auto missing = PrivateKey::load(file);
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == Errc::not_found);

  for (const char* text : {"", "not a key\n", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"}) {
    write(file, text);
    auto key = PrivateKey::load_or_make(file, "x");
    REQUIRE_FALSE(key);
    CHECK(key.error().code == Errc::bad_input);
    CHECK(key.error().what.find(file.string()) != std::string::npos);
    CHECK(content(file) == text);
  }

  auto nowhere = PrivateKey::load_or_make(directory.path / "no" / "such" / "key", "x");
  REQUIRE_FALSE(nowhere);
  CHECK(nowhere.error().code == Errc::not_found);
}

TEST_CASE("a key with a passphrase is refused, nobody is asked for it") {
  if (std::system("command -v ssh-keygen >/dev/null") != 0) return;
  Directory directory;
  const fs::path file = directory.path / "key";
  const std::string command =
      "ssh-keygen -q -t ed25519 -N secret -f '" + file.string() + "' </dev/null >/dev/null 2>&1";
  REQUIRE(std::system(command.c_str()) == 0);
  auto key = PrivateKey::load(file);
  REQUIRE_FALSE(key);
  CHECK(key.error().code == Errc::bad_input);
}
