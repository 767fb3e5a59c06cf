// The one description of every message: its name and its members. Encoding and decoding both walk
// it, so that they cannot disagree. For messages.cc alone.
#pragma once

#include <concepts>
#include <string_view>
#include <type_traits>

#include "protocol/wire/messages.h"

namespace protocol::wire {

template <class T, class M>
concept MaybeConst = std::same_as<std::remove_const_t<T>, M>;

// clang-format off
// One line a message: fields(visit, value) calls visit("member", value.member) for each member, in wire order.

template <class V> void fields(V& v, MaybeConst<LeftOut> auto& m) { v("path", m.path); v("why", m.why); }
template <class V> void fields(V& v, MaybeConst<Holder> auto& m) { v("user", m.user); v("verb", m.verb); v("command", m.command); v("held_seconds", m.held_seconds); v("scope", m.scope); v("sandbox", m.sandbox); v("job", m.job); }
template <class V> void fields(V& v, MaybeConst<UserLockInfo> auto& m) { v("user", m.user); v("scope", m.scope); v("since", m.since); v("reason", m.reason); }
template <class V> void fields(V& v, MaybeConst<DetachedJob> auto& m) { v("job", m.job); v("user", m.user); v("scope", m.scope); v("sandbox", m.sandbox); v("verb", m.verb); v("command", m.command); v("state", m.state); v("started_at", m.started_at); v("ended_at", m.ended_at); v("status", m.status); v("signal", m.signal); }
template <class V> void fields(V& v, MaybeConst<SessionInfo> auto& m) { v("user", m.user); v("scope", m.scope); v("sandbox", m.sandbox); v("since", m.since); v("state", m.state); v("verb", m.verb); v("command", m.command); }
template <class V> void fields(V& v, MaybeConst<Ref> auto& m) { v("name", m.name); v("oid", m.oid); }
template <class V> void fields(V& v, MaybeConst<Terminal> auto& m) { v("term", m.term); v("rows", m.rows); v("columns", m.columns); }
template <class V> void fields(V& v, MaybeConst<Limits> auto& m) { v("memory", m.memory); v("millicpus", m.millicpus); v("pids", m.pids); v("seconds", m.seconds); }
template <class V> void fields(V& v, MaybeConst<Bind> auto& m) { v("sandbox", m.sandbox); v("origin", m.origin); v("user", m.user); v("scope", m.scope); }
template <class V> void fields(V& v, MaybeConst<Create> auto& m) { v("sandbox", m.sandbox); v("origin", m.origin); v("user", m.user); v("project", m.project); v("branch", m.branch); v("config", m.config); v("isolation", m.isolation); v("network", m.network); v("limits", m.limits); v("scope", m.scope); }
template <class V> void fields(V&, MaybeConst<Ready> auto&) {}
template <class V> void fields(V& v, MaybeConst<End> auto& m) { v("force", m.force); v("if_idle", m.if_idle); v("sandbox", m.sandbox); v("user", m.user); v("keep_unpulled", m.keep_unpulled); v("dry_run", m.dry_run); }
template <class V> void fields(V&, MaybeConst<Heartbeat> auto&) {}
template <class V> void fields(V&, MaybeConst<InfoRequest> auto&) {}
template <class V> void fields(V& v, MaybeConst<ListRequest> auto& m) { v("user", m.user); v("sizes", m.sizes); }
template <class V> void fields(V&, MaybeConst<StatusRequest> auto&) {}
template <class V> void fields(V& v, MaybeConst<BoxRequest> auto& m) { v("user", m.user); v("scope", m.scope); }
template <class V> void fields(V& v, MaybeConst<SessionsRequest> auto& m) { v("user", m.user); }
template <class V> void fields(V& v, MaybeConst<UserLockRequest> auto& m) { v("reason", m.reason); v("user", m.user); v("scope", m.scope); }
template <class V> void fields(V& v, MaybeConst<UserUnlockRequest> auto& m) { v("force", m.force); v("user", m.user); v("scope", m.scope); }
template <class V> void fields(V& v, MaybeConst<JobsRequest> auto& m) { v("user", m.user); }
template <class V> void fields(V& v, MaybeConst<Kill> auto& m) { v("job", m.job); v("all", m.all); v("signal", m.signal); v("force", m.force); v("user", m.user); }
template <class V> void fields(V& v, MaybeConst<LockRequested> auto& m) { v("verb", m.verb); v("command", m.command); v("wait_seconds", m.wait_seconds); v("force", m.force); v("user", m.user); v("scope", m.scope); }
template <class V> void fields(V&, MaybeConst<LockReleased> auto&) {}
template <class V> void fields(V& v, MaybeConst<SyncStart> auto& m) { v("snapshot", m.snapshot); v("base", m.base); v("merged", m.merged); v("head", m.head); v("staged", m.staged); v("branch", m.branch); v("object_format", m.object_format); v("git", m.git); v("shallow", m.shallow); v("refs", m.refs); v("upstream", m.upstream); v("remote_head", m.remote_head); v("excludes", m.excludes); v("includes", m.includes); }
template <class V> void fields(V&, MaybeConst<SyncEnd> auto&) {}
template <class V> void fields(V& v, MaybeConst<Exec> auto& m) { v("argv", m.argv); v("script", m.script); v("env", m.env); v("cwd", m.cwd); v("make_cwd", m.make_cwd); v("shell", m.shell); v("terminal", m.terminal); v("interactive_input", m.interactive_input); v("detach", m.detach); }
template <class V> void fields(V& v, MaybeConst<Signal> auto& m) { v("name", m.name); v("stream", m.stream); }
template <class V> void fields(V& v, MaybeConst<Window> auto& m) { v("rows", m.rows); v("columns", m.columns); }
template <class V> void fields(V& v, MaybeConst<Merged> auto& m) { v("result", m.result); }
template <class V> void fields(V& v, MaybeConst<Pull> auto& m) { v("merged", m.merged); v("whole", m.whole); }
template <class V> void fields(V& v, MaybeConst<Bound> auto& m) { v("sandbox", m.sandbox); v("state", m.state); v("agent", m.agent); v("ttl_seconds", m.ttl_seconds); v("fresh", m.fresh); v("isolation", m.isolation); }
template <class V> void fields(V& v, MaybeConst<Info> auto& m) { v("agent", m.agent); v("name", m.name); v("version", m.version); v("user", m.user); v("protocol", m.protocol); v("ttl_seconds", m.ttl_seconds); }
template <class V> void fields(V& v, MaybeConst<SandboxInfo> auto& m) { v("sandbox", m.sandbox); v("user", m.user); v("project", m.project); v("branch", m.branch); v("config", m.config); v("state", m.state); v("created_at", m.created_at); v("used_at", m.used_at); v("holders", m.holders); v("waiting", m.waiting); v("active", m.active); v("size_bytes", m.size_bytes); }
template <class V> void fields(V& v, MaybeConst<Sandboxes> auto& m) { v("sandboxes", m.sandboxes); }
template <class V> void fields(V& v, MaybeConst<JobInfo> auto& m) { v("job", m.job); v("command", m.command); v("state", m.state); v("pid", m.pid); v("started_at", m.started_at); v("status", m.status); v("signal", m.signal); v("detached", m.detached); v("fence", m.fence); }
template <class V> void fields(V& v, MaybeConst<Status> auto& m) { v("sandbox", m.sandbox); v("queue", m.queue); v("jobs", m.jobs); v("snapshot", m.snapshot); v("unmerged", m.unmerged); }
template <class V> void fields(V& v, MaybeConst<Queued> auto& m) { v("position", m.position); v("holders", m.holders); }
template <class V> void fields(V& v, MaybeConst<Granted> auto& m) { v("fence", m.fence); v("ttl_seconds", m.ttl_seconds); v("queued", m.queued); v("bypassed", m.bypassed); v("shared", m.shared); }
template <class V> void fields(V& v, MaybeConst<Refused> auto& m) { v("why", m.why); v("box", m.box); v("holders", m.holders); v("since", m.since); v("reason", m.reason); }
template <class V> void fields(V& v, MaybeConst<Applied> auto& m) { v("snapshot", m.snapshot); v("drift", m.drift); v("drifted", m.drifted); v("left_out", m.left_out); }
template <class V> void fields(V& v, MaybeConst<Missing> auto& m) { v("have", m.have); }
template <class V> void fields(V& v, MaybeConst<Stale> auto& m) { v("result", m.result); }
template <class V> void fields(V& v, MaybeConst<Started> auto& m) { v("job", m.job); v("pid", m.pid); }
template <class V> void fields(V& v, MaybeConst<Exited> auto& m) { v("status", m.status); v("signal", m.signal); v("core_dumped", m.core_dumped); v("oom", m.oom); v("leftovers", m.leftovers); }
template <class V> void fields(V& v, MaybeConst<Result> auto& m) { v("result", m.result); v("base", m.base); v("commits", m.commits); v("left_out", m.left_out); v("shallow", m.shallow); }
template <class V> void fields(V&, MaybeConst<Unchanged> auto&) {}
template <class V> void fields(V&, MaybeConst<Released> auto&) {}
template <class V> void fields(V&, MaybeConst<Ended> auto&) {}
template <class V> void fields(V& v, MaybeConst<Skipped> auto& m) { v("step", m.step); }
template <class V> void fields(V& v, MaybeConst<Failed> auto& m) { v("step", m.step); v("code", m.code); v("message", m.message); }
template <class V> void fields(V& v, MaybeConst<Notice> auto& m) { v("text", m.text); }
template <class V> void fields(V& v, MaybeConst<Detached> auto& m) { v("job", m.job); }
template <class V> void fields(V& v, MaybeConst<Box> auto& m) { v("agent", m.agent); v("name", m.name); v("version", m.version); v("protocol", m.protocol); v("user", m.user); v("slots", m.slots); v("ttl_seconds", m.ttl_seconds); v("isolation", m.isolation); v("user_lock", m.user_lock); v("holders", m.holders); v("waiting", m.waiting); v("sandboxes", m.sandboxes); v("sessions", m.sessions); v("jobs", m.jobs); v("limits", m.limits); }
template <class V> void fields(V& v, MaybeConst<Sessions> auto& m) { v("sessions", m.sessions); }
template <class V> void fields(V& v, MaybeConst<UserLocked> auto& m) { v("lock", m.lock); v("taken", m.taken); }
template <class V> void fields(V& v, MaybeConst<UserUnlocked> auto& m) { v("was", m.was); }
template <class V> void fields(V& v, MaybeConst<Jobs> auto& m) { v("jobs", m.jobs); }
template <class V> void fields(V& v, MaybeConst<Killed> auto& m) { v("jobs", m.jobs); }
template <class V> void fields(V& v, MaybeConst<Hello> auto& m) { v("origin", m.origin); v("user", m.user); v("fence", m.fence); v("version", m.version); v("epoch", m.epoch); v("connection", m.connection); v("pid", m.pid); v("jobs", m.jobs); }
template <class V> void fields(V&, MaybeConst<Hangup> auto&) {}
template <class V> void fields(V& v, MaybeConst<EndJob> auto& m) { v("job", m.job); v("signal", m.signal); v("connection", m.connection); }
template <class V> void fields(V&, MaybeConst<Detach> auto&) {}
template <class V> void fields(V& v, MaybeConst<WatchJob> auto& m) { v("job", m.job); }
template <class V> void fields(V& v, MaybeConst<Attach> auto& m) { v("job", m.job); v("user", m.user); }
template <class V> void fields(V& v, MaybeConst<Dial> auto& m) { v("port", m.port); }
template <class V> void fields(V&, MaybeConst<Shutdown> auto&) {}
template <class V> void fields(V& v, MaybeConst<Reclaim> auto& m) { v("dry_run", m.dry_run); }
template <class V> void fields(V& v, MaybeConst<Reclaimed> auto& m) { v("removals", m.removals); }
template <class V> void fields(V&, MaybeConst<UnpulledRequest> auto&) {}
template <class V> void fields(V& v, MaybeConst<Unpulled> auto& m) { v("results", m.results); v("files", m.files); v("commits", m.commits); v("drifts", m.drifts); }
template <class V> void fields(V& v, MaybeConst<SessionStart> auto& m) { v("version", m.version); }

// A message's name on the wire. Directives keep the name they have as exec requests.

template <class M>
inline constexpr std::string_view kName = "";
template <> inline constexpr std::string_view kName<Bind> = "bind";
template <> inline constexpr std::string_view kName<Create> = "create";
template <> inline constexpr std::string_view kName<Ready> = "ready";
template <> inline constexpr std::string_view kName<End> = "__rwx_sandbox_end__";
template <> inline constexpr std::string_view kName<Heartbeat> = "heartbeat";
template <> inline constexpr std::string_view kName<InfoRequest> = "info_request";
template <> inline constexpr std::string_view kName<ListRequest> = "list_request";
template <> inline constexpr std::string_view kName<StatusRequest> = "status_request";
template <> inline constexpr std::string_view kName<BoxRequest> = "box_request";
template <> inline constexpr std::string_view kName<SessionsRequest> = "sessions_request";
template <> inline constexpr std::string_view kName<UserLockRequest> = "user_lock";
template <> inline constexpr std::string_view kName<UserUnlockRequest> = "user_unlock";
template <> inline constexpr std::string_view kName<JobsRequest> = "jobs_request";
template <> inline constexpr std::string_view kName<Kill> = "kill";
template <> inline constexpr std::string_view kName<LockRequested> = "__rwx_sandbox_lock_requested__";
template <> inline constexpr std::string_view kName<LockReleased> = "__rwx_sandbox_lock_released__";
template <> inline constexpr std::string_view kName<SyncStart> = "__rwx_sandbox_sync_start__";
template <> inline constexpr std::string_view kName<SyncEnd> = "__rwx_sandbox_sync_end__";
template <> inline constexpr std::string_view kName<Exec> = "exec";
template <> inline constexpr std::string_view kName<Signal> = "signal";
template <> inline constexpr std::string_view kName<Window> = "window";
template <> inline constexpr std::string_view kName<Merged> = "merged";
template <> inline constexpr std::string_view kName<Pull> = "pull";
template <> inline constexpr std::string_view kName<Bound> = "bound";
template <> inline constexpr std::string_view kName<Info> = "info";
template <> inline constexpr std::string_view kName<Sandboxes> = "sandboxes";
template <> inline constexpr std::string_view kName<Status> = "status";
template <> inline constexpr std::string_view kName<Queued> = "queued";
template <> inline constexpr std::string_view kName<Granted> = "granted";
template <> inline constexpr std::string_view kName<Refused> = "refused";
template <> inline constexpr std::string_view kName<Applied> = "applied";
template <> inline constexpr std::string_view kName<Missing> = "missing";
template <> inline constexpr std::string_view kName<Stale> = "stale";
template <> inline constexpr std::string_view kName<Started> = "started";
template <> inline constexpr std::string_view kName<Exited> = "exited";
template <> inline constexpr std::string_view kName<Result> = "result";
template <> inline constexpr std::string_view kName<Unchanged> = "unchanged";
template <> inline constexpr std::string_view kName<Released> = "released";
template <> inline constexpr std::string_view kName<Ended> = "ended";
template <> inline constexpr std::string_view kName<Skipped> = "skipped";
template <> inline constexpr std::string_view kName<Failed> = "failed";
template <> inline constexpr std::string_view kName<Notice> = "notice";
template <> inline constexpr std::string_view kName<Detached> = "detached";
template <> inline constexpr std::string_view kName<Box> = "box";
template <> inline constexpr std::string_view kName<Sessions> = "sessions";
template <> inline constexpr std::string_view kName<UserLocked> = "user_locked";
template <> inline constexpr std::string_view kName<UserUnlocked> = "user_unlocked";
template <> inline constexpr std::string_view kName<Jobs> = "jobs";
template <> inline constexpr std::string_view kName<Killed> = "killed";
template <> inline constexpr std::string_view kName<Hello> = "hello";
template <> inline constexpr std::string_view kName<Hangup> = "hangup";
template <> inline constexpr std::string_view kName<EndJob> = "end_job";
template <> inline constexpr std::string_view kName<Detach> = "detach";
template <> inline constexpr std::string_view kName<WatchJob> = "watch_job";
template <> inline constexpr std::string_view kName<Attach> = "attach";
template <> inline constexpr std::string_view kName<Dial> = "dial";
template <> inline constexpr std::string_view kName<Shutdown> = "shutdown";
template <> inline constexpr std::string_view kName<SessionStart> = "session";
template <> inline constexpr std::string_view kName<Reclaim> = "reclaim";
template <> inline constexpr std::string_view kName<Reclaimed> = "reclaimed";
template <> inline constexpr std::string_view kName<UnpulledRequest> = "unpulled_request";
template <> inline constexpr std::string_view kName<Unpulled> = "unpulled";

}  // namespace protocol::wire
