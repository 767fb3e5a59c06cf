#include "cli/ask_all.h"

#include <string>

#include "tests/support/catch.h"
#include "tests/support/loop.h"

namespace {

namespace os = protocol::os;
using cli::Question;

// Answers once `others` have been asked as well.
os::awaitable<void> answer(std::string& row, int& asked, int others, os::executor executor) {
  ++asked;
  while (asked < others) {
    co_await os::pause(executor, std::chrono::milliseconds(1));
  }
  row = "answered";
}

}  // namespace

TEST_CASE("all are asked before any has answered") {
  test::Loop loop;
  int asked = 0;
  std::vector<Question<std::string>> questions(5);
  for (auto& question : questions) {
    question.time = std::chrono::hours(1);
    question.ask = [&](std::string& row) { return answer(row, asked, 5, loop.executor()); };
  }
  auto rows = loop.run(cli::ask_all(loop.executor(), std::move(questions)));
  CHECK(rows == std::vector<std::string>(5, "answered"));
}

TEST_CASE("whoever is silent costs its own time, and the others' answers stand") {
  test::Loop loop;
  int asked = 0;
  bool late = false;
  os::Wakeup never(loop.executor());
  std::vector<Question<std::string>> questions(3);
  for (auto& question : questions) {
    question.time = std::chrono::hours(1);
    question.ask = [&](std::string& row) { return answer(row, asked, 2, loop.executor()); };
  }
  questions[1].unanswered = "silent";
  questions[1].time = std::chrono::milliseconds(20);
  questions[1].ask = [&](std::string& row) -> os::awaitable<void> {
    row = "half of an answer";
    co_await never.wait();
    late = true;
  };
  auto rows = loop.run(cli::ask_all(loop.executor(), std::move(questions)));
  CHECK(rows == std::vector<std::string>{"answered", "silent", "answered"});
  // What comes too late harms nobody.
  never.notify();
  loop.settle();
  CHECK(late);
}

TEST_CASE("nobody to ask is no wait") {
  test::Loop loop;
  std::vector<Question<std::string>> none;
  CHECK(loop.run(cli::ask_all(loop.executor(), std::move(none))).empty());
}
