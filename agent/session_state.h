// One session at work, for the session's own sources: session.cc reads what its client says,
// session_sandbox.cc answers what is about sandboxes, session_lock.cc hears from the lock table,
// and session_relay.cc passes on what the sandbox's supervisor says.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "agent/deadline.h"
#include "agent/lifetime.h"
#include "agent/locks.h"
#include "agent/relay.h"
#include "agent/sandboxes.h"
#include "agent/services.h"
#include "agent/steps.h"
#include "agent/store.h"
#include "protocol/os/frame_stream.h"
#include "protocol/os/wakeup.h"

namespace agent {

inline constexpr std::chrono::seconds kLastWords{
    5};  // for what a client is told before its channel closes

class Session : public LockClient, public std::enable_shared_from_this<Session> {
 public:
  Session(Services& services, std::unique_ptr<protocol::os::ByteStream> stream, std::string user)
      : services_(services),
        user_(std::move(user)),
        client_(services.executor, std::move(stream)),
        owner_(services.locks, *this),
        enlisted_(
            services.lifetime, [this] { stop(); }, false),
        changed_(services.executor) {
    client_.set_relay_credit(true);
  }

  // Until the client has gone and nothing of it is left.
  awaitable<void> run();
  // As run(), but the client has first to say `session` with a version that we speak.
  awaitable<void> run_greeted();
  void refuse(const protocol::wire::Failure& why) { end_with(why); }

  void lock_granted(const protocol::wire::Granted& granted) override;
  void lock_queued(const protocol::wire::Queued& queued) override;
  void lock_refused(const protocol::wire::Refused& refused) override;
  void lock_lapsed() override;
  void lock_bypassed(const protocol::wire::Holder& by) override;

 private:
  // Frames from the client.
  awaitable<void> on_frame(protocol::wire::Frame frame);
  awaitable<void> on_session_message(const protocol::wire::Message& message);
  void on_step(protocol::wire::Message message, protocol::wire::Frame frame);
  void act(const Steps::Verdict& verdict, protocol::wire::Frame frame,
           const protocol::wire::Message* message);
  awaitable<void> on_create(protocol::wire::Create create);
  awaitable<void> on_bind(protocol::wire::Bind bind);
  awaitable<void> on_ready();
  awaitable<void> on_end(protocol::wire::End end);
  std::optional<protocol::wire::Refused> refused_by_commands() const;
  awaitable<void> on_end_if_idle(protocol::wire::End end);
  awaitable<void> on_list(protocol::wire::ListRequest list);
  void on_status(std::uint32_t request);
  awaitable<void> bind_to(Sandbox sandbox, std::string user, std::string scope, std::string origin);
  awaitable<result<std::unique_ptr<Sandboxes::Use>>> use_sandbox(std::string id, std::string user,
                                                                 std::string scope);

  // What is asked of the box, bound or not.
  awaitable<bool> on_box_message(std::uint32_t request, const protocol::wire::Message& message);
  void on_box(std::uint32_t request, const protocol::wire::BoxRequest& ask);
  void on_sessions(std::uint32_t request, const protocol::wire::SessionsRequest& ask);
  void on_kill(std::uint32_t request, protocol::wire::Kill kill, const std::string& user);
  static awaitable<void> kill(std::shared_ptr<Session> self, std::uint32_t request,
                              protocol::wire::Kill kill, std::string user);
  void tell_notices(const std::string& user);
  static awaitable<void> forget_told(std::shared_ptr<Session> self,
                                     std::vector<NoticeRecord> notices);

  // Output of detached jobs.
  void on_attach(std::uint32_t request, const protocol::wire::Attach& attach);
  awaitable<void> on_attached_frame(std::uint32_t request, protocol::wire::Frame frame);
  void end_attached(std::uint32_t request);

  // A job that goes on without this session.
  static awaitable<void> detach(std::shared_ptr<Session> self, std::uint64_t grant,
                                std::uint32_t request, std::string job);

  // Frames from the supervisor.
  awaitable<void> on_supervisor_frame(std::uint64_t grant, protocol::wire::Frame frame);
  void on_supervisor_message(std::uint64_t grant, protocol::wire::Frame frame);
  void result_ended(std::uint64_t grant, std::uint32_t request);
  void on_supervisor_gone(std::uint64_t grant, const protocol::wire::Failure& failure);
  // Answers the steps under that lock that will not be done any more: the oldest request of them.
  std::optional<std::uint32_t> answer_outstanding(std::uint64_t grant,
                                                  const protocol::wire::Failure& failure);
  std::shared_ptr<Relay> relay(std::uint64_t grant);
  void forward(std::uint64_t grant, protocol::wire::Frame frame);
  void forward(Relay& to, protocol::wire::Frame frame);  // or ends the session where it is too much

