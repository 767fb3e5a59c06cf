// The bookkeeping of one session's requests: which steps may go to the supervisor, which are
// skipped, and when the command lock goes back. Pure: it is told what passed in either direction
// and answers what to do about it. It knows neither the lock table nor any connection. Rules:
// protocol/WIRE.md, "Steps of a request".
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "protocol/wire/frames.h"
#include "protocol/wire/messages.h"

namespace agent {

enum class Step { sync, exec, pull, release };

class Steps {
 public:
  enum class Action {
    forward,    // to the supervisor, on the connection of Verdict::grant
    ask,        // the lock table
    give_back,  // whatever this session holds or waits for; then answer released
    skip,       // answer skipped with this step
    drop,       // say nothing: it belongs to a step that was skipped
    refuse      // answer failed with `code` and `why`
  };
  struct Verdict {
    Action action = Action::drop;
    std::uint64_t grant = 0;  // counts this session's locks; 0: without a lock
    protocol::wire::Errc code = protocol::wire::Errc::refused;
    std::string why;
  };

  // A frame from the client for a request that is not 0. A message that is no step is refused.
  Verdict from_client(std::uint32_t request, const protocol::wire::Message& message);
  Verdict from_client(std::uint32_t request,
                      protocol::wire::FrameKind kind);  // pack, input, credit

  // The present or last one.
  std::uint64_t grant() const { return grant_; }

  // What the lock table said to the last Action::ask. After queued() comes granted() or refused().
  // `shared`: another holder is in the sandbox, and nothing may be synced into it.
  void granted(bool shared = false);
  void queued();
  void refused();
  // The lock goes back once all that ran under it is reaped: it is held until freed(), and nothing
  // more begins under it.
  void giving_back() { giving_back_ = true; }
  // The lock is no longer this session's.
  void freed();
  // It is the job's that this request's exec started.
  void detached(std::uint32_t request);

  enum class Effect {
    none,
    release,  // the result has passed: the lock goes back, then released is sent
    failed,   // a step under the lock failed: the lock goes back, then released is sent
    detach    // a job that is to be detached has started: not relayed
  };
  // A message from the supervisor for this request, relayed to the client (but for detach) before
  // the effect is acted upon.
  Effect from_supervisor(std::uint32_t request, const protocol::wire::Message& message);

  bool knows(std::uint32_t request) const { return requests_.count(request) != 0; }
  bool holds() const { return lock_ == Lock::held; }
  bool waits() const { return lock_ == Lock::queued; }
  std::uint32_t lock_request() const { return lock_request_; }  // of the last ask
  // Whether the supervisor still owes answers to steps under the present lock.
  bool busy() const;
  bool busy_besides(std::uint32_t request) const;
  // Whether a command ran under the present lock and its result has not been taken since.
  bool owes_result() const { return lock_ == Lock::held && ran_; }
  // Steps without an answer, oldest request first: what to answer when the supervisor is gone.
  struct Outstanding {
    std::uint32_t request;
    Step step;
    bool skipped;  // an earlier step of its request has failed already
  };
  std::vector<Outstanding> outstanding(std::uint64_t grant) const;
  // They were answered, and what else their requests bring is dropped.
  void forget_outstanding(std::uint64_t grant);

 private:
  enum class Lock { none, asked, queued, held };
  struct Request {
    std::deque<Step> pending;
    bool skipping = false;    // later steps are not done
    std::uint64_t grant = 0;  // under which something of it went to the supervisor
    bool forwarded = false;   // something did
    bool sync_open = false;   // sync_start was forwarded, sync_end was not yet
    bool exec_forwarded = false;
    bool detach = false;        // its exec is to be detached: no step comes after it
    bool stale_result = false;  // the result that follows `stale` is still to come
  };

  Verdict step(std::uint32_t number, Request& request, Step step);
  bool under_lock() const {
    return lock_ == Lock::held && !releasing_ && !giving_back_ && !detaching_;
  }
  Request* find(std::uint32_t number);
  std::size_t pending_steps() const;

  std::map<std::uint32_t, Request> requests_;
  Lock lock_ = Lock::none;
  std::uint32_t lock_request_ = 0;
  std::uint64_t grant_ = 0;
  bool shared_ = false;
  bool detaching_ = false;  // an exec that is to be detached went to the supervisor
  bool giving_back_ = false;
  bool worked_ = false;  // something went to the supervisor under this lock
  bool ran_ = false;     // a command began under this lock, after the last result
  std::optional<std::uint32_t>
      releasing_;  // the request whose lock_released went to the supervisor
};

const char* step_name(Step step);  // as message_name() of the message that starts it

}  // namespace agent
