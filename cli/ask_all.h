// One question to each of several boxes, all at once and each for its time, so that a dead one
// costs that once. Knows nothing of what is asked.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "protocol/os/async.h"
#include "protocol/os/wakeup.h"

namespace cli {

inline constexpr std::chrono::milliseconds kAskTime{
    4000};  // to answer a question that costs nothing

template <class Row>
struct Question {
  Row unanswered;  // what is known when no answer comes in time
  std::function<protocol::os::awaitable<void>(Row&)> ask;  // fills it in; throws nothing
  std::chrono::milliseconds time = kAskTime;
};

// Shared with the questions: those that come too late write into it, and nobody looks any more.
template <class Row>
struct Asking {
  explicit Asking(protocol::os::executor executor) : answered(std::move(executor)) {}
  struct One {
    Question<Row> question;
    std::chrono::steady_clock::time_point deadline;
    bool open = true;
  };
  std::vector<One> all;
  protocol::os::Wakeup answered;

  static protocol::os::awaitable<void> ask(std::shared_ptr<Asking> self, std::size_t at) {
    Row row = self->all[at].question.unanswered;
    co_await self->all[at].question.ask(row);
    self->all[at].question.unanswered = std::move(row);
    self->all[at].open = false;
    self->answered.notify();
  }
};

// The rows in the order of the questions. What the questions refer to has to live as long as the
// executor runs: one that is late goes on.
template <class Row>
protocol::os::awaitable<std::vector<Row>> ask_all(protocol::os::executor executor,
                                                  std::vector<Question<Row>> questions) {
  auto asking = std::make_shared<Asking<Row>>(executor);
  auto begun = std::chrono::steady_clock::now();
  for (auto& question : questions) {
    auto deadline = begun + question.time;
    asking->all.push_back({std::move(question), deadline, true});
  }
  for (std::size_t i = 0; i < asking->all.size(); ++i) {
    protocol::os::spawn(executor, "ask a box", Asking<Row>::ask(asking, i));
  }
  for (bool in_time = true; in_time;) {
    auto latest = begun;
    for (const auto& one : asking->all) {
      latest = one.open ? std::max(latest, one.deadline) : latest;
    }
    if (latest == begun) {
      break;
    }
    in_time = co_await asking->answered.wait_until(latest);
  }
  std::vector<Row> rows;
  for (const auto& one : asking->all) {
    rows.push_back(one.question.unanswered);
  }
  co_return rows;
}

}  // namespace cli