  void close_idle_relays();
  static awaitable<void> finish_relay(std::shared_ptr<Relay> relay) { co_await relay->finish(); }

  void give_back(std::uint32_t request);
  // Both need steps_.giving_back() before they are started: nothing may begin meanwhile.
  static awaitable<void> hang_up_and_give_back(std::shared_ptr<Session> self,
                                               std::shared_ptr<Relay> relay, std::uint64_t grant,
                                               std::uint32_t request);
  static awaitable<void> recover_and_give_back(std::shared_ptr<Session> self, std::uint64_t grant,
                                               std::uint32_t request);
  awaitable<void> recover_command();
  awaitable<void> wind_up();
  // Starts a coroutine that the session's end waits for.
  void begin(awaitable<void> work, const char* name);
  static awaitable<void> counted(std::shared_ptr<Session> self, awaitable<void> work);
  // The name that counts for a claimed one; Errc::bad_input.
  result<std::string> user_for(const std::string& claimed) const;
  // The scope that counts for a claimed one; Errc::bad_input.
  result<std::string> scope_for(const std::string& claimed) const;
  // Which sandboxes others hold is not for this user to see.
  static void hide_others(std::vector<protocol::wire::Holder>& holders, const std::string& user);
  protocol::wire::SandboxInfo info_of(const Sandbox& sandbox) const;
  protocol::wire::Bound bound(const Sandbox& sandbox) const;

  void fail(std::uint32_t request, std::string_view step, const protocol::wire::Failure& failure) {
    client_.send(request, protocol::wire::Failed{std::string(step),
                                                 protocol::wire::name(failure.code), failure.what});
  }
  // The agent stops: a session that holds the lock may go on for a while, the others end. So does
  // one that holds the whole box: it runs nothing, and may want just that.
  void stop() {
    if (!steps_.holds() || sandbox_.empty()) {
      end_with(protocol::wire::Failure(protocol::wire::Errc::gone, "the agent is stopping"));
    }
  }
  // Says why, and ends the session: what is queued is still written.
  void end_with(const protocol::wire::Failure& failure) {
    if (ending_) {
      return;
    }
    fail(0, "session", failure);
    ending_ = true;
    protocol::os::spawn(services_.executor, "session end", close_client(shared_from_this()));
  }
  static awaitable<void> close_client(std::shared_ptr<Session> self) {
    std::function<void()> cut = [self] { self->client_.close(); };
    co_await within(self->services_.executor, kLastWords, flush_client(self), cut);
    self->client_.close();
  }
  static awaitable<void> flush_client(std::shared_ptr<Session> self) {
    auto flushed = co_await self->client_.flush();
    (void)flushed;  // a client that has gone needs no last words
  }

  Services& services_;
  std::string user_;   // whom the key names, then whose sandbox is bound
  std::string scope_;  // which CI job of that user; empty: the person
  protocol::os::FrameStream client_;
  OwnLock owner_;
  Lifetime::Enlisted enlisted_;
  Steps steps_;
  std::string sandbox_;  // empty: not bound
  std::string origin_;
  std::string fence_;
  std::string job_;                      // the last that was started under the present lock
  protocol::wire::LockRequested asked_;  // last, of the lock table
  std::unique_ptr<Sandboxes::Use> use_;
  std::map<std::uint64_t, std::shared_ptr<Relay>> relays_;  // by grant; 0 is without a lock
  std::map<std::uint64_t, std::set<std::uint32_t>>
      results_open_;  // by grant: requests whose result's pack has not yet ended
  std::set<std::uint32_t> status_requests_;
  // A detached job whose output is shown.
  struct Attached {
    std::shared_ptr<Relay> relay;
    std::unique_ptr<Sandboxes::Use> use;
  };
  std::map<std::uint32_t, std::shared_ptr<Attached>> attached_;  // by request
  std::set<std::uint32_t> attach_requests_;                      // that were used for it
  std::size_t kills_ = 0;                                        // unanswered
  protocol::os::Wakeup changed_;                                 // of the two counts
  int recovering_ = 0;   // supervisors that were killed: what they ran is being ended
  int background_ = 0;   // coroutines of this session beside its reader
  bool lost_ = false;    // the supervisor went while the session ended, with steps under its lock
  bool ending_ = false;  // nothing more is relayed, and nothing given back before the job is reaped
};

}  // namespace agent
