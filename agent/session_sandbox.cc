// What a session says about sandboxes: it binds to one, makes one, ends one, lists them.
#include <algorithm>

#include "agent/log.h"
#include "agent/session_state.h"
#include "agent/store.h"
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

bool is_text(const std::string& text, std::size_t limit) {
  return text.size() <= limit && text.find('\0') == std::string::npos;
}

// A name that can stand in a line of text.
bool is_plain(const std::string& name) {
  return name.size() <= wire::kMaxNameBytes &&
         std::none_of(name.begin(), name.end(),
                      [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

}  // namespace

result<std::string> Session::user_for(const std::string& claimed) const {
  if (!services_.trust_claimed_users || claimed.empty()) {
    return user_;
  }
  if (!is_plain(claimed)) {
    return Failure(Errc::bad_input, "not a user name: " + wire::printable(claimed, 80));
  }
  return claimed;
}

result<std::string> Session::scope_for(const std::string& claimed) const {
  if (claimed.empty()) {
    return scope_;
  }
  if (!is_plain(claimed)) {
    return Failure(Errc::bad_input, "not a scope: " + wire::printable(claimed, 80));
  }
  return claimed;
}

awaitable<void> Session::on_create(wire::Create create) {
  auto user = user_for(create.user);
  auto scope = scope_for(create.scope);
  Failure bad(Errc::bad_input, "");
  if (!user || !scope) {
    bad.what = !user ? user.error().what : scope.error().what;
  } else if (steps_.holds() || steps_.waits()) {
    bad = Failure(Errc::exists, "this session has, or waits for, the whole box");
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
  bind_to(*made, *user, *scope, origin);
}

awaitable<void> Session::on_bind(wire::Bind bind) {
  auto user = user_for(bind.user);
  auto scope = scope_for(bind.scope);
  if (!user || !scope) {
    fail(0, "bind", !user ? user.error() : scope.error());
    co_return;
  }
  if (!sandbox_.empty()) {
    fail(0, "bind", Failure(Errc::exists, "this session is bound to " + sandbox_));
    co_return;
  }
  if (steps_.holds() || steps_.waits()) {
    fail(0, "bind", Failure(Errc::exists, "this session has, or waits for, the whole box"));
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
  bind_to(*sandbox, *user, *scope, bind.origin);
}

result<void> Session::use_sandbox(const std::string& sandbox, const std::string& user,
                                  const std::string& scope) {
  Attachment who;
  who.user = user;
  who.scope = scope;
  who.owner = owner_.id();
  auto use = services_.sandboxes.use(
      sandbox, std::move(who), [this] { end_with(Failure(Errc::gone, "the sandbox was ended")); });
  if (!use) {
    return use.error();
  }
  use_ = std::move(*use);
  return {};
}

void Session::bind_to(const Sandbox& sandbox, const std::string& user, const std::string& scope,
                      const std::string& origin) {
  if (auto used = use_sandbox(sandbox.id, user, scope); !used) {
    fail(0, "bind", used.error());
    return;
  }
  sandbox_ = sandbox.id;
  user_ = user;
  scope_ = scope;
  origin_ = origin;
  client_.send(0, bound(sandbox));
  tell_notices(user_);
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
  auto sandbox = services_.sandboxes.find(sandbox_, user_);
  // What was never set up may go whatever else the box does: nobody could have used it.
  bool ready = sandbox && sandbox->ready;
  auto refused = services_.locks.refuses_end(owner_.id(), sandbox_, user_, scope_, ready);
  if (refused && !end.force) {
    hide_others(refused->holders, user_);
    client_.send(0, *refused);
    co_return;
  }
  if (refused) {
    std::string over;
    for (const wire::Holder& holder : refused->holders) {
      over += (over.empty() ? "over " : ", ") + holder.user + " (" + holder.command + ")";
    }
    services_.store.audit(
        {services_.sandboxes.now(), user_, "end --force", sandbox_, std::move(over)});
  }
  // Ours goes with the rest: the supervisor is told to end everything.
  use_.reset();
  auto removed = co_await services_.sandboxes.remove(sandbox_);
  if (!removed && removed.error().code != Errc::not_found) {
    fail(0, "end", removed.error());
    if (auto used = use_sandbox(sandbox_, user_, scope_); !used) {
      end_with(used.error());
    }
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

}  // namespace agent
