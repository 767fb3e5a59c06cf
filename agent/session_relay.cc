// What a session passes on between its client and the sandbox's supervisor: one connection for each
// of its locks, and one for what needs none.
#include "agent/log.h"
#include "agent/recovery.h"
#include "agent/session_state.h"
#include "agent/supervisors.h"
#include "protocol/wire/limits.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;
using wire::Frame;
using wire::FrameKind;
using wire::Message;

namespace {

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

}  // namespace

void Session::forward(std::uint64_t grant, Frame frame) {
  auto to = relay(grant);
  forward(*to, std::move(frame));
}

void Session::forward(Relay& to, Frame frame) {
  if (!to.has_room(frame)) {
    end_with(Failure(Errc::too_large,
                     "more was sent than there was credit for, or than the sandbox takes"));
    return;
  }
  to.forward(std::move(frame));
}

std::shared_ptr<Relay> Session::relay(std::uint64_t grant) {
  auto& place = relays_[grant];
  if (!place) {
    place = std::make_shared<Relay>(services_.executor);
    wire::Hello hello;
    hello.origin = origin_;
    hello.user = user_;
    hello.fence = grant == 0 ? std::string() : fence_;
    hello.version = services_.info.version;
    hello.connection = hello.fence;  // one connection for each lock
    auto self = shared_from_this();
    place->start(
        services_.supervisors, services_.sandboxes.directory(sandbox_), std::move(hello),
        [self, grant](Frame frame) { return self->on_supervisor_frame(grant, std::move(frame)); },
        [self, grant](const Failure& failure) { self->on_supervisor_gone(grant, failure); });
  }
  return place;
}

// Connections of earlier locks that owe the client nothing more.
void Session::close_idle_relays() {
  for (auto each = relays_.begin(); each != relays_.end();) {
    auto [grant, relay] = *each;
    if (grant == 0 || results_open_.count(grant) > 0 || !steps_.outstanding(grant).empty()) {
      ++each;
      continue;
    }
    each = relays_.erase(each);
    os::spawn(services_.executor, "relay end", finish_relay(relay));
  }
}

awaitable<void> Session::on_supervisor_frame(std::uint64_t grant, Frame frame) {
  auto self = shared_from_this();
  switch (frame.kind) {
    case FrameKind::control:
      on_supervisor_message(grant, std::move(frame));
      break;
    case FrameKind::result_pack:
      if (frame.payload.empty()) {
        result_ended(grant, frame.request);
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
  if (const auto* started = std::get_if<wire::Started>(&*message);
      started != nullptr && grant == steps_.grant()) {
    job_ = started->job;
  }
  auto effect = steps_.from_supervisor(request, *message);
  if (effect == Steps::Effect::detach) {
    begin(detach(shared_from_this(), grant, request, std::get<wire::Started>(*message).job),
          "detach");
    return;
  }
  client_.forward(std::move(frame));
  if (std::holds_alternative<wire::Failed>(*message)) {
    status_requests_.erase(request);
  } else if (std::holds_alternative<wire::Result>(*message)) {
    results_open_[grant].insert(request);
  } else if (std::holds_alternative<wire::Applied>(*message)) {
    services_.sandboxes.note_synced(sandbox_);
  }
  if (effect == Steps::Effect::none) {
    return;
  }
  if (effect == Steps::Effect::failed && (steps_.busy_besides(request) || steps_.owes_result())) {
    // What else was sent ahead under this lock must not run on without it, and what a command has
    // left is taken before the next one changes it.
    steps_.giving_back();
    begin(hang_up_and_give_back(shared_from_this(), relays_[grant], grant, request),
          "session hang-up");
    return;
  }
  give_back(request);
}

void Session::result_ended(std::uint64_t grant, std::uint32_t request) {
  auto found = results_open_.find(grant);
  if (found != results_open_.end() && found->second.erase(request) == 1 && found->second.empty()) {
    results_open_.erase(found);
  }
}

void Session::on_supervisor_gone(std::uint64_t grant, const Failure& failure) {
  bool was_open = relays_.count(grant) != 0 && relays_[grant]->was_open();
  relays_.erase(grant);
  auto cut = results_open_.extract(grant);
  if (ending_) {
    lost_ |= was_open && grant == steps_.grant() && steps_.holds();
    return;
  }
  // Their packs will not come to their end by themselves.
  if (!cut.empty()) {
    for (std::uint32_t request : cut.mapped()) {
      fail(request, "result_pack", failure);
      client_.end_bulk(FrameKind::result_pack, request);
    }
  }
  log::peer("supervisor_gone", {{"sandbox", sandbox_}, {"error", failure.what}});
  if (grant == 0) {
    for (std::uint32_t request : std::exchange(status_requests_, {})) {
      fail(request, "status_request", failure);
    }
  }
  auto owed = answer_outstanding(grant, failure);
  if (!owed || grant == 0 || !steps_.holds() || steps_.grant() != grant) {
    return;
  }
  if (was_open) {
    steps_.giving_back();
    ++recovering_;
    begin(recover_and_give_back(shared_from_this(), grant, *owed), "recovery");
  } else {
    give_back(*owed);
  }
}

awaitable<void> Session::recover_and_give_back(std::shared_ptr<Session> self, std::uint64_t grant,
                                               std::uint32_t request) {
  co_await self->recover_command();
  --self->recovering_;
  self->changed_.notify();
  if (self->steps_.holds() && self->steps_.grant() == grant && !self->ending_) {
    self->give_back(request);
  }
}

awaitable<void> Session::recover_command() {
  co_await recover(services_, sandbox_, user_, fence_, job_);
}

std::optional<std::uint32_t> Session::answer_outstanding(std::uint64_t grant,
                                                         const Failure& failure) {
  auto owed = steps_.outstanding(grant);
  steps_.forget_outstanding(grant);
  std::set<std::uint32_t> failed;
  for (const auto& [request, step, skipped] : owed) {
    if (!skipped && failed.insert(request).second) {
      fail(request, step_name(step), failure);
    } else {
      client_.send(request, wire::Skipped{step_name(step)});
    }
  }
  return owed.empty() ? std::nullopt : std::optional(owed.front().request);
}

}  // namespace agent
