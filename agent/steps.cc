#include "agent/steps.h"

#include <algorithm>
#include <utility>

#include "protocol/wire/limits.h"

namespace agent {

using protocol::wire::Errc;
using protocol::wire::FrameKind;
using protocol::wire::Message;
namespace wire = protocol::wire;

const char* step_name(Step step) {
  switch (step) {
    case Step::sync:
      return "__rwx_sandbox_sync_start__";
    case Step::exec:
      return "exec";
    case Step::pull:
      return "pull";
    case Step::release:
      return "__rwx_sandbox_lock_released__";
  }
  return "";
}

namespace {

// Which step a `failed` is about; std::nullopt for what is none, as a signal that has no name.
std::optional<Step> step_of(const std::string& name) {
  if (name == "__rwx_sandbox_sync_end__") {
    return Step::sync;
  }
  for (Step step : {Step::sync, Step::exec, Step::pull, Step::release}) {
    if (name == step_name(step)) {
      return step;
    }
  }
  return std::nullopt;
}

}  // namespace

Steps::Request* Steps::find(std::uint32_t number) {
  auto found = requests_.find(number);
  return found == requests_.end() ? nullptr : &found->second;
}

std::size_t Steps::pending_steps() const {
  std::size_t count = 0;
  for (const auto& [number, request] : requests_) {
    count += request.pending.size();
  }
  return count;
}

Steps::Verdict Steps::step(std::uint32_t number, Request& request, Step step) {
  if (request.skipping || request.detach) {
    return {Action::skip, 0, Errc::refused, {}};
  }
  auto refuse = [&](Errc code, const char* why) {
    request.skipping = true;
    return Verdict{Action::refuse, 0, code, why};
  };
  if (pending_steps() >= wire::kMaxStepsAhead) {
    return refuse(Errc::too_large, "too many steps sent ahead");
  }
  std::uint64_t grant = under_lock() ? grant_ : 0;
  if (grant == 0 && step != Step::pull) {
    return refuse(Errc::refused, releasing_ || giving_back_ ? "the lock is being given back"
                                 : detaching_               ? "the lock goes to a detached job"
                                                            : "the lock was not asked for");
  }
  if (request.forwarded && request.grant != grant) {
    return refuse(Errc::bad_input, "a request stays under the lock that it began with");
  }
  request.forwarded = true;
  request.grant = grant;
  request.pending.push_back(step);
  worked_ |= grant != 0;
  request.sync_open |= step == Step::sync;
  request.exec_forwarded |= step == Step::exec;
  if (step == Step::release) {
    releasing_ = number;
  }
  return {Action::forward, grant, Errc::refused, {}};
}

Steps::Verdict Steps::from_client(std::uint32_t number, const Message& message) {
  Request* known = find(number);
  if (known == nullptr && requests_.size() >= wire::kMaxRequests) {
    return {Action::refuse, 0, Errc::too_large, "too many requests on one session"};
  }
  Request& request = known != nullptr ? *known : requests_[number];
  if (std::holds_alternative<wire::LockRequested>(message)) {
    if (request.skipping) {
      return {Action::skip, 0, Errc::refused, {}};
    }
    if (lock_ != Lock::none) {
      request.skipping = true;
      return {
          Action::refuse, 0, Errc::exists,
          lock_ == Lock::held ? "this session has the lock" : "this session waits for the lock"};
    }
    lock_ = Lock::asked;
    lock_request_ = number;
    return {Action::ask, 0, Errc::refused, {}};
  }
  if (std::holds_alternative<wire::SyncStart>(message)) {
    if (shared_ && under_lock()) {
      return {Action::skip, 0, Errc::refused, {}};  // what follows it is done all the same
    }
    return step(number, request, Step::sync);
  }
  if (std::holds_alternative<wire::SyncEnd>(message)) {
    if (!std::exchange(request.sync_open, false)) {
      return {Action::drop, 0, Errc::refused, {}};
    }
    return {Action::forward, request.grant, Errc::refused, {}};
  }
  if (const auto* exec = std::get_if<wire::Exec>(&message)) {
    auto verdict = step(number, request, Step::exec);
    if (verdict.action == Action::forward && exec->detach) {
      request.detach = detaching_ = true;
    }
    return verdict;
  }
  if (std::holds_alternative<wire::Pull>(message)) {
    return step(number, request, Step::pull);
  }
  if (std::holds_alternative<wire::LockReleased>(message)) {
    if (request.skipping || request.detach) {
      return {Action::skip, 0, Errc::refused, {}};
    }
    if (lock_ == Lock::held && worked_) {
      return step(number, request, Step::release);
    }
    return {Action::give_back, 0, Errc::refused, {}};
  }
  if (std::holds_alternative<wire::Signal>(message) ||
      std::holds_alternative<wire::Window>(message)) {
    return {
        request.exec_forwarded ? Action::forward : Action::drop, request.grant, Errc::refused, {}};
  }
  return {Action::refuse, 0, Errc::bad_input,
          std::string(wire::message_name(message)) + " is no step of a request"};
}

Steps::Verdict Steps::from_client(std::uint32_t number, FrameKind kind) {
  const Request* request = find(number);
  bool forward = request != nullptr && ((kind == FrameKind::pack && request->sync_open) ||
                                        (kind == FrameKind::input && request->exec_forwarded) ||
                                        (kind == FrameKind::credit && request->forwarded));
  if (!forward) {
    return {Action::drop, 0, Errc::refused, {}};
  }
  return {Action::forward, request->grant, Errc::refused, {}};
}

void Steps::granted(bool shared) {
  lock_ = Lock::held;
  ++grant_;
  shared_ = shared;
  detaching_ = giving_back_ = worked_ = ran_ = false;
  releasing_.reset();
}

void Steps::queued() {
  lock_ = Lock::queued;
  requests_[lock_request_].skipping = true;
}

void Steps::refused() {
  lock_ = Lock::none;
  requests_[lock_request_].skipping = true;
}

void Steps::freed() {
  lock_ = Lock::none;
  shared_ = detaching_ = giving_back_ = worked_ = ran_ = false;
  releasing_.reset();
}

void Steps::detached(std::uint32_t number) {
  if (Request* request = find(number)) {
    std::erase(request->pending, Step::exec);
  }
  freed();
}

Steps::Effect Steps::from_supervisor(std::uint32_t number, const Message& message) {
  Request* request = find(number);
  if (request == nullptr) {
    return Effect::none;
  }
  auto take = [&](std::initializer_list<Step> any) {
    if (request->pending.empty() ||
        std::find(any.begin(), any.end(), request->pending.front()) == any.end()) {
      return false;
    }
    request->pending.pop_front();
    return true;
  };
  // Late answers to an earlier lock's steps say nothing about the present one.
  bool present = lock_ == Lock::held && request->grant == grant_;
  bool release = !request->pending.empty() && request->pending.front() == Step::release;

  if (std::holds_alternative<wire::Applied>(message)) {
    take({Step::sync});
  } else if (std::holds_alternative<wire::Missing>(message)) {
    request->skipping |= take({Step::sync});
  } else if (std::holds_alternative<wire::Stale>(message)) {
    request->stale_result = take({Step::sync});
    request->skipping |= request->stale_result;
  } else if (std::holds_alternative<wire::Started>(message)) {
    ran_ |= present;
    if (present && request->detach) {
      return Effect::detach;
    }
  } else if (std::holds_alternative<wire::Exited>(message)) {
    take({Step::exec});
  } else if (std::holds_alternative<wire::Result>(message) ||
             std::holds_alternative<wire::Unchanged>(message)) {
    if (std::exchange(request->stale_result, false)) {
      return Effect::none;
    }
    if (take({Step::pull, Step::release}) && release && present) {
      return Effect::release;
    }
  } else if (std::holds_alternative<wire::Skipped>(message)) {
    if (take({Step::sync, Step::exec, Step::pull, Step::release}) && release && present) {
      releasing_.reset();
    }
  } else if (const auto* failed = std::get_if<wire::Failed>(&message)) {
    auto step = step_of(failed->step);
    // A stale answer whose result could not be packed is a failed sync.
    bool stale = step == Step::sync && std::exchange(request->stale_result, false);
    if (stale || (step && take({*step}))) {
      request->skipping = true;
      if (*step == Step::exec && request->detach && present) {
        detaching_ = false;
      }
      return present ? Effect::failed : Effect::none;
    }
  }
  return Effect::none;
}

bool Steps::busy() const { return busy_besides(0); }

bool Steps::busy_besides(std::uint32_t besides) const {
  return lock_ == Lock::held &&
         std::any_of(requests_.begin(), requests_.end(), [&](const auto& entry) {
           return entry.first != besides && entry.second.grant == grant_ &&
                  !entry.second.pending.empty();
         });
}

std::vector<Steps::Outstanding> Steps::outstanding(std::uint64_t grant) const {
  std::vector<Outstanding> all;
  for (const auto& [number, request] : requests_) {
    if (request.grant == grant) {
      for (Step step : request.pending) {
        all.push_back({number, step, request.skipping});
      }
    }
  }
  return all;
}

void Steps::forget_outstanding(std::uint64_t grant) {
  for (auto& [number, request] : requests_) {
    if (request.grant == grant && !request.pending.empty()) {
      request.pending.clear();
      request.skipping = true;
      request.forwarded = request.sync_open = request.exec_forwarded = false;
    }
  }
}

}  // namespace agent
