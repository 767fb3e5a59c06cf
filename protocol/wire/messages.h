// Messages: what control frames carry. A control frame's payload is `NAME` or `NAME SP
// JSON-object`; the JSON members are the members below, under the same names. Members that the
// reader does not know are ignored, absent ones take the default written here, wrong types are
// Errc::bad_input naming the member. A byte string that is not UTF-8 is written {"base64": "..."}.
// Grammar and order of messages: protocol/WIRE.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "protocol/wire/result.h"

namespace protocol::wire {

// ---- shared pieces -------------------------------------------------------------------------

// Something that a sync did not carry, and why ("nested repository", "unreadable", ...).
struct LeftOut {
  std::string path;
  std::string why;
};

// Who holds or waits, as shown to others.
struct Holder {
  std::string user;
  std::string verb;     // exec, push, start, reset ...: tables show this
  std::string command;  // command text: waits show this
  std::int64_t held_seconds = 0;
  std::string scope;    // which of the user's CI jobs; empty: the person
  std::string sandbox;  // the caller's own alone
  std::string job;      // of a detached job that holds it
};

// A person's reservation of a whole box.
struct UserLockInfo {
  std::string user;
  std::string scope;   // of one CI job of that user alone; empty: the user's, whatever the scope
  std::string since;   // RFC 3339, UTC
  std::string reason;  // may be empty
};

// A detached job, as listed.
struct DetachedJob {
  std::string job;
  std::string user;
  std::string scope;
  std::string sandbox;  // the caller's own alone
  std::string verb;
  std::string command;
  std::string state;  // running, exited, lost (how it ended was not recorded)
  std::string started_at;
  std::string ended_at;       // empty while it runs
  std::optional<int> status;  // when it exited
  std::string signal;         // that ended it
};

// Who is attached to a sandbox of the box, and does what.
struct SessionInfo {
  std::string user;
  std::string scope;
  std::string sandbox;  // the caller's own alone
  std::string since;    // RFC 3339, UTC
  std::string state;    // attached, waiting (for the lock), running (holds it)
  std::string verb;     // while waiting or running
  std::string command;
};

// A git ref to exist in the workspace's .git, and the object it names.
struct Ref {
  std::string name;  // refs/heads/main
  std::string oid;
};

// What a sandbox's commands may use. 0: no limit.
struct Limits {
  std::int64_t memory = 0;     // bytes
  std::int64_t millicpus = 0;  // thousandths of a processor
  std::int64_t pids = 0;       // processes and threads at once
  std::int64_t seconds = 0;    // of one command, from its start
  bool operator==(const Limits&) const = default;
};

struct Terminal {
  std::string term;
  std::uint16_t rows = 24;
  std::uint16_t columns = 80;
};

// ---- client to agent, on the session (request 0) -------------------------------------------

// First frame of a session that wants a sandbox. Answer: bound or failed.
struct Bind {
  std::string sandbox;  // id
  std::string origin;   // the work tree's id, 32 hex digits
  std::string user;     // claimed name: honoured on the local box alone
  // Which of the user's CI jobs this is ("ci:github:..."), without anything that differs between
  // processes of one job; empty for a person. Shown beside the user; it decides nothing but whose
  // user lock is whose among those of one user.
  std::string scope;
};
// Makes the sandbox if it is not there. Idempotent for the same id and user: a second call finds it
// as it is. Binds too. Answer: bound or failed.
struct Create {
  std::string sandbox;  // id, made by the client: 32 lower-case hex digits
  std::string origin;
  std::string user;
  std::string project;  // the work tree's root, for people
  std::string branch;
  std::string config;              // absolute path of the config file, or empty
  std::string isolation = "auto";  // auto (as the box has it), bwrap or none
  std::string network = "host";    // the box's, or none
  Limits limits;
  std::string scope;
};
// The setup commands have succeeded: the sandbox may be used by others. Answer: bound again.
struct Ready {};
// Ends the bound sandbox: its jobs are ended, its files removed, its record deleted. Never waits.
// Answer: ended; refused when another session's command or a detached job runs in it, or, once its
// setup has succeeded, when others hold all slots of the box or its user lock; or failed, with
// refused when it has what was never pulled and `keep_unpulled` asks for that.
//
// With `if_idle` it may come unbound, naming the sandbox, and is decided under the sandbox's
// exclusive lock: failed with busy when anybody else is attached to it, waits for it or runs
// something in it.
struct End {
  bool force = false;  // all the same; recorded
  bool if_idle = false;
  std::string sandbox;         // with if_idle: which; empty: the bound one
  std::string user;            // and whose: claimed, honoured on the local box alone
  bool keep_unpulled = false;  // only if nothing would be lost with it
  bool dry_run = false;        // decide, and leave it
};
struct Heartbeat {};  // no answer
// Which agent is this? May come before bind. Answer: info.
struct InfoRequest {};
// The caller's sandboxes on this box. May come before bind. Answer: sandboxes.
struct ListRequest {
  std::string user;    // claimed: honoured on the local box alone
  bool sizes = false;  // with size_bytes: takes as long as looking at every file takes
};
// Finishes removals that were cut off. May come before bind. Answer: reclaimed.
struct Reclaim {
  bool dry_run = false;  // only count them
};
// The bound sandbox in full. Answer: status.
struct StatusRequest {};

// ---- client to agent, under any request number, bound or not; the answer comes under the same ---

// What this box is, who holds it and who waits. Answer: box.
struct BoxRequest {
  std::string user;  // claimed: honoured on the local box alone; so below
  std::string scope;
};
// Who is attached to which sandbox. Answer: sessions.
struct SessionsRequest {
  std::string user;
};
// Reserves the whole box for this user (with a scope: for this CI job alone) until it is unlocked.
// On the disk before the answer: user_locked, or refused (locked) when it is somebody else's.
struct UserLockRequest {
  std::string reason;
  std::string user;
  std::string scope;
};
// Answer: user_unlocked, also when it was not locked; refused (locked) when it is somebody else's
// and force is false.
struct UserUnlockRequest {
  bool force = false;  // though it is somebody else's: recorded, and its holder is told
  std::string user;
  std::string scope;
};
// Detached jobs: all of the caller's, and those of others that run. Answer: jobs.
struct JobsRequest {
  std::string user;
};
// Ends a detached job and all its processes, or all of the caller's; with force, of everybody's.
// Never waits for a lock.
// Answer, when they are reaped: killed, or failed (not_found; denied: somebody else's).
struct Kill {
  std::string job;  // an id, or the only one that begins so (4 characters or more)
  bool all = false;
  std::string signal;  // the first that it gets; empty: INT. TERM and KILL follow as always
  bool force = false;  // others' too: recorded, and they are told
  std::string user;
};

// ---- client to agent, steps of one request (the frame's request number) ---------------------
// Order: [lock_requested] [sync_start pack* sync_end] [exec] [lock_released]. All may be sent
// ahead.

struct LockRequested {
  std::string verb;
  std::string command;
  std::int64_t wait_seconds = -1;  // -1: without limit; 0: refuse at once
  bool force = false;
  std::string user;  // of a session that is not bound, which asks for the whole box: as in bind
  std::string scope;
};
// Gives the lock back when all earlier steps of the request have ended. Before that, the result is
// taken. Answer: result or unchanged (when there was a sync or exec), then released.
struct LockReleased {};

// Everything that is needed to make the workspace equal a snapshot. Pack bytes follow as `pack`
// frames of the same request, ended by an empty one (always sent, also when nothing is needed),
// then sync_end. Answer: applied, missing, stale or failed.
struct SyncStart {
  std::string snapshot;  // commit id
  std::string base;      // commit the pack was made against; empty: from nothing
  std::string merged;    // last result of this origin that this client has merged; empty: none
  std::string head;      // HEAD's commit; empty on an unborn branch or without git
  std::string staged;    // commit whose tree is the index; empty: same as head's tree
  std::string branch;    // refs/heads/x, or empty when detached or without git
  std::string object_format = "sha1";
  bool git = true;                   // false: a work tree without git; the workspace gets no .git
  std::vector<std::string> shallow;  // commits whose parents are not sent
  std::vector<Ref> refs;    // branch, upstream, origin/HEAD's target ... as they are to exist there
  std::string upstream;     // refs/remotes/origin/x that branch tracks, or empty
  std::string remote_head;  // refs/remotes/origin/x that origin/HEAD points to, or empty
  std::string excludes;     // ignore rules outside the tree: info/exclude and core.excludesFile
  std::vector<std::string> includes;  // sync.include: ignored paths that are carried all the same
};
struct SyncEnd {};

struct Exec {
  std::vector<std::string> argv;  // empty: the login shell, interactive when a terminal is given
  std::string script;             // when not empty: run by `shell -c`, argv are its arguments
  std::map<std::string, std::string> env;
  std::string cwd;       // relative to the workspace root; empty: the root
  bool make_cwd = true;  // false: failed (bad_input) when it is not there
  std::string shell;     // absolute path; empty: /bin/sh
  std::optional<Terminal> terminal;
  bool interactive_input = true;  // false: stdin is /dev/null
  // The command runs on without its client: it takes over the session's lock and keeps it until all
  // its processes are gone; stdin is /dev/null. Answer: detached, then nothing more under this
  // request; attach shows its output.
  bool detach = false;
};
// To the job of this request.
struct Signal {
  std::string name;    // INT, TERM, HUP, QUIT, USR1 ...: without SIG
  std::string stream;  // with PIPE: "output" or "error", which nobody reads any more
};
struct Window {
  std::uint16_t rows = 24;
  std::uint16_t columns = 80;
};

// The origin has this result (and all before it) on its disk. No answer.
struct Merged {
  std::string result;
};
// Asks for the latest result of this origin that it has not merged. Needs no lock and takes no new
// result. Answer: result or unchanged.
struct Pull {
  std::string merged;  // last one this client has
  // What the pack would build on is not all here any more: everything that the result reaches.
  bool whole = false;
};

// ---- agent to client ------------------------------------------------------------------------

struct Bound {
  std::string sandbox;
  std::string state;  // starting, ready
  std::string agent;  // the agent's id
  std::int64_t ttl_seconds = 0;
  bool fresh = false;     // nothing was ever synced into it
  std::string isolation;  // what it runs in: bwrap or none; empty: an older agent does not say
};
struct Info {
  std::string agent;  // id, made once per state directory
  std::string name;   // --name
  std::string version;
  std::string user;  // who the key says you are
  std::uint32_t protocol = 0;
  std::int64_t ttl_seconds = 0;
};
struct SandboxInfo {
  std::string sandbox;
  std::string user;
  std::string project;
  std::string branch;
  std::string config;
  std::string state;
  std::string created_at;  // RFC 3339, UTC
  std::string used_at;
  std::vector<Holder> holders;
  std::int64_t waiting = 0;
  bool active = false;           // somebody is attached to it, or something runs in it
  std::int64_t size_bytes = -1;  // on the box's disk; -1: not asked for
};
struct Sandboxes {
  std::vector<SandboxInfo> sandboxes;
};
struct Reclaimed {
  std::int64_t removals = 0;  // that had been cut off, and are finished now or soon
};
struct JobInfo {
  std::string job;
  std::string command;
  std::string state;  // running, exited, resident
  std::int64_t pid = 0;
  std::string started_at;
  std::optional<int> status;
  std::string signal;
  bool detached = false;
  std::string fence;  // of the lock it runs under; empty: of none, or an older supervisor
};
struct Status {
  SandboxInfo sandbox;
  std::vector<Holder> queue;
  std::vector<JobInfo> jobs;
  std::string snapshot;
  bool unmerged = false;  // a result of this origin waits to be merged
};
// In line. Sent again when the place changes. Whatever was sent ahead of it in this request is
// dropped and answered skipped; after `granted` the client sends its steps anew under a new request
// number.
struct Queued {
  std::int64_t position = 0;  // 1: next
  std::vector<Holder> holders;
};
struct Granted {
  std::string fence;  // "epoch.counter"
  std::int64_t ttl_seconds = 0;
  bool queued = false;           // was in line: send the steps again
  std::vector<Holder> bypassed;  // forced over these
  // Another holder is in the same sandbox: nothing is synced into it under that one's feet. A sync
  // under this lock is answered skipped, and what follows it is done all the same.
  bool shared = false;
};
struct Refused {
  std::string why;  // busy, locked, expired (the wait budget ran out), queue_full
  std::string box;
  std::vector<Holder> holders;
  std::string since;   // user lock: RFC 3339
  std::string reason;  // user lock: text
};
struct Applied {
  std::string snapshot;
  std::string drift;                 // ref under which drifted content is kept; empty: none
  std::vector<std::string> drifted;  // its paths, at most 100
  std::vector<LeftOut> left_out;
};
// The base is not on the box: send again from one of these (may be empty: from nothing). The lock
// is kept.
struct Missing {
  std::vector<std::string> have;
};
// The box has a later result of this origin: it follows as `result`, with its pack, under this
// request. Nothing was applied, the lock is kept; merge it, snapshot again and send the steps again
// under a new request number.
struct Stale {
  std::string result;
};
struct Started {
  std::string job;
  std::int64_t pid = 0;
};
// The job has the lock now, and this is on the disk: its client may go.
struct Detached {
  std::string job;  // 32 hex digits, unique across boxes
};
struct Exited {
  int status = 0;      // 0..255 when it exited
  std::string signal;  // "KILL" when a signal ended it; empty otherwise
  bool core_dumped = false;
  bool oom = false;  // while it ran, a process of the sandbox was killed for want of memory
  std::vector<std::string> leftovers;  // what it left behind and was ended: "sleep (pid 12)"
};
// What the box holds for this origin. Its pack follows as result_pack frames of the same request,
// ended by an empty one.
struct Result {
  std::string result;  // commit id; its first parent is `base`
  std::string base;    // the snapshot it grew from
  // What was made there and is no file. refs/heads/x and HEAD: commits of branches that moved;
  // refs/tags/x: a commit, or an annotated tag; refs/stash/OID: a stash, each of them for itself;
  // refs/drift/x: what a sync found changed by others, until its origin has merged this result.
  // Their objects are in the pack, and what is a commit is a parent of the result.
  std::vector<Ref> commits;
  std::vector<LeftOut> left_out;
  std::vector<std::string> shallow = {};  // in a whole pack: commits whose parents are not in it
};
struct Unchanged {};  // no unmerged result
struct Released {};
struct Ended {};
// The step was not done, because an earlier one of its request was not.
struct Skipped {
  std::string step;
};
// The step failed; later ones of the request are skipped, and the lock goes back.
struct Failed {
  std::string step;
  std::string code;  // an Errc word
  std::string message;
};
// For people: one line, shown on stderr.
struct Notice {
  std::string text;
};
struct Box {
  std::string agent;  // as in info, down to user
  std::string name;
  std::string version;
  std::uint32_t protocol = 0;
  std::string user;
  std::int64_t slots = 0;  // 0: no limit
  std::int64_t ttl_seconds = 0;
  std::string isolation;
  std::optional<UserLockInfo> user_lock;
  std::vector<Holder> holders;
  std::vector<Holder> waiting;  // first first; held_seconds says how long they have waited
  std::int64_t sandboxes = 0;   // everybody's
  std::int64_t sessions = 0;    // that are bound
  std::int64_t jobs = 0;        // detached ones that run
  std::string limits;  // of a "sandbox" as a whole or of each "command"; empty: it does not say
};
struct Sessions {
  std::vector<SessionInfo> sessions;
};
struct UserLocked {
  UserLockInfo lock;
  bool taken = false;  // false: it was the caller's already, and is as it was
};
struct UserUnlocked {
  std::optional<UserLockInfo> was;  // null: it was not locked
};
struct Jobs {
  std::vector<DetachedJob> jobs;  // oldest first
};
struct Killed {
  std::vector<std::string> jobs;  // those that ran
};

// ---- agent to supervisor, besides the steps above --------------------------------------------

// First frame on a supervisor connection. Answer: hello back.
struct Hello {
  std::string origin;
  std::string user;
  std::string fence;
  std::string version;
  std::int64_t epoch = 0;     // the agent's, which grows at each of its starts; 0: not said
  std::string connection;     // a name that it gave this one, for end_job; empty: none
  std::int64_t pid = 0;       // in the answer: the supervisor's
  std::vector<JobInfo> jobs;  // in the answer: running ones
};
// The client of this connection is gone: end its job (INT, TERM, KILL), take its result. Answer:
// ended, then close.
struct Hangup {};
// End one job, whoever started it. Answer: ended, once it is reaped and its result is taken.
struct EndJob {
  std::string job;  // empty: none but the connection's
  // Empty: as a hang-up does. Else its first signal, and what has left its process session ends,
  // too.
  std::string signal;
  // An earlier connection of that name, which broke: nothing that came on it begins any more, and
  // what it began ends with the job.
  std::string connection = {};
};
// The detached job of this request is on its own from here on: it does not end with the connection.
// No answer.
struct Detach {};
// Answer: exited, once the job is reaped and its result is taken; also of one that ended long ago.
// failed (not_found; gone: how it ended was not recorded).
struct WatchJob {
  std::string job;
};
// All output of a job from its first byte, then live: started, output and error, exited; or failed.
// Streams under credit as exec's. Also client to agent, bound or not: a detached job of the caller.
struct Attach {
  std::string job;   // from a client: also the only id that begins so (4 characters or more)
  std::string user;  // from a client: claimed
};
// Connects to a port on the sandbox's loopback; input and output frames then carry the connection.
// Answer: started or failed.
struct Dial {
  std::uint16_t port = 0;
};
// End everything and exit. Answer: ended.
struct Shutdown {};
// What would be lost with the sandbox? Looks at the workspace first, so that changes of which
// nobody took a result count, too. Answer: unpulled or failed.
struct UnpulledRequest {};
struct Unpulled {
  std::int64_t results = 0;          // that their origins have not merged
  std::vector<std::string> files;    // that they change, at most 100
  std::vector<std::string> commits;  // branches that moved in the sandbox
  std::int64_t drifts = 0;           // refs that keep what a sync found changed by others
};

// ---- on the agent's unix socket ---------------------------------------------------------------

// The first frame, in the place of the exec request of the same name. Answer: info.
struct SessionStart {
  std::uint32_t version = 0;
};

using Message =
    std::variant<Bind, Create, Ready, End, Heartbeat, InfoRequest, ListRequest, StatusRequest,
                 BoxRequest, SessionsRequest, UserLockRequest, UserUnlockRequest, JobsRequest, Kill,
                 LockRequested, LockReleased, SyncStart, SyncEnd, Exec, Signal, Window, Merged,
                 Pull, Bound, Info, Sandboxes, Status, Queued, Granted, Refused, Applied, Missing,
                 Stale, Started, Exited, Result, Unchanged, Released, Ended, Skipped, Failed,
                 Notice, Detached, Box, Sessions, UserLocked, UserUnlocked, Jobs, Killed, Hello,
                 Hangup, EndJob, Detach, WatchJob, Attach, Dial, Shutdown, SessionStart, Reclaim,
                 Reclaimed, UnpulledRequest, Unpulled>;

// Payload of a control frame, never longer than kMaxControlBytes: of what a sync left out the list
// is cut (kMaxListedBytes), its last entry saying how many more there are; any other message that
// does not fit becomes `failed` with its name as the step, and too_large.
std::string encode(const Message& message);
// Errc::unsupported for a name that is not known, Errc::bad_input for the rest (the text names the
// message and member).
result<Message> decode(std::string_view payload);
// "sync_start": the message's name, for traces, `skipped` and `failed`. Directives have their
// __rwx_sandbox_…__ name.
std::string_view message_name(const Message& message);

}  // namespace protocol::wire
