// What each row of the command table runs. Each returns the exit status or throws UserError.
#pragma once

#include <optional>
#include <string>

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
protocol::os::awaitable<int> run_sessions(Context& context);
protocol::os::awaitable<int> run_prune(Context& context);
protocol::os::awaitable<int> run_trust(Context& context);
protocol::os::awaitable<int> run_doctor(Context& context);
protocol::os::awaitable<int> run_stop(Context& context);
protocol::os::awaitable<int> run_reset(Context& context);
protocol::os::awaitable<int> run_boxes_list(Context& context);
protocol::os::awaitable<int> run_boxes_add(Context& context);
protocol::os::awaitable<int> run_boxes_edit(Context& context);
protocol::os::awaitable<int> run_boxes_install(Context& context);
protocol::os::awaitable<int> run_boxes_delete(Context& context);
protocol::os::awaitable<int> run_boxes_export(Context& context);
protocol::os::awaitable<int> run_boxes_import(Context& context);
protocol::os::awaitable<int> run_boxes_lock(Context& context);
protocol::os::awaitable<int> run_boxes_unlock(Context& context);
protocol::os::awaitable<int> run_jobs(Context& context);
protocol::os::awaitable<int> run_attach(Context& context);
protocol::os::awaitable<int> run_kill(Context& context);
protocol::os::awaitable<int> run_update(Context& context);
protocol::os::awaitable<int> run_key(Context& context);
protocol::os::awaitable<int> run_ssh_config(Context& context);
protocol::os::awaitable<int> run_version(Context& context);

// What `exec --reattach`, `--kill` and `--kill-all` run, too: by a job's id, or how that begins;
// std::nullopt: all of the caller's on the box.
protocol::os::awaitable<int> attach_to_job(Context& context, std::string id);
protocol::os::awaitable<int> kill_jobs(Context& context, std::optional<std::string> id);

}  // namespace cli
