#include "agent/session.h"

#include <boost/json.hpp>

#include "agent/channel_stream.h"
#include "agent/log.h"
#include "agent/session_state.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;
using wire::Frame;
using wire::FrameKind;
using wire::Message;

namespace {

result<void> check_version(std::int64_t version) {
  if (version != std::int64_t{wire::kProtocolVersion}) {
    bool older = version < std::int64_t{wire::kProtocolVersion};
    return Failure(Errc::unsupported,
                   "this agent speaks protocol " + std::to_string(wire::kProtocolVersion) +
                       ", the client " + std::to_string(version) + ": update " +
                       (older ? "sandbox where the client runs" : "the agent on the box"));
  }
  return {};
}

result<void> check_argument(const std::string& argument) {
  boost::system::error_code error;
  auto value = boost::json::parse(argument, error);
  const auto* object = value.if_object();
  if (error || object == nullptr) {
    return Failure(Errc::bad_input, "the session directive takes {\"version\":1}");
  }
  const auto* version = object->if_contains("version");
  if (version == nullptr || !version->is_int64()) {
    return Failure(Errc::bad_input, "the session directive names no version");
  }
  return check_version(version->as_int64());
}

}  // namespace

awaitable<void> Session::run() {
  auto self = shared_from_this();
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

awaitable<void> Session::run_greeted() {
  auto self = shared_from_this();
  auto frame = co_await client_.read();
  if (frame && *frame) {
    result<wire::Message> message = Failure(Errc::bad_input, "not a control frame");
    if ((*frame)->kind == FrameKind::control) {
      message = wire::decode((*frame)->payload);
    }
    const auto* start = message ? std::get_if<wire::SessionStart>(&*message) : nullptr;
    if (start == nullptr) {
      end_with(Failure(Errc::bad_input, "the first message here is session {\"version\":1}"));
    } else if (auto version = check_version(start->version); !version) {
      end_with(version.error());
    } else {
      wire::Info info = services_.info;
      info.user = user_;
      client_.send(0, info);
    }
  }
  co_await run();
}

awaitable<void> Session::on_frame(Frame frame) {
  if (frame.kind != FrameKind::control) {
    if (auto attached = attached_.find(frame.request); attached != attached_.end()) {
      forward(*attached->second->relay, std::move(frame));
      co_return;
    }
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
  bool of_the_box = co_await on_box_message(frame.request, *message);
  if (of_the_box) {
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
    co_await on_list(*list);
  } else if (const auto* reclaim = std::get_if<wire::Reclaim>(&message)) {
    std::size_t removals = services_.sandboxes.reclaim(reclaim->dry_run);
    client_.send(0, wire::Reclaimed{static_cast<std::int64_t>(removals)});
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

void Session::on_step(Message message, Frame frame) {
  // Without a sandbox the lock is that of the whole box, and there is nothing to do under it.
  bool of_lock = std::holds_alternative<wire::LockRequested>(message) ||
                 std::holds_alternative<wire::LockReleased>(message);
  if (sandbox_.empty() && !of_lock) {
    fail(frame.request, wire::message_name(message),
         Failure(Errc::bad_input, "bind to a sandbox first"));
    return;
  }
  if (attach_requests_.count(frame.request) != 0) {
    fail(frame.request, wire::message_name(message),
         Failure(Errc::bad_input, "this request's number was used for attach"));
    return;
  }
  if (const auto* ask = std::get_if<wire::LockRequested>(&message)) {
    auto user = user_for(ask->user);
    auto scope = scope_for(ask->scope);
    if (!user || !scope) {
      fail(frame.request, wire::message_name(message), !user ? user.error() : scope.error());
      return;
    }
    if (sandbox_.empty()) {
      user_ = *user;
      scope_ = *scope;
    }
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
      asked_ = std::get<wire::LockRequested>(*message);
      asked_.verb = wire::printable(asked_.verb, wire::kMaxNameBytes);
      asked_.command = wire::printable(asked_.command, wire::kMaxTextBytes);
      services_.locks.request(owner_.id(), sandbox_, user_, scope_, asked_);
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

awaitable<void> Session::wind_up() {
  ending_ = true;
  services_.locks.gone(owner_.id());
  if (steps_.busy() || steps_.owes_result()) {
    auto found = relays_.find(steps_.grant());
    if (found != relays_.end()) {
      log::peer("client_vanished", {{"sandbox", sandbox_}, {"user", user_}});
      auto running = found->second;
      bool reaped = co_await running->hang_up();
      lost_ = !reaped && running->was_open();
    }
    if (lost_) {
      co_await recover_command();
    }
  }
  while (recovering_ > 0) {
    co_await changed_.wait();
  }
  services_.locks.leave(owner_.id());
  for (auto& [request, attached] : std::exchange(attached_, {})) {
    co_await attached->relay->finish();
  }
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
  while (background_ > 0) {
    co_await changed_.wait();
  }
}

void Session::begin(awaitable<void> work, const char* name) {
  ++background_;
  os::spawn(services_.executor, name, counted(shared_from_this(), std::move(work)));
}

awaitable<void> Session::counted(std::shared_ptr<Session> self, awaitable<void> work) {
  struct Count {
    Session& session;
    ~Count() {
      --session.background_;
      session.changed_.notify();
    }
  } count{*self};
  co_await std::move(work);
}

awaitable<void> serve_session(Services& services,
                              std::shared_ptr<protocol::ssh::ServerChannel> channel,
                              std::string argument, std::string user) {
  auto session = std::make_shared<Session>(services, std::make_unique<ChannelStream>(channel),
                                           std::move(user));
  channel->accept();
  if (auto good = check_argument(argument); !good) {
    session->refuse(good.error());
  }
  co_await session->run();
  auto ended = co_await channel->exit_status(0);
  (void)ended;  // a client that has gone needs none
}

awaitable<void> serve_local_session(Services& services,
                                    std::unique_ptr<protocol::os::ByteStream> stream,
                                    std::string user) {
  auto session = std::make_shared<Session>(services, std::move(stream), std::move(user));
  co_await session->run_greeted();
}

}  // namespace agent
