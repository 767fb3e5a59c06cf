// An event loop that a test turns by hand: run() returns what one coroutine returned.
#pragma once

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <exception>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "protocol/os/async.h"

namespace test {

class Loop {
 public:
  protocol::os::executor executor() { return context_.get_executor(); }
  boost::asio::io_context& context() { return context_; }

  // Runs everything until `work` has ended; throws what it threw, and when it takes too long.
  template <class T>
  T run(protocol::os::awaitable<T> work, std::chrono::seconds limit = std::chrono::seconds(30)) {
    bool done = false;
    std::exception_ptr thrown;
    if constexpr (std::is_void_v<T>) {
      boost::asio::co_spawn(context_, std::move(work), [&](std::exception_ptr e) {
        thrown = std::move(e);
        done = true;
      });
      turn_until(done, limit);
      if (thrown) std::rethrow_exception(thrown);
    } else {
      std::optional<T> value;
      boost::asio::co_spawn(context_, store(std::move(work), value), [&](std::exception_ptr e) {
        thrown = std::move(e);
        done = true;
      });
      turn_until(done, limit);
      if (thrown) std::rethrow_exception(thrown);
      return std::move(*value);
    }
  }

  // Starts a coroutine that goes on while others run.
  void start(protocol::os::awaitable<void> work) {
    protocol::os::spawn(executor(), "test", std::move(work));
  }

  // Runs what can run now, without waiting for anything.
  void settle() {
    context_.restart();
    for (int quiet = 0; quiet < 3;) quiet = context_.poll_one() > 0 ? 0 : quiet + 1;
  }

 private:
  template <class T>
  static protocol::os::awaitable<void> store(protocol::os::awaitable<T> work,
                                             std::optional<T>& value) {
    value.emplace(co_await std::move(work));
  }

  void turn_until(const bool& done, std::chrono::seconds limit) {
    auto deadline = std::chrono::steady_clock::now() + limit;
    context_.restart();
    while (!done) {
      if (std::chrono::steady_clock::now() > deadline)
        throw std::runtime_error("the coroutine did not end in time");
      if (context_.run_one_for(std::chrono::milliseconds(200)) == 0) context_.restart();
    }
  }

  boost::asio::io_context context_{1};
};

}  // namespace test
