#include "agent/recovery.h"

#include "agent/deadline.h"
#include "agent/lifetime.h"
#include "agent/log.h"
#include "agent/sandbox_entry.h"
#include "agent/supervisors.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr std::chrono::seconds kLookAgain{2};

// Whether a supervisor has answered and nothing of it runs any more.
os::awaitable<bool> recover_once(Services& services, std::string sandbox, std::string user,
                                 std::string name, std::string job) {
  wire::Hello hello;
  hello.user = user;
  hello.version = services.info.version;
  auto connection =
      co_await services.supervisors.connect(services.sandboxes.directory(sandbox), hello);
  if (!connection) {
    log::peer("not_recovered", {{"sandbox", sandbox}, {"error", connection.error().what}});
    co_return false;
  }
  os::FrameStream& frames = *connection->frames;
  frames.send(0, wire::EndJob{job, {}, name});
  std::size_t left = 1;
  std::function<void()> cut = [&frames] { frames.close(); };
  co_await within(services.executor, kShutdownLimit, read_ended(frames, left), cut);
  log::peer(left > 0 ? "not_recovered" : "recovered", {{"sandbox", sandbox}, {"job", job}});
  co_return left == 0;
}

}  // namespace

os::awaitable<void> recover(Services& services, std::string sandbox, std::string user,
                            std::string connection, std::string job) {
  while (services.sandboxes.find(sandbox, user)) {
    bool done = co_await recover_once(services, sandbox, user, connection, job);
    auto again = std::chrono::steady_clock::now() + kLookAgain;
    bool woken = true;
    while (!done && woken && !services.lifetime.stopping()) {
      woken = co_await services.lifetime.changed().wait_until(again);
    }
    if (done || services.lifetime.stopping()) {
      co_return;
    }
  }
}

}  // namespace agent
