// What a session says about sandboxes: it binds to one, makes one, ends one, lists them.
#include <algorithm>

#include "agent/isolation.h"
#include "agent/limits.h"
#include "agent/log.h"
#include "agent/session_state.h"
#include "agent/store.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"
#include "protocol/wire/scope.h"

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
  } else if (auto isolation = services_.isolation.choose(create.isolation); !isolation) {
    bad = isolation.error();
  } else if (create.network != "host" && create.network != "none") {
    bad.what = "the network is host or none, not " + wire::printable(create.network, 80);
  } else if (create.network == "none" && *isolation == "none") {
    bad = Failure(Errc::unsupported, "network: none needs isolation, and this sandbox has none");
  } else if (auto held = services_.limits.check(create.limits, *isolation == "bwrap"); !held) {
    bad = held.error();
  } else {
    create.isolation = *isolation;
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
  co_await bind_to(*made, *user, *scope, origin);
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
  co_await services_.sandboxes.decided(bind.sandbox);
  auto sandbox = services_.sandboxes.find(bind.sandbox, *user);
  if (!sandbox) {
    fail(0, "bind", Failure(Errc::not_found, "no sandbox " + wire::printable(bind.sandbox, 80)));
    co_return;
  }
  if (!is_text(bind.origin, wire::kMaxNameBytes)) {
    fail(0, "bind", Failure(Errc::bad_input, "the origin is too long"));
    co_return;
  }
  co_await bind_to(*sandbox, *user, *scope, bind.origin);
}

awaitable<result<std::unique_ptr<Sandboxes::Use>>> Session::use_sandbox(std::string id,
                                                                        std::string user,
                                                                        std::string scope) {
  SandboxUse who;
  who.user = std::move(user);
  who.scope = std::move(scope);
  who.owner = owner_.id();
  std::function<void()> on_end = [this] { end_with(Failure(Errc::gone, "the sandbox was ended")); };
  auto use = co_await services_.sandboxes.use_when_decided(std::move(id), std::move(who), on_end);
  co_return use;
}

awaitable<void> Session::bind_to(Sandbox sandbox, std::string user, std::string scope,
                                 std::string origin) {
  auto use = co_await use_sandbox(sandbox.id, user, scope);
  if (!use) {
    fail(0, "bind", use.error());
    co_return;
  }
  use_ = std::move(*use);
  sandbox_ = sandbox.id;
  user_ = user;
  scope_ = scope;
  origin_ = origin;
  // It may have become ready meanwhile.
  client_.send(0, bound(services_.sandboxes.find(sandbox_, user_).value_or(sandbox)));
  tell_notices(user_);
}

