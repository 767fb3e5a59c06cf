// The client's side of a request: sends lock, sync, exec and release in one flight and deals with
// every way that the agent may answer: in line (snapshot again when granted), stale (merge the
// newer result, snapshot again), missing (send again from what the box has), refused, failed; then
// merges the result. Order of messages: protocol/WIRE.md, "Steps of a request".
#pragma once

#include <boost/asio/thread_pool.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command_streams.h"
#include "cli/output.h"
#include "cli/prepared.h"
#include "cli/session.h"
#include "protocol/sync/origin.h"

namespace cli {

struct Cycle {
  std::optional<protocol::wire::LockRequested> lock;  // std::nullopt: the session has it already
  std::optional<Prepared> prepared;  // of a snapshot that was begun earlier; else it is taken now
  std::optional<protocol::wire::Exec> exec;
  CommandStreams* streams = nullptr;  // needed with exec; lives until run() returns
  // Several commands under one lock: the first run has the lock and the sync, the last one the
  // release, which brings what all of them changed.
  bool sync = true;     // false: the work tree is there
  bool release = true;  // false: the session keeps the lock when the command has ended
};

struct CycleOutcome {
  std::optional<protocol::wire::Refused> refused;  // nothing was done
  std::optional<protocol::wire::Failed> failed;
  std::optional<protocol::wire::Exited> exited;
  protocol::wire::Granted granted;
  protocol::wire::Applied applied;
  std::string job;                                // that runs on by itself, detached; empty: none
  std::string snapshot;                           // what ran
  std::vector<protocol::wire::LeftOut> left_out;  // by the snapshot and by the box
  protocol::sync::MergeReport merged;             // of all results that came back
  std::string not_merged;    // why a result could not be brought back; empty: it could
  bool wants_whole = false;  // that was because of objects that its pack builds on
  std::string output_lost;  // why the command's output could not all be written here; empty: it was

  bool not_synced = false;  // forced into a sandbox where another command runs: it ran on what was
                            // there

  bool all_brought_back() const { return not_merged.empty() && merged.complete(); }
};

// Adds what a second run or pull did to what a first one did.
void append(protocol::sync::MergeReport& all, protocol::sync::MergeReport one);

// bind or create was answered with failed, or the sandbox was ended before anything ran: code
// `gone`.
struct BindFailed : std::runtime_error {
  explicit BindFailed(protocol::wire::Failed failure)
      : std::runtime_error(failure.message), failed(std::move(failure)) {}
  protocol::wire::Failed failed;
};

class SessionClient {
 public:
  SessionClient(protocol::os::executor executor, boost::asio::thread_pool& pool,
                std::unique_ptr<Session> session, Output& output);
  ~SessionClient();  // closes the session
  SessionClient(const SessionClient&) = delete;
  SessionClient& operator=(const SessionClient&) = delete;

  // Sends bind or create, without waiting for the answer: it is looked at by whatever is called
  // next.
  void bind(const protocol::wire::Bind& bind);
  void create(const protocol::wire::Create& create);
  // Returns when bind or create was answered. Throws BindFailed.
  protocol::os::awaitable<protocol::wire::Bound> bound();
  // Called with each answer to bind or create before anything else is done; may throw.
  void on_bound(std::function<void(const protocol::wire::Bound&)> check) {
    check_bound_ = std::move(check);
  }

  // A request on the session itself and its one answer, which may be `failed`.
  protocol::os::awaitable<protocol::wire::Message> ask(const protocol::wire::Message& question);

  // One request from lock to release. Throws UserError when the connection is lost or this end
  // cannot go on, BindFailed when the sandbox is not there. Once the command has ended its status
  // stands: whatever fails after that is `not_merged`.
  protocol::os::awaitable<CycleOutcome> run(std::shared_ptr<protocol::sync::Origin> origin,
                                            Cycle cycle);
  // Brings unmerged results, and what of merged ones could not be written, without the lock. A
  // result whose pack builds on objects that are not here any more is asked for once more, whole.
  protocol::os::awaitable<CycleOutcome> pull(std::shared_ptr<protocol::sync::Origin> origin);
  // Takes the lock alone and keeps it: the next run() goes on under it without asking.
  // std::nullopt: granted.
  protocol::os::awaitable<std::optional<protocol::wire::Refused>> lock(
      const protocol::wire::LockRequested& lock);
  // Gives it back. Requires that lock() was granted and nothing was done under it.
  protocol::os::awaitable<void> release();

  // To the running command; nothing when none runs.
  void signal(const std::string& name);
  void window(std::uint16_t rows, std::uint16_t columns);
  enum class Phase { before, waiting, running, after };
  Phase phase() const { return phase_; }

  Session& session() { return *session_; }
  // Lives as long as this, or until it is let go.
  void keep(std::shared_ptr<void> held) { held_ = std::move(held); }
  void let_go() { held_.reset(); }
  const std::string& sandbox() const { return sandbox_; }
  protocol::os::awaitable<void> finish();

 private:
  struct Flight;  // flight.cc: what one run() has in the air

  protocol::os::awaitable<void> fly(Flight& flight);
  protocol::os::awaitable<void> take(Flight& flight, const protocol::wire::Message& message);
  protocol::os::awaitable<void> send_again(Flight& flight);
  void begin_steps(Flight& flight, std::vector<std::string> haves);
  void start_streams(Flight& flight);
  void unwritable(Flight& flight, protocol::wire::FrameKind stream,
                  const protocol::wire::Failure& why);
  protocol::os::awaitable<Prepared> prepare_again(std::shared_ptr<protocol::sync::Origin> origin);

  // Adds to the outcome, of which it takes `wants_whole`.
  protocol::os::awaitable<void> pull_into(std::shared_ptr<protocol::sync::Origin> origin,
                                          CycleOutcome& outcome);
  void on_session_message(const protocol::wire::Message& message);
  void warn_of_bypassed();  // in spite of whose locks ours was granted
  protocol::os::awaitable<void> receive(std::shared_ptr<protocol::sync::Origin> origin,
                                        std::uint32_t request, protocol::wire::Result result,
                                        CycleOutcome& outcome);

  protocol::os::executor executor_;
  boost::asio::thread_pool& pool_;
  std::shared_ptr<Session> session_;
  Output& output_;
  std::string sandbox_;
  std::optional<protocol::wire::Bound> bound_;
  protocol::wire::Granted granted_;  // the lock that it has, or had last
  std::function<void(const protocol::wire::Bound&)> check_bound_;
  std::shared_ptr<void> held_;
  std::uint32_t job_request_ = 0;  // 0: no command runs
  Phase phase_ = Phase::before;
};

}  // namespace cli
