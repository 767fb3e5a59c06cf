#include "agent/recovery.h"

#include <algorithm>

#include "agent/deadline.h"
#include "agent/log.h"
#include "agent/sandbox_entry.h"
#include "agent/supervisors.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;

os::awaitable<void> recover(Services& services, std::string sandbox, std::string user,
                            std::string job) {
  if (!services.sandboxes.find(sandbox, user)) {
    co_return;
  }
  wire::Hello hello;
  hello.user = user;
  hello.version = services.info.version;
  auto connection =
      co_await services.supervisors.connect(services.sandboxes.directory(sandbox), hello);
  if (!connection) {
    log::peer("not_recovered", {{"sandbox", sandbox}, {"error", connection.error().what}});
    co_return;
  }
  const auto& jobs = connection->hello.jobs;
  bool runs = !job.empty() && std::any_of(jobs.begin(), jobs.end(), [&](const auto& each) {
    return each.job == job && each.state == "running";
  });
  if (!runs) {
    co_return;
  }
  log::peer("lost_job_ended", {{"sandbox", sandbox}, {"job", job}});
  os::FrameStream& frames = *connection->frames;
  frames.send(0, wire::EndJob{job, {}});
  std::function<void()> cut = [&frames] { frames.close(); };
  bool in_time = co_await within(services.executor, kShutdownLimit, read_ended(frames, 1), cut);
  if (!in_time) {
    log::peer("not_recovered", {{"sandbox", sandbox}, {"job", job}});
  }
}

}  // namespace agent
