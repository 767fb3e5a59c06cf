// Takes a result's pack from a session into the work tree's store, as it comes, and merges it.
#pragma once

#include <boost/asio/thread_pool.hpp>
#include <memory>
#include <string>

#include "cli/session.h"
#include "protocol/sync/origin.h"

namespace cli {

// What came of it: the merge's report, or why there is none.
using Received = protocol::wire::result<protocol::sync::MergeReport>;

// `result` was announced under `request`. Reads its pack to the end whatever happens. The box is
// told `merged` by nobody but the caller.
protocol::os::awaitable<Received> receive_result(protocol::os::executor executor,
                                                 boost::asio::thread_pool& pool,
                                                 std::shared_ptr<Session> session,
                                                 std::uint32_t request,
                                                 std::shared_ptr<protocol::sync::Origin> origin,
                                                 std::string sandbox,
                                                 protocol::wire::Result result);

}  // namespace cli