wire::Bound Session::bound(const Sandbox& sandbox) const {
  wire::Bound bound;
  bound.sandbox = sandbox.id;
  bound.state = sandbox.ready ? "ready" : "starting";
  bound.agent = services_.info.agent;
  bound.ttl_seconds = services_.info.ttl_seconds;
  bound.fresh = !sandbox.synced;
  bound.isolation = sandbox.isolation;
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

// What stock clients run in it, without the lock: a command, a shell, a tunnel.
std::optional<wire::Refused> Session::refused_by_commands() const {
  wire::Refused refused;
  refused.why = "busy";
  refused.box = services_.info.name;
  for (const auto& use : services_.sandboxes.uses()) {
    const SandboxUse& who = use.who;
    if (use.sandbox == sandbox_ && who.session && who.owner == 0 && !who.verb.empty()) {
      wire::Holder holder;
      holder.user = who.user;
      holder.scope = who.scope;
      holder.verb = who.verb;
      holder.command = wire::printable(who.command, wire::kMaxTextBytes);
      holder.held_seconds = services_.sandboxes.now() - use.since;
      holder.sandbox = sandbox_;
      refused.holders.push_back(std::move(holder));
    }
  }
  return refused.holders.empty() ? std::nullopt : std::optional<wire::Refused>(refused);
}

awaitable<void> Session::on_end(wire::End end) {
  if (end.if_idle) {
    co_await on_end_if_idle(std::move(end));
    co_return;
  }
  if (sandbox_.empty()) {
    fail(0, "end", Failure(Errc::bad_input, "bind to a sandbox first"));
    co_return;
  }
  auto sandbox = services_.sandboxes.find(sandbox_, user_);
  // What was never set up may go whatever else the box does: nobody could have used it.
  bool ready = sandbox && sandbox->ready;
  auto refused = services_.locks.refuses_end(owner_.id(), sandbox_, user_, scope_, ready);
  if (!refused) {
    refused = refused_by_commands();
  }
  if (refused && !end.force) {
    hide_others(refused->holders, user_);
    client_.send(0, *refused);
    co_return;
  }
  if (end.keep_unpulled) {
    auto kept = co_await services_.sandboxes.refuse_unpulled(sandbox_);
    if (!kept) {
      fail(0, "end", kept.error());
      co_return;
    }
  }
  if (end.dry_run) {
    client_.send(0, wire::Ended{});
    co_return;
  }
  if (refused) {
    std::string over;
    for (const wire::Holder& holder : refused->holders) {
      over += (over.empty() ? "over " : ", ") + wire::shown_user(holder.user, holder.scope) + " (" +
              holder.command + ")";
    }
    services_.store.audit(
        {services_.sandboxes.now(), user_, "end --force", sandbox_, std::move(over)});
  }
  // Ours goes with the rest: the supervisor is told to end everything.
  use_.reset();
  auto removed = co_await services_.sandboxes.remove(sandbox_);
  if (!removed && removed.error().code != Errc::not_found) {
    fail(0, "end", removed.error());
    auto used = co_await use_sandbox(sandbox_, user_, scope_);
    if (used) {
      use_ = std::move(*used);
    } else {
      end_with(used.error());
    }
    co_return;
  }
  sandbox_.clear();
  services_.locks.release(owner_.id());
  steps_.freed();
  client_.send(0, wire::Ended{});
}

awaitable<void> Session::on_end_if_idle(wire::End end) {
  bool ours = !sandbox_.empty() && (end.sandbox.empty() || end.sandbox == sandbox_);
  std::string id = ours ? sandbox_ : end.sandbox;
  auto user = user_for(end.user);
  if (!ours && (!sandbox_.empty() || !user || !services_.sandboxes.find(id, *user))) {
    fail(0, "end", Failure(Errc::not_found, "no sandbox " + wire::printable(id, 80)));
    co_return;
  }
  if (ours && (steps_.busy() || recovering_ > 0)) {
    // Nothing of it may be cut short before it is decided that the sandbox goes.
    fail(0, "end", Failure(Errc::busy, "this session's own command is not over"));
    co_return;
  }
  Sandboxes::IdleRemoval how;
  how.keep_unpulled = end.keep_unpulled;
  how.dry_run = end.dry_run;
  how.claims = [this, id]() -> std::string {
    auto person = [](const wire::Holder& who) { return wire::shown_user(who.user, who.scope); };
    if (auto other = services_.locks.refuses_end(owner_.id(), id, user_, scope_, false)) {
      const wire::Holder& holder = other->holders.front();
      return person(holder) + " runs " + wire::printable(holder.command, 200) + " in it";
    }
    auto waiting = services_.locks.waiting(id);
    return waiting.empty() ? std::string() : person(waiting.front()) + " waits for its lock";
  };
  if (ours) {
    // What the client said last, that it has merged, is dealt with before anybody asks what is not.
    auto relays = relays_;
    for (auto& [grant, relay] : relays) {
      co_await relay->hang_up();
    }
    relays_.clear();
    for (auto& [grant, relay] : relays) {
      co_await relay->finish();
    }
    use_.reset();  // our own does not count
  }
  auto removed = co_await services_.sandboxes.remove_if_idle(id, std::move(how));
  if (ours && (!removed || end.dry_run)) {
    auto again = co_await use_sandbox(id, user_, scope_);
    if (!again) {
      end_with(Failure(Errc::gone, "the sandbox was ended"));
      co_return;
    }
    use_ = std::move(*again);
  } else if (ours) {
    sandbox_.clear();
    services_.locks.release(owner_.id());
    steps_.freed();
  }
  if (!removed) {
    fail(0, "end", removed.error());
    co_return;
  }
  client_.send(0, wire::Ended{});
}

wire::SandboxInfo Session::info_of(const Sandbox& sandbox) const {
  wire::SandboxInfo info = services_.sandboxes.info(sandbox);
  info.holders = services_.locks.holders(sandbox.id);
  info.waiting = static_cast<std::int64_t>(services_.locks.waiting(sandbox.id).size());
  return info;
}

awaitable<void> Session::on_list(wire::ListRequest list) {
  auto user = user_for(list.user);
  if (!user) {
    fail(0, "list_request", user.error());
    co_return;
  }
  std::map<std::string, std::int64_t> sizes;
  if (list.sizes) {
    for (const Sandbox& sandbox : services_.sandboxes.of(*user)) {
      std::uint64_t bytes = co_await services_.sandboxes.size(sandbox.id);
      sizes[sandbox.id] = static_cast<std::int64_t>(bytes);
      if (ending_ || !client_.is_open()) {
        co_return;
      }
    }
  }
  wire::Sandboxes all;
  for (const Sandbox& sandbox : services_.sandboxes.of(*user)) {
    all.sandboxes.push_back(info_of(sandbox));
    if (auto size = sizes.find(sandbox.id); size != sizes.end()) {
      all.sandboxes.back().size_bytes = size->second;
    }
  }
  client_.send(0, all);
}

void Session::on_status(std::uint32_t request) {
  if (sandbox_.empty()) {
    fail(request, "status_request", Failure(Errc::bad_input, "bind to a sandbox first"));
    return;
  }
  if (status_requests_.size() >= wire::kMaxStatusRequests) {
    fail(request, "status_request", Failure(Errc::too_large, "too many at once"));
    return;
  }
  status_requests_.insert(request);
  forward(0, {FrameKind::control, request, wire::encode(wire::StatusRequest{})});
}

}  // namespace agent
