#include "protocol/os/signals.h"

#include <pthread.h>
#include <signal.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <mutex>

namespace protocol::os {

namespace asio = boost::asio;

struct SignalStream::State {
  explicit State(executor ex) : set(std::move(ex)) {}
  asio::signal_set set;
  bool closed = false;

  static awaitable<int> next(std::shared_ptr<State> self) {
    if (self->closed) co_return 0;
    auto [error, number] = co_await self->set.async_wait(asio::as_tuple(asio::use_awaitable));
    co_return error ? 0 : number;
  }
};

SignalStream::SignalStream(executor ex, std::initializer_list<int> signals)
    : state_(std::make_shared<State>(std::move(ex))) {
  sigset_t ours;
  ::sigemptyset(&ours);
  for (int signal : signals) {
    state_->set.add(signal);
    ::sigaddset(&ours, signal);
  }
  ::pthread_sigmask(SIG_UNBLOCK, &ours, nullptr);
}

SignalStream::~SignalStream() { close(); }

awaitable<int> SignalStream::next() { return State::next(state_); }

void SignalStream::close() noexcept {
  if (std::exchange(state_->closed, true)) return;
  boost::system::error_code ignored;
  state_->set.clear(ignored);
  state_->set.cancel(ignored);
}

void reset_signals() {
  for (int signal = 1; signal < NSIG; ++signal)
    if (signal != SIGKILL && signal != SIGSTOP) ::signal(signal, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

void ignore_sigpipe() {
  static std::once_flag once;
  std::call_once(once, [] { ::signal(SIGPIPE, SIG_IGN); });
}

}  // namespace protocol::os
