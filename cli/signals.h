// Who hears of the signals that a person or a system sends to this process.
#pragma once

#include <functional>
#include <memory>
#include <utility>

namespace cli {

class Signals {
 public:
  // INT, TERM, HUP, QUIT and WINCH, on the loop's thread.
  using Handler = std::function<void(int signal)>;
  explicit Signals(Handler handler) : handler_(std::make_shared<Handler>(std::move(handler))) {}

  void deliver(int signal) {
    std::shared_ptr<Handler> handler = handler_;  // it may be replaced meanwhile
    (*handler)(signal);
  }
  // From now on to this one; returns the one before.
  std::shared_ptr<Handler> replace(std::shared_ptr<Handler> handler) {
    std::swap(handler_, handler);
    return handler;
  }

 private:
  std::shared_ptr<Handler> handler_;  // never copied: it may count
};

// While it lives, signals go to its handler.
class SignalScope {
 public:
  SignalScope(Signals& signals, Signals::Handler handler)
      : signals_(signals),
        before_(signals.replace(std::make_shared<Signals::Handler>(std::move(handler)))) {}
  ~SignalScope() { signals_.replace(std::move(before_)); }
  SignalScope(const SignalScope&) = delete;
  SignalScope& operator=(const SignalScope&) = delete;

 private:
  Signals& signals_;
  std::shared_ptr<Signals::Handler> before_;
};

}  // namespace cli
