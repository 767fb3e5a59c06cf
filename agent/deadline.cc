#include "agent/deadline.h"

#include <memory>

#include "protocol/os/wakeup.h"

namespace agent {
namespace {

namespace os = protocol::os;

struct Progress {
  explicit Progress(os::executor ex) : changed(std::move(ex)) {}
  os::Wakeup changed;
  bool done = false;
};

// Also when `work` throws: who waits must not wait for ever.
struct Finish {
  std::shared_ptr<Progress> progress;
  ~Finish() {
    progress->done = true;
    progress->changed.notify();
  }
};

os::awaitable<void> follow(std::shared_ptr<Progress> progress, os::awaitable<void> work) {
  Finish finish{std::move(progress)};
  co_await std::move(work);
}

}  // namespace

os::awaitable<bool> within(os::executor ex, std::chrono::steady_clock::duration limit,
                           os::awaitable<void> work, std::function<void()> cut) {
  auto deadline = std::chrono::steady_clock::now() + limit;
  auto progress = std::make_shared<Progress>(ex);
  os::spawn(ex, "bounded wait", follow(progress, std::move(work)));
  while (!progress->done) {
    bool woken = co_await progress->changed.wait_until(deadline);
    if (!woken) {
      break;
    }
  }
  bool in_time = progress->done;
  if (!in_time) {
    cut();
  }
  while (!progress->done) {
    co_await progress->changed.wait();
  }
  co_return in_time;
}

}  // namespace agent
