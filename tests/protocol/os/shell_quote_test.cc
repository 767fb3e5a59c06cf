// What shell_join writes, /bin/sh reads back as the words that it was made of.

#include <random>

#include "protocol/os/process.h"
#include "protocol/os/run.h"
#include "protocol/wire/quoting.h"
#include "tests/support/catch.h"

using namespace protocol;

TEST_CASE("a shell reads a joined command line back as its words, whatever bytes they have") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string> argv = {"printf", "%s\\0"};
    std::string expected;
    for (int i = 0; i < 100; ++i) {
      std::string word;
      for (auto n = random() % 8; n > 0; --n) word += static_cast<char>(1 + random() % 255);
      expected += word + '\0';
      argv.push_back(std::move(word));
    }
    os::Spawn shell;
    shell.argv = {"/bin/sh", "-c", wire::shell_join(argv)};
    const auto ran = os::run(shell);
    REQUIRE(ran);
    CHECK(ran->exit.ok());
    CHECK(ran->err.empty());
    REQUIRE(ran->out == expected);
  }
}
