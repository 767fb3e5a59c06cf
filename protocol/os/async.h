// The one spelling of a coroutine in this project. Every coroutine runs on one thread; every wait
// can be ended.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <exception>
#include <functional>
#include <string>

#include "protocol/wire/result.h"

namespace protocol::os {

template <class T>
using awaitable = boost::asio::awaitable<T>;
using wire::result;
using executor = boost::asio::any_io_executor;

// Starts a coroutine that nobody awaits. What escapes it reaches `on_escape` with `name` (a log
// line), never the loop.
void spawn(executor ex, std::string name, awaitable<void> work);
// Who hears of escaped exceptions; set once in main. Default: one line on stderr.
void set_escape_handler(std::function<void(const std::string& name, std::exception_ptr)> on_escape);

}  // namespace protocol::os
