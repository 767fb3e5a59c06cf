#include "agent/session.h"

#include <algorithm>
#include <boost/json.hpp>
#include <set>

#include "agent/channel_stream.h"
#include "agent/deadline.h"
#include "agent/lifetime.h"
#include "agent/locks.h"
#include "agent/log.h"
#include "agent/relay.h"
#include "agent/sandboxes.h"
#include "agent/steps.h"
#include "protocol/os/frame_stream.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace agent {
namespace {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;
using wire::Frame;
using wire::FrameKind;
using wire::Message;

// What peers that keep to their credit never have queued: pack, input, output, error and result
// pack of one request in full.
constexpr std::size_t kMaxRelayBytes = 6 * std::size_t{wire::kFullCredit};
constexpr std::size_t kMaxStatusRequests = 64;  // unanswered
constexpr std::chrono::seconds kLastWords{
    5};  // for what a client is told before its channel closes

bool is_text(const std::string& text, std::size_t limit) {
  return text.size() <= limit && text.find('\0') == std::string::npos;
}

// Messages that a supervisor may say to a client.
bool is_for_client(const Message& message) {
  return std::holds_alternative<wire::Applied>(message) ||
         std::holds_alternative<wire::Missing>(message) ||
         std::holds_alternative<wire::Stale>(message) ||
         std::holds_alternative<wire::Started>(message) ||
         std::holds_alternative<wire::Exited>(message) ||
         std::holds_alternative<wire::Result>(message) ||
         std::holds_alternative<wire::Unchanged>(message) ||
         std::holds_alternative<wire::Skipped>(message) ||
         std::holds_alternative<wire::Failed>(message) ||
         std::holds_alternative<wire::Notice>(message);
}

result<void> check_version(const std::string& argument) {
  boost::system::error_code error;
  auto value = boost::json::parse(argument, error);
  const auto* object = value.if_object();
  if (error || object == nullptr) {
    return Failure(Errc::bad_input, "the session directive takes {\"version\":1}");
  }
  const auto* version = object->if_contains("version");
  if (version == nullptr || !version->is_int64() ||
      version->as_int64() != std::int64_t{wire::kProtocolVersion}) {
    return Failure(Errc::unsupported, "this agent speaks version " +
                                          std::to_string(wire::kProtocolVersion) +
                                          " of the session protocol");
  }
  return {};
}

class Session : public LockClient, public std::enable_shared_from_this<Session> {
 public:
  Session(Services& services, std::shared_ptr<protocol::ssh::ServerChannel> channel,
          std::string user)
      : services_(services),
        user_(std::move(user)),
        client_(services.executor, std::make_unique<ChannelStream>(channel)),
        owner_(services.locks, *this),
        enlisted_(
            services.lifetime, [this] { stop(); }, false) {
    client_.set_relay_credit(true);
  }

  awaitable<void> run(std::string argument);

  void lock_granted(const wire::Granted& granted) override;
  void lock_queued(const wire::Queued& queued) override;
  void lock_refused(const wire::Refused& refused) override;
  void lock_lapsed() override;
  void lock_bypassed(const wire::Holder& by) override;

 private:
  // Frames from the client.
  awaitable<void> on_frame(Frame frame);
  awaitable<void> on_session_message(const Message& message);
  void on_step(Message message, Frame frame);
  void act(const Steps::Verdict& verdict, Frame frame, const Message* message);
  awaitable<void> on_create(wire::Create create);
  awaitable<void> on_bind(wire::Bind bind);
  awaitable<void> on_ready();
  awaitable<void> on_end(wire::End end);
  void on_list(const wire::ListRequest& list);
  void on_status(std::uint32_t request);
  void bind_to(const Sandbox& sandbox, const std::string& user, const std::string& origin);

  // Frames from the supervisor.
  awaitable<void> on_supervisor_frame(std::uint64_t grant, Frame frame);
  void on_supervisor_message(std::uint64_t grant, Frame frame);
  void on_supervisor_gone(std::uint64_t grant, const Failure& failure);
  std::shared_ptr<Relay> relay(std::uint64_t grant);
  void forward(std::uint64_t grant, Frame frame);

