// What a session asks of the box, bound to a sandbox or not: what it is, who has what, its user
// lock, its detached jobs. None of it waits for a lock.
#include <algorithm>

#include "agent/isolation.h"
#include "agent/jobs.h"
#include "agent/limits.h"
#include "agent/notices.h"
#include "agent/session_state.h"
#include "agent/user_locks.h"
#include "protocol/os/clock.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

constexpr std::size_t kShownCommand = 256;    // of a command in a list, in bytes
constexpr std::size_t kShownSessions = 2000;  // in one answer

void shorten(std::vector<wire::Holder>& holders) {
  for (wire::Holder& holder : holders) {
    holder.command = wire::printable(holder.command, kShownCommand);
  }
}

}  // namespace

void Session::hide_others(std::vector<wire::Holder>& holders, const std::string& user) {
  for (wire::Holder& holder : holders) {
    if (holder.user != user) {
      holder.sandbox.clear();
    }
  }
}

// True when it was one of these.
awaitable<bool> Session::on_box_message(std::uint32_t request, const wire::Message& message) {
  if (const auto* box = std::get_if<wire::BoxRequest>(&message)) {
    on_box(request, *box);
  } else if (const auto* sessions = std::get_if<wire::SessionsRequest>(&message)) {
    on_sessions(request, *sessions);
  } else if (const auto* attach = std::get_if<wire::Attach>(&message)) {
    on_attach(request, *attach);
  } else if (const auto* lock = std::get_if<wire::UserLockRequest>(&message)) {
    auto user = user_for(lock->user);
    auto scope = scope_for(lock->scope);
    if (!user || !scope) {
      fail(request, wire::message_name(message), !user ? user.error() : scope.error());
      co_return true;
    }
    std::string reason = wire::printable(lock->reason, wire::kMaxTextBytes);
    auto answer = co_await services_.user_locks.lock(*user, *scope, std::move(reason));
    client_.send(request, answer);
  } else if (const auto* unlock = std::get_if<wire::UserUnlockRequest>(&message)) {
    auto user = user_for(unlock->user);
    auto scope = scope_for(unlock->scope);
    if (!user || !scope) {
      fail(request, wire::message_name(message), !user ? user.error() : scope.error());
      co_return true;
    }
    auto answer = co_await services_.user_locks.unlock(*user, *scope, unlock->force);
    client_.send(request, answer);
  } else if (const auto* jobs = std::get_if<wire::JobsRequest>(&message)) {
    if (auto user = user_for(jobs->user); user) {
      client_.send(request, wire::Jobs{services_.jobs.list(*user)});
    } else {
      fail(request, wire::message_name(message), user.error());
    }
  } else if (const auto* wanted = std::get_if<wire::Kill>(&message)) {
    if (auto user = user_for(wanted->user); user) {
      on_kill(request, *wanted, *user);
    } else {
      fail(request, wire::message_name(message), user.error());
    }
  } else {
    co_return false;
  }
  co_return true;
}

void Session::on_box(std::uint32_t request, const wire::BoxRequest& ask) {
  auto user = user_for(ask.user);
  if (!user) {
    fail(request, "box_request", user.error());
    return;
  }
  wire::Box box;
  box.agent = services_.info.agent;
  box.name = services_.info.name;
  box.version = services_.info.version;
  box.protocol = services_.info.protocol;
  box.user = *user;
  box.slots = services_.slots;
  box.ttl_seconds = services_.info.ttl_seconds;
  box.isolation = services_.isolation.by_default();
  if (const auto& lock = services_.locks.table().user_lock()) {
    box.user_lock = agent::info_of(*lock);
  }
  box.holders = services_.locks.all_holders();
  box.waiting = services_.locks.all_waiting();
  for (auto* holders : {&box.holders, &box.waiting}) {
    hide_others(*holders, *user);
    shorten(*holders);
  }
  box.sandboxes = static_cast<std::int64_t>(services_.sandboxes.ids().size());
  auto uses = services_.sandboxes.uses();
  box.sessions =
      std::count_if(uses.begin(), uses.end(), [](const auto& each) { return each.who.session; });
  box.jobs = static_cast<std::int64_t>(services_.jobs.running());
  box.limits = services_.limits.of_sandboxes() ? "sandbox" : "command";
  tell_notices(*user);
  client_.send(request, box);
}

void Session::on_sessions(std::uint32_t request, const wire::SessionsRequest& ask) {
  auto user = user_for(ask.user);
  if (!user) {
    fail(request, "sessions_request", user.error());
    return;
  }
  wire::Sessions sessions;
  for (const auto& use : services_.sandboxes.uses()) {
    if (!use.who.session || sessions.sessions.size() >= kShownSessions) {
      continue;
    }
    wire::SessionInfo shown;
    shown.user = use.who.user;
    shown.scope = use.who.scope;
    shown.sandbox = use.owner == *user ? use.sandbox : std::string();
    shown.since = os::format_utc(os::Clock::system(std::chrono::seconds(use.since)));
    shown.state = "attached";
    shown.verb = use.who.verb;
    shown.command = use.who.command;
    if (auto standing = services_.locks.standing(use.who.owner); standing && use.who.verb.empty()) {
      shown.state = services_.locks.waits(use.who.owner) ? "waiting" : "running";
      shown.verb = standing->verb;
      shown.command = standing->command;
    }
    shown.command = wire::printable(shown.command, kShownCommand);
    sessions.sessions.push_back(std::move(shown));
  }
  client_.send(request, sessions);
}

void Session::on_kill(std::uint32_t request, wire::Kill wanted, const std::string& user) {
  if (kills_ >= wire::kMaxKills) {
    fail(request, "kill", Failure(Errc::too_large, "too many at once"));
    return;
  }
  ++kills_;
  begin(kill(shared_from_this(), request, std::move(wanted), user), "kill");
}

awaitable<void> Session::kill(std::shared_ptr<Session> self, std::uint32_t request,
                              wire::Kill wanted, std::string user) {
  auto answer = co_await self->services_.jobs.kill(std::move(wanted), std::move(user));
  --self->kills_;
  self->client_.send(request, answer);
}

void Session::tell_notices(const std::string& user) {
  auto notices = services_.notices.of(user);
  if (notices.empty()) {
    return;
  }
  for (const NoticeRecord& notice : notices) {
    client_.send(0, wire::Notice{notice.text});
  }
  begin(forget_told(shared_from_this(), std::move(notices)), "notices");
}

// Told is what was written to the client.
awaitable<void> Session::forget_told(std::shared_ptr<Session> self,
                                     std::vector<NoticeRecord> notices) {
  auto written = co_await self->client_.flush();
  if (!written) {
    co_return;
  }
  for (NoticeRecord& notice : notices) {
    co_await self->services_.notices.told(std::move(notice));
  }
}

}  // namespace agent
