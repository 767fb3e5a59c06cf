// What a session has to do with detached jobs: it starts them, and is shown their output.
#include <algorithm>

#include "agent/jobs.h"
#include "agent/log.h"
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

namespace {

constexpr const char* kAttach = "attach";

// Each has a connection to a supervisor and an open file.
std::size_t attached_of(const Sandboxes& sandboxes, const std::string& user) {
  auto all = sandboxes.uses();
  return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [&](const auto& each) {
    return each.who.user == user && each.who.verb == kAttach;
  }));
}

}  // namespace

// The job runs, and ends with this session. The lock passes to it when that is on the disk.
awaitable<void> Session::detach(std::shared_ptr<Session> self, std::uint64_t grant,
                                std::uint32_t request, std::string job) {
  JobRecord record;
  record.id = job;
  record.sandbox = self->sandbox_;
  record.user = self->user_;
  record.scope = self->scope_;
  record.verb = self->asked_.verb;
  record.command = self->asked_.command;
  record.fence = self->fence_;
  record.started_at = self->services_.sandboxes.now();
  auto passed = co_await self->services_.jobs.detach(self->owner_.id(), std::move(record));
  auto found = self->relays_.find(grant);
  if (self->ending_ || found == self->relays_.end()) {
    co_return;  // the session's end has ended the job
  }
  auto relay = found->second;
  if (!passed) {
    self->fail(request, "exec", passed.error());
    auto effect = self->steps_.from_supervisor(
        request, wire::Failed{"exec", wire::name(passed.error().code), {}});
    (void)effect;
    self->steps_.giving_back();
    co_await hang_up_and_give_back(self, relay, grant, request);
    co_return;
  }
  relay->send(request, wire::Detach{});
  self->client_.send(request, wire::Detached{job});
  self->steps_.detached(request);
  self->job_.clear();  // it is on its own
  self->relays_.erase(grant);
  os::spawn(self->services_.executor, "relay end", finish_relay(relay));
  if (self->services_.lifetime.stopping()) {
    self->stop();
  }
}

void Session::on_attach(std::uint32_t request, const wire::Attach& attach) {
  auto user = user_for(attach.user);
  result<JobRecord> job = Failure(Errc::bad_input, "attach needs a request number of its own");
  if (!user) {
    job = user.error();
  } else if (attached_.size() >= wire::kMaxAttached ||
             attach_requests_.size() >= wire::kMaxAttachRequests ||
             attached_of(services_.sandboxes, *user) >= wire::kMaxUserAttached) {
    job = Failure(Errc::too_large, "too many at once");
  } else if (request != 0 && !steps_.knows(request) && attach_requests_.count(request) == 0) {
    job = services_.jobs.find(attach.job, *user);
  }
  if (!job) {
    fail(request, "attach", job.error());
    return;
  }
  attach_requests_.insert(request);
  SandboxUse who;
  who.user = *user;
  who.scope = scope_;
  who.owner = owner_.id();
  who.verb = kAttach;
  who.command = job->command;
  auto use = services_.sandboxes.use(job->sandbox, std::move(who), [this, request] {
    fail(request, "attach", Failure(Errc::gone, "the sandbox was ended"));
    end_attached(request);
  });
  if (!use) {
    fail(request, "attach", use.error());
    return;
  }
  auto attached = std::make_shared<Attached>();
  attached->use = std::move(*use);
  attached->relay = std::make_shared<Relay>(services_.executor);
  attached_[request] = attached;
  wire::Hello hello;
  hello.user = *user;
  hello.version = services_.info.version;
  auto self = shared_from_this();
  attached->relay->start(
      services_.supervisors, services_.sandboxes.directory(job->sandbox), std::move(hello),
      [self, request](Frame frame) { return self->on_attached_frame(request, std::move(frame)); },
      [self, request](const Failure& failure) {
        if (self->attached_.count(request) != 0) {
          self->fail(request, "attach", failure);
          self->end_attached(request);
        }
      });
  attached->relay->send(request, wire::Attach{job->id, {}});
}

awaitable<void> Session::on_attached_frame(std::uint32_t request, Frame frame) {
  auto self = shared_from_this();
  if (attached_.count(request) == 0 || frame.request != request || ending_) {
    co_return;
  }
  if (frame.kind == FrameKind::output || frame.kind == FrameKind::error ||
      frame.kind == FrameKind::credit) {
    client_.forward(std::move(frame));
    if (client_.queued_bytes() > kMaxRelayBytes) {
      co_await client_.drained(kMaxRelayBytes / 2);
    }
    co_return;
  }
  auto message = frame.kind == FrameKind::control
                     ? wire::decode(frame.payload)
                     : result<wire::Message>(Failure(Errc::bad_input, "not a control frame"));
  if (!message) {
    log::peer("supervisor_bad_message", {{"error", message.error().what}});
    co_return;
  }
  bool last = std::holds_alternative<wire::Exited>(*message) ||
              std::holds_alternative<wire::Failed>(*message);
  if (last || std::holds_alternative<wire::Started>(*message) ||
      std::holds_alternative<wire::Notice>(*message)) {
    client_.forward(std::move(frame));
  }
  if (last) {
    end_attached(request);
  }
}

void Session::end_attached(std::uint32_t request) {
  auto found = attached_.find(request);
  if (found == attached_.end()) {
    return;
  }
  auto attached = found->second;
  attached_.erase(found);
  attached->use.reset();
  os::spawn(services_.executor, "relay end", finish_relay(attached->relay));
}

}  // namespace agent
