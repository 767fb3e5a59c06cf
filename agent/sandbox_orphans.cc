// What an earlier agent's clients had running when it died.
#include "agent/deadline.h"
#include "agent/log.h"
#include "agent/sandbox_entry.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;

awaitable<void> read_ended(os::FrameStream& frames, std::size_t count) {
  while (count > 0) {
    auto frame = co_await frames.read();
    if (!frame || !*frame) {
      co_return;
    }
    if ((*frame)->kind != wire::FrameKind::control) {
      frames.consumed((*frame)->kind, (*frame)->request, (*frame)->payload.size());
      continue;
    }
    auto message = wire::decode((*frame)->payload);
    if (message && std::holds_alternative<wire::Ended>(*message)) {
      --count;
    }
  }
}

awaitable<void> Sandboxes::end_orphans() {
  auto left = std::make_shared<std::size_t>(entries_.size());
  auto changed = std::make_shared<os::Wakeup>(ex_);
  for (const auto& [id, each] : entries_) {
    os::spawn(ex_, "orphans",
              [](Sandboxes& self, std::string sandbox, std::shared_ptr<std::size_t> count,
                 std::shared_ptr<os::Wakeup> wakeup) -> awaitable<void> {
                co_await self.end_orphans_of(std::move(sandbox));
                --*count;
                wakeup->notify();
              }(*this, id, left, changed));
  }
  while (*left > 0) {
    co_await changed->wait();
  }
}

awaitable<void> Sandboxes::end_orphans_of(std::string id) {
  wire::Hello hello;
  auto connection = co_await supervisors_.find(directory(id), hello);
  if (!connection) {
    if (connection.error().code != Errc::not_found) {
      log::warn("supervisor_not_reached", {{"sandbox", id}, {"error", connection.error().what}});
    }
    co_return;
  }
  os::FrameStream& frames = *connection->frames;
  std::size_t ending = 0;
  for (const wire::JobInfo& job : connection->hello.jobs) {
    if (job.state == "running") {
      log::info("orphan_ended",
                {{"sandbox", id}, {"job", job.job}, {"pid", std::to_string(job.pid)}});
      frames.send(0, wire::EndJob{job.job});
      ++ending;
    }
  }
  bool in_time = co_await within(ex_, kShutdownLimit, read_ended(frames, ending),
                                 [&frames] { frames.close(); });
  if (!in_time) {
    log::warn("orphan_not_ended", {{"sandbox", id}});
  }
}

}  // namespace agent
