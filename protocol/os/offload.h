// Runs a blocking function on a pool thread and comes back to the awaiting coroutine's executor.
#pragma once

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <type_traits>

#include "protocol/os/async.h"

namespace protocol::os {

// `work` must own all that it uses: it runs on even when the awaiting coroutine is destroyed.
template <class F>
awaitable<std::invoke_result_t<F>> offload(boost::asio::thread_pool& pool, F work) {
  co_return co_await boost::asio::co_spawn(
      pool, [](F f) -> awaitable<std::invoke_result_t<F>> { co_return f(); }(std::move(work)),
      boost::asio::use_awaitable);
}

}  // namespace protocol::os
