#include "protocol/os/async.h"

#include <boost/asio/co_spawn.hpp>
#include <cstdio>
#include <utility>

namespace protocol::os {

namespace {

using EscapeHandler = std::function<void(const std::string&, std::exception_ptr)>;

void print_escape(const std::string& name, std::exception_ptr escaped) {
  try {
    std::rethrow_exception(std::move(escaped));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "escaped coroutine=%s what=\"%s\"\n", name.c_str(), e.what());
  } catch (...) {
    std::fprintf(stderr, "escaped coroutine=%s what=unknown\n", name.c_str());
  }
}

EscapeHandler& escape_handler() {
  static EscapeHandler handler = print_escape;
  return handler;
}

}  // namespace

void spawn(executor ex, std::string name, awaitable<void> work) {
  boost::asio::co_spawn(std::move(ex), std::move(work),
                        [name = std::move(name)](std::exception_ptr escaped) {
                          if (escaped) escape_handler()(name, std::move(escaped));
                        });
}

void set_escape_handler(EscapeHandler on_escape) {
  escape_handler() = on_escape ? std::move(on_escape) : print_escape;
}

}  // namespace protocol::os