  void close_idle_relays();
  static awaitable<void> finish_relay(std::shared_ptr<Relay> relay) { co_await relay->finish(); }

  void give_back(std::uint32_t request);
  static awaitable<void> hang_up_and_give_back(std::shared_ptr<Session> self,
                                               std::shared_ptr<Relay> relay, std::uint64_t grant,
                                               std::uint32_t request);
  awaitable<void> wind_up();
  // The name that counts for a claimed one; Errc::bad_input.
  result<std::string> user_for(const std::string& claimed) const;
  wire::SandboxInfo info_of(const Sandbox& sandbox) const;
  wire::Bound bound(const Sandbox& sandbox) const;

  void fail(std::uint32_t request, std::string_view step, const Failure& failure) {
    client_.send(request, wire::Failed{std::string(step), wire::name(failure.code), failure.what});
  }
  // The agent stops: a session that holds the lock may go on for a while, the others end.
  void stop() {
    if (!steps_.holds()) {
      end_with(Failure(Errc::gone, "the agent is stopping"));
    }
  }
  // Says why, and ends the session: what is queued is still written.
  void end_with(const Failure& failure) {
    fail(0, "session", failure);
    ending_ = true;
    os::spawn(services_.executor, "session end", close_client(shared_from_this()));
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
  std::string user_;  // whom the key names, then whose sandbox is bound
  os::FrameStream client_;
  OwnLock owner_;
  Lifetime::Enlisted enlisted_;
  Steps steps_;
  std::string sandbox_;  // empty: not bound
  std::string origin_;
  std::string fence_;
  std::unique_ptr<Sandboxes::Use> use_;
  std::map<std::uint64_t, std::shared_ptr<Relay>> relays_;  // by grant; 0 is without a lock
  std::map<std::uint64_t, int> results_open_;  // by grant: results whose pack has not yet ended
  std::set<std::uint32_t> status_requests_;
  bool ending_ = false;  // nothing more is relayed, and nothing given back before the job is reaped
};

awaitable<void> Session::run(std::string argument) {
  auto self = shared_from_this();
  if (auto version = check_version(argument); !version) {
    end_with(version.error());
  }
  while (!ending_) {
    auto frame = co_await client_.read();
    if (!frame) {
      if (frame.error().code != Errc::gone && !ending_) {
        log::peer("session_bad_frame", {{"user", user_}, {"error", frame.error().what}});
        fail(0, "session", frame.error());
      }
      break;
    }
    if (!*frame || ending_) {
      break;
    }
    services_.locks.active(owner_.id());
    co_await on_frame(std::move(**frame));
  }
  co_await wind_up();
}

// ---- frames from the client ------------------------------------------------------------------

awaitable<void> Session::on_frame(Frame frame) {
  if (frame.kind != FrameKind::control) {
    if (frame.kind == FrameKind::pack || frame.kind == FrameKind::input ||
        frame.kind == FrameKind::credit) {
      auto verdict = steps_.from_client(frame.request, frame.kind);
      act(verdict, std::move(frame), nullptr);
    } else {
      fail(frame.request, "frame",
           Failure(Errc::unsupported, "a client sends no frames of kind " +
                                          std::to_string(static_cast<int>(frame.kind))));
    }
    co_return;
  }
  auto message = wire::decode(frame.payload);
  if (!message) {
    fail(frame.request, "message", message.error());
    co_return;
  }
  if (std::holds_alternative<wire::StatusRequest>(*message)) {
    on_status(frame.request);
  } else if (frame.request == 0) {
    co_await on_session_message(*message);
  } else {
    on_step(std::move(*message), std::move(frame));
  }
}

awaitable<void> Session::on_session_message(const Message& message) {
  if (const auto* create = std::get_if<wire::Create>(&message)) {
    co_await on_create(*create);
  } else if (const auto* bind = std::get_if<wire::Bind>(&message)) {
    co_await on_bind(*bind);
  } else if (std::holds_alternative<wire::Ready>(message)) {
    co_await on_ready();
  } else if (const auto* end = std::get_if<wire::End>(&message)) {
    co_await on_end(*end);
  } else if (std::holds_alternative<wire::Heartbeat>(message)) {
    // Being read was its purpose.
  } else if (std::holds_alternative<wire::InfoRequest>(message)) {
    wire::Info info = services_.info;
    info.user = user_;
    client_.send(0, info);
  } else if (const auto* list = std::get_if<wire::ListRequest>(&message)) {
    on_list(*list);
  } else if (std::holds_alternative<wire::Merged>(message)) {
    if (!sandbox_.empty()) {
      auto last = relays_.empty() ? 0 : relays_.rbegin()->first;
      forward(last, {FrameKind::control, 0, wire::encode(message)});
    }
  } else {
    fail(0, wire::message_name(message),
         Failure(Errc::bad_input, "belongs to a request: send it with a number from 1"));
  }
}

result<std::string> Session::user_for(const std::string& claimed) const {
  if (!services_.trust_claimed_users || claimed.empty()) {
    return user_;
  }
  bool plain = std::none_of(claimed.begin(), claimed.end(),
                            [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (!plain || claimed.size() > wire::kMaxNameBytes) {
    return Failure(Errc::bad_input, "not a user name: " + wire::printable(claimed, 80));
  }
  return claimed;
}

awaitable<void> Session::on_create(wire::Create create) {
  auto user = user_for(create.user);
  Failure bad(Errc::bad_input, "");
  if (!user) {
    bad.what = user.error().what;
  } else if (!sandbox_.empty()) {
    bad = Failure(Errc::exists, "this session is bound to " + sandbox_);
  } else if (!is_sandbox_id(create.sandbox)) {
    bad.what = "a sandbox's id is 32 lower-case hex digits";
  } else if (!is_text(create.origin, wire::kMaxNameBytes)) {
    bad.what = "the origin is too long";
  } else if (!is_text(create.project, wire::kMaxTextBytes) ||
             !is_text(create.branch, wire::kMaxTextBytes) ||
             !is_text(create.config, wire::kMaxTextBytes)) {
    bad.what = "project, branch or config is too long";
  } else if (create.isolation != "none" && create.isolation != "auto") {
    bad = Failure(Errc::unsupported,
                  "this agent has no isolation " + wire::printable(create.isolation, 80));
  }
  if (!bad.what.empty()) {
    fail(0, "create", bad);
    co_return;
  }
  std::string origin = create.origin;
  auto made = co_await services_.sandboxes.create(std::move(create), *user);
  if (!made) {
    log::peer("sandbox_not_created", {{"user", *user}, {"error", made.error().what}});
    fail(0, "create", made.error());
    co_return;
  }
  bind_to(*made, *user, origin);
}

awaitable<void> Session::on_bind(wire::Bind bind) {
  auto user = user_for(bind.user);
  if (!user) {
    fail(0, "bind", user.error());
    co_return;
  }
  if (!sandbox_.empty()) {
    fail(0, "bind", Failure(Errc::exists, "this session is bound to " + sandbox_));
    co_return;
  }
  auto sandbox = services_.sandboxes.find(bind.sandbox, *user);
  if (!sandbox) {
    fail(0, "bind", Failure(Errc::not_found, "no sandbox " + wire::printable(bind.sandbox, 80)));
    co_return;
  }
  if (!is_text(bind.origin, wire::kMaxNameBytes)) {
    fail(0, "bind", Failure(Errc::bad_input, "the origin is too long"));
    co_return;
  }
  bind_to(*sandbox, *user, bind.origin);
}

void Session::bind_to(const Sandbox& sandbox, const std::string& user, const std::string& origin) {
  auto use = services_.sandboxes.use(
      sandbox.id, [this] { end_with(Failure(Errc::gone, "the sandbox was ended")); });
  if (!use) {
    fail(0, "bind", use.error());
    return;
  }
  use_ = std::move(*use);
  sandbox_ = sandbox.id;
  user_ = user;
  origin_ = origin;
  client_.send(0, bound(sandbox));
}

wire::Bound Session::bound(const Sandbox& sandbox) const {
  wire::Bound bound;
  bound.sandbox = sandbox.id;
  bound.state = sandbox.ready ? "ready" : "starting";
  bound.agent = services_.info.agent;
  bound.ttl_seconds = services_.info.ttl_seconds;
  bound.fresh = !sandbox.synced;
  return bound;
}

awaitable<void> Session::on_ready() {
  if (sandbox_.empty()) {
    fail(0, "ready", Failure(Errc::bad_input, "bind to a sandbox first"));
    co_return;
  }
  auto ready = co_await services_.sandboxes.set_ready(sandbox_);
  if (!ready) {
    fail(0, "ready", ready.error());
    co_return;
  }
  client_.send(0, bound(*ready));
}

awaitable<void> Session::on_end(wire::End end) {
  if (sandbox_.empty()) {
    fail(0, "end", Failure(Errc::bad_input, "bind to a sandbox first"));
    co_return;
  }
  auto holders = services_.locks.holders(sandbox_);
  if (!holders.empty() && !steps_.holds() && !end.force) {
    fail(0, "end",
         Failure(Errc::busy, holders.front().user + " runs " + holders.front().command + " in it"));
    co_return;
  }
  // Ours goes with the rest: the supervisor is told to end everything.
  use_.reset();
  auto removed = co_await services_.sandboxes.remove(sandbox_);
  if (!removed && removed.error().code != Errc::not_found) {
    fail(0, "end", removed.error());
    co_return;
  }
  sandbox_.clear();
  services_.locks.release(owner_.id());
  steps_.freed();
  client_.send(0, wire::Ended{});
}

wire::SandboxInfo Session::info_of(const Sandbox& sandbox) const {
  wire::SandboxInfo info = services_.sandboxes.info(sandbox);
  info.holders = services_.locks.holders(sandbox.id);
  info.waiting = static_cast<std::int64_t>(services_.locks.waiting(sandbox.id).size());
  return info;
}

void Session::on_list(const wire::ListRequest& list) {
  auto user = user_for(list.user);
  if (!user) {
    fail(0, "list_request", user.error());
    return;
  }
  wire::Sandboxes all;
  for (const Sandbox& sandbox : services_.sandboxes.of(*user)) {
    all.sandboxes.push_back(info_of(sandbox));
  }
  client_.send(0, all);
}

void Session::on_status(std::uint32_t request) {
  if (sandbox_.empty()) {
    fail(request, "status_request", Failure(Errc::bad_input, "bind to a sandbox first"));
    return;
  }
  if (status_requests_.size() >= kMaxStatusRequests) {
    fail(request, "status_request", Failure(Errc::too_large, "too many at once"));
    return;
  }
  status_requests_.insert(request);
  forward(0, {FrameKind::control, request, wire::encode(wire::StatusRequest{})});
}

void Session::forward(std::uint64_t grant, Frame frame) {
  auto to = relay(grant);
  to->forward(std::move(frame));
  if (to->queued_bytes() > kMaxRelayBytes) {
    end_with(Failure(Errc::too_large, "more was sent than there was credit for"));
  }
}

void Session::on_step(Message message, Frame frame) {
  if (sandbox_.empty()) {
    fail(frame.request, wire::message_name(message),
         Failure(Errc::bad_input, "bind to a sandbox first"));
    return;
  }
  auto verdict = steps_.from_client(frame.request, message);
  act(verdict, std::move(frame), &message);
}

void Session::act(const Steps::Verdict& verdict, Frame frame, const Message* message) {
  std::uint32_t request = frame.request;
  switch (verdict.action) {
    case Steps::Action::forward: {
      forward(verdict.grant, std::move(frame));
      break;
    }
    case Steps::Action::ask: {
      auto wanted = std::get<wire::LockRequested>(*message);
      wanted.verb = wire::printable(wanted.verb, wire::kMaxNameBytes);
      wanted.command = wire::printable(wanted.command, wire::kMaxTextBytes);
      services_.locks.request(owner_.id(), sandbox_, user_, wanted);
      break;
    }
    case Steps::Action::give_back:
      give_back(request);
      break;
    case Steps::Action::skip:
      client_.send(request, wire::Skipped{std::string(wire::message_name(*message))});
      break;
    case Steps::Action::drop:
      break;
    case Steps::Action::refuse:
      fail(request, message != nullptr ? wire::message_name(*message) : "frame",
           Failure(verdict.code, verdict.why));
      break;
  }
}

// ---- the lock --------------------------------------------------------------------------------

void Session::lock_granted(const wire::Granted& granted) {
  wire::Granted answer = granted;
  answer.queued = steps_.waits();
  answer.ttl_seconds = services_.info.ttl_seconds;
  fence_ = granted.fence;
  close_idle_relays();
  steps_.granted();
  client_.send(steps_.lock_request(), answer);
}

// Connections of earlier locks that owe the client nothing more.
void Session::close_idle_relays() {
  for (auto each = relays_.begin(); each != relays_.end();) {
    auto [grant, relay] = *each;
    if (grant == 0 || results_open_[grant] > 0 || !steps_.outstanding(grant).empty()) {
      ++each;
      continue;
    }
    results_open_.erase(grant);
    each = relays_.erase(each);
    os::spawn(services_.executor, "relay end", finish_relay(relay));
  }
}

void Session::lock_queued(const wire::Queued& queued) {
  steps_.queued();
  client_.send(steps_.lock_request(), queued);
}

void Session::lock_refused(const wire::Refused& refused) {
  steps_.refused();
  client_.send(steps_.lock_request(), refused);
}

void Session::lock_lapsed() {
  log::peer("lock_lapsed", {{"sandbox", sandbox_}, {"user", user_}});
  end_with(Failure(Errc::timed_out, "nothing was heard from this client for " +
                                        std::to_string(services_.info.ttl_seconds) +
                                        " s: its command was ended and its lock given back"));
}

void Session::lock_bypassed(const wire::Holder& by) {
  client_.send(0,
               wire::Notice{by.user + " was let in beside this command by force: " + by.command});
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
  co_await relay->hang_up();
  if (self->steps_.holds() && self->steps_.grant() == grant && !self->ending_) {
    self->give_back(request);
  }
}

// ---- frames from the supervisor --------------------------------------------------------------

std::shared_ptr<Relay> Session::relay(std::uint64_t grant) {
  auto& place = relays_[grant];
  if (!place) {
    place = std::make_shared<Relay>(services_.executor);
    wire::Hello hello;
    hello.origin = origin_;
    hello.user = user_;
    hello.fence = grant == 0 ? std::string() : fence_;
    hello.version = services_.info.version;
    auto self = shared_from_this();
    place->start(
        services_.supervisors, services_.sandboxes.directory(sandbox_), std::move(hello),
        [self, grant](Frame frame) { return self->on_supervisor_frame(grant, std::move(frame)); },
        [self, grant](const Failure& failure) { self->on_supervisor_gone(grant, failure); });
  }
  return place;
}

awaitable<void> Session::on_supervisor_frame(std::uint64_t grant, Frame frame) {
  auto self = shared_from_this();
  switch (frame.kind) {
    case FrameKind::control:
      on_supervisor_message(grant, std::move(frame));
      break;
    case FrameKind::result_pack:
      if (frame.payload.empty()) {
        --results_open_[grant];
      }
      [[fallthrough]];
    case FrameKind::output:
    case FrameKind::error:
    case FrameKind::credit:
      client_.forward(std::move(frame));
      break;
    default:
      log::peer("supervisor_bad_frame", {{"sandbox", sandbox_}});
      break;
  }
  if (client_.queued_bytes() > kMaxRelayBytes) {
    co_await client_.drained(kMaxRelayBytes / 2);
  }
}

void Session::on_supervisor_message(std::uint64_t grant, Frame frame) {
  auto message = wire::decode(frame.payload);
  if (!message) {
    log::peer("supervisor_bad_message", {{"sandbox", sandbox_}, {"error", message.error().what}});
    return;
  }
  std::uint32_t request = frame.request;
  if (std::holds_alternative<wire::Ended>(*message)) {
    if (auto found = relays_.find(grant); found != relays_.end()) {
      found->second->ended();
    }
    return;
  }
  if (ending_) {
    return;
  }
  if (auto* status = std::get_if<wire::Status>(&*message)) {
    auto sandbox = services_.sandboxes.find(sandbox_, user_);
    if (status_requests_.erase(request) == 1 && sandbox) {
      status->sandbox = info_of(*sandbox);
      status->queue = services_.locks.waiting(sandbox_);
      client_.send(request, *status);
    }
    return;
  }
  if (!is_for_client(*message)) {
    log::peer("supervisor_bad_message",
              {{"sandbox", sandbox_}, {"name", std::string(wire::message_name(*message))}});
    return;
  }
  client_.forward(std::move(frame));
  if (std::holds_alternative<wire::Failed>(*message)) {
    status_requests_.erase(request);
  } else if (std::holds_alternative<wire::Result>(*message)) {
    ++results_open_[grant];
  } else if (std::holds_alternative<wire::Applied>(*message)) {
    services_.sandboxes.note_synced(sandbox_);
  }
  auto effect = steps_.from_supervisor(request, *message);
  if (effect == Steps::Effect::none) {
    return;
  }
  if (effect == Steps::Effect::failed && steps_.busy_besides(request)) {
    // Something else was sent ahead under this lock: it must not run on without it.
    os::spawn(services_.executor, "session hang-up",
              hang_up_and_give_back(shared_from_this(), relays_[grant], grant, request));
    return;
  }
  give_back(request);
}

void Session::on_supervisor_gone(std::uint64_t grant, const Failure& failure) {
  relays_.erase(grant);
  if (ending_) {
    return;
  }
  log::peer("supervisor_gone", {{"sandbox", sandbox_}, {"error", failure.what}});
  if (grant == 0) {
    for (std::uint32_t request : std::exchange(status_requests_, {})) {
      fail(request, "status_request", failure);
    }
  }
  auto owed = steps_.outstanding(grant);
  steps_.forget_outstanding(grant);
  std::set<std::uint32_t> failed;
  for (const auto& [request, step] : owed) {
    if (failed.insert(request).second) {
      fail(request, step_name(step), failure);
    } else {
      client_.send(request, wire::Skipped{step_name(step)});
    }
  }
  if (!owed.empty() && grant != 0 && steps_.holds() && steps_.grant() == grant) {
    give_back(owed.front().request);
  }
}

// ---- the end ---------------------------------------------------------------------------------

awaitable<void> Session::wind_up() {
  ending_ = true;
  services_.locks.gone(owner_.id());
  if (steps_.holds() && steps_.busy()) {
    auto found = relays_.find(steps_.grant());
    if (found != relays_.end()) {
      log::peer("client_vanished", {{"sandbox", sandbox_}, {"user", user_}});
      auto running = found->second;
      co_await running->hang_up();
    }
  }
  services_.locks.leave(owner_.id());
  // What a client said last (that it has merged) still has to arrive.
  auto relays = std::exchange(relays_, {});
  for (auto& [grant, each] : relays) {
    co_await each->finish();
  }
  use_.reset();
  if (client_.is_open()) {
    std::function<void()> cut = [this] { client_.close(); };
    co_await within(services_.executor, kLastWords, flush_client(shared_from_this()), cut);
  }
}

}  // namespace

awaitable<void> serve_session(Services& services,
                              std::shared_ptr<protocol::ssh::ServerChannel> channel,
                              std::string argument, std::string user) {
  auto session = std::make_shared<Session>(services, channel, std::move(user));
  channel->accept();
  co_await session->run(std::move(argument));
  auto ended = co_await channel->exit_status(0);
  (void)ended;  // a client that has gone needs none
}

}  // namespace agent
