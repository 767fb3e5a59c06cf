// What a session hears from the lock table, and how its lock goes back.
#include "agent/log.h"
#include "agent/session_state.h"
#include "agent/store.h"
#include "protocol/wire/scope.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;
using wire::Frame;
using wire::FrameKind;
using wire::Message;

void Session::lock_granted(const wire::Granted& granted) {
  wire::Granted answer = granted;
  answer.queued = steps_.waits();
  answer.ttl_seconds = services_.info.ttl_seconds;
  hide_others(answer.bypassed, user_);
  fence_ = granted.fence;
  job_.clear();
  close_idle_relays();
  steps_.granted(granted.shared);
  if (!granted.bypassed.empty()) {
    std::string over = asked_.command;
    for (const wire::Holder& holder : granted.bypassed) {
      over += (over == asked_.command ? ", over " : ", ") +
              wire::shown_user(holder.user, holder.scope) + " (" + holder.verb + ")";
    }
    services_.store.audit({services_.sandboxes.now(), user_, asked_.verb + " --force-command",
                           sandbox_, std::move(over)});
  }
  client_.send(steps_.lock_request(), answer);
}

void Session::lock_queued(const wire::Queued& queued) {
  steps_.queued();
  wire::Queued answer = queued;
  hide_others(answer.holders, user_);
  client_.send(steps_.lock_request(), answer);
}

void Session::lock_refused(const wire::Refused& refused) {
  steps_.refused();
  wire::Refused answer = refused;
  hide_others(answer.holders, user_);
  client_.send(steps_.lock_request(), answer);
}

void Session::lock_lapsed() {
  log::peer("lock_lapsed", {{"sandbox", sandbox_}, {"user", user_}});
  end_with(Failure(Errc::timed_out, "nothing was heard from this client for " +
                                        std::to_string(services_.info.ttl_seconds) +
                                        " s: its command was ended and its lock given back"));
}

void Session::lock_bypassed(const wire::Holder& by) {
  client_.send(0, wire::Notice{wire::shown_user(by.user, by.scope) +
                               " was let in beside this command by force: " + by.command});
}

void Session::give_back(std::uint32_t request) {
  services_.locks.release(owner_.id());
  steps_.freed();
  client_.send(request, wire::Released{});
  if (services_.lifetime.stopping() && results_open_.empty()) {
    stop();
  }
}

awaitable<void> Session::hang_up_and_give_back(std::shared_ptr<Session> self,
                                               std::shared_ptr<Relay> relay, std::uint64_t grant,
                                               std::uint32_t request) {
  bool reaped = co_await relay->hang_up();
  if (!reaped) {
    ++self->recovering_;
    co_await self->recover_command();
    --self->recovering_;
    self->changed_.notify();
  }
  if (self->steps_.holds() && self->steps_.grant() == grant && !self->ending_) {
    self->answer_outstanding(
        grant, Failure(Errc::cancelled, "an earlier step under the same lock has failed"));
    self->give_back(request);
  }
}

}  // namespace agent
