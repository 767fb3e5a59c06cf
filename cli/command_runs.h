// What each row of the command table runs. Each returns the exit status or throws UserError.
#pragma once

#include "protocol/os/async.h"

namespace cli {

struct Context;

protocol::os::awaitable<int> run_init(Context& context);
protocol::os::awaitable<int> run_start(Context& context);
protocol::os::awaitable<int> run_exec(Context& context);
protocol::os::awaitable<int> run_push(Context& context);
protocol::os::awaitable<int> run_pull(Context& context);
protocol::os::awaitable<int> run_status(Context& context);
protocol::os::awaitable<int> run_list(Context& context);
protocol::os::awaitable<int> run_stop(Context& context);
protocol::os::awaitable<int> run_reset(Context& context);
protocol::os::awaitable<int> run_boxes_list(Context& context);
protocol::os::awaitable<int> run_boxes_add(Context& context);
protocol::os::awaitable<int> run_boxes_edit(Context& context);
protocol::os::awaitable<int> run_boxes_delete(Context& context);
protocol::os::awaitable<int> run_boxes_export(Context& context);
protocol::os::awaitable<int> run_boxes_import(Context& context);
protocol::os::awaitable<int> run_boxes_lock(Context& context);
protocol::os::awaitable<int> run_boxes_unlock(Context& context);
protocol::os::awaitable<int> run_key(Context& context);
protocol::os::awaitable<int> run_ssh_config(Context& context);
protocol::os::awaitable<int> run_version(Context& context);

}  // namespace cli
