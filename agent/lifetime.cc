#include "agent/lifetime.h"

namespace agent {

namespace os = protocol::os;

Lifetime::Enlisted::Enlisted(Lifetime& lifetime, std::function<void()> on_stop, bool counts)
    : lifetime_(lifetime),
      place_(lifetime.enlisted_.insert(lifetime.enlisted_.end(), std::move(on_stop))),
      counts_(counts) {
  lifetime_.counted_ += counts_ ? 1 : 0;
  lifetime_.changed_.notify();
}

Lifetime::Enlisted::~Enlisted() {
  lifetime_.enlisted_.erase(place_);
  lifetime_.counted_ -= counts_ ? 1 : 0;
  lifetime_.changed_.notify();
}

void Lifetime::stop() {
  if (std::exchange(stopping_, true)) {
    return;
  }
  changed_.notify();
  auto all = enlisted_;  // one may leave while it is told
  for (const auto& on_stop : all) {
    on_stop();
  }
}

os::awaitable<bool> Lifetime::empty_by(std::chrono::steady_clock::time_point deadline) {
  while (counted_ > 0) {
    bool woken = co_await changed_.wait_until(deadline);
    if (!woken && counted_ > 0) {
      co_return false;
    }
  }
  co_return true;
}

}  // namespace agent
