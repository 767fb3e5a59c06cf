#include "protocol/os/wakeup.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <list>
#include <utility>

namespace protocol::os {

namespace asio = boost::asio;

namespace {
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
}

struct Wakeup::Waiters {
  explicit Waiters(executor e) : ex(std::move(e)) {}

  struct Waiter {
    asio::steady_timer timer;
    bool woken = false;
  };

  static awaitable<bool> wait(std::shared_ptr<Waiters> waiters, time_point deadline) {
    Waiter waiter{asio::steady_timer(waiters->ex, deadline)};
    auto place = waiters->list.insert(waiters->list.end(), &waiter);
    struct Leave {
      std::list<Waiter*>& list;
      std::list<Waiter*>::iterator place;
      ~Leave() { list.erase(place); }
    } leave{waiters->list, place};
    co_await waiter.timer.async_wait(kTuple);
    co_return waiter.woken;
  }

  executor ex;
  std::list<Waiter*> list;
};

Wakeup::Wakeup(executor ex) : waiters_(std::make_shared<Waiters>(std::move(ex))) {}

awaitable<bool> Wakeup::wait_until(time_point deadline) {
  return Waiters::wait(waiters_, deadline);
}

awaitable<void> Wakeup::wait() {
  // Far, and still a number that the timer queue can compare.
  co_await Waiters::wait(waiters_, time_point::max());
}

void Wakeup::notify() {
  for (Waiters::Waiter* waiter : waiters_->list) {
    waiter->woken = true;
    waiter->timer.cancel();
  }
}

awaitable<void> pause(executor ex, std::chrono::steady_clock::duration time) {
  asio::steady_timer timer(ex, time);
  co_await timer.async_wait(kTuple);
}

}  // namespace protocol::os
