// How a sandbox ends: its users leave, its supervisor ends what runs, its directory goes.
#include <boost/asio/post.hpp>

#include "agent/deadline.h"
#include "agent/log.h"
#include "agent/remove_tree.h"
#include "agent/sandbox_entry.h"
#include "protocol/os/flock.h"
#include "protocol/os/paths.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

constexpr std::chrono::seconds kUsersLimit{30};
constexpr std::chrono::seconds kFlockLimit{10};

}  // namespace

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

awaitable<result<void>> Sandboxes::remove(std::string id) {
  auto found = entry(id);
  if (!found) {
    co_return Failure(Errc::not_found, "no sandbox " + id);
  }
  if (found->ending) {
    while (entry(id) == found && found->ending) {
      co_await found->changed.wait();
    }
    if (entry(id) != found) {
      co_return result<void>();
    }
  }
  found->ending = true;
  auto removed = co_await remove_now(id, found);
  found->ending = false;
  found->changed.notify();
  if (!removed) {
    log::peer("sandbox_not_removed", {{"sandbox", id}, {"error", removed.error().what}});
  }
  co_return removed;
}

awaitable<result<void>> Sandboxes::remove_now(std::string id, std::shared_ptr<Entry> found) {
  auto users = found->users;  // one may leave while it is told
  for (const Entry::User& user : users) {
    user.on_end();
  }
  auto ended = co_await shut_down(id);
  if (!ended) {
    co_return ended;
  }
  auto deadline = clock_.now() + kUsersLimit;
  while (!found->users.empty()) {
    bool left = co_await found->changed.wait_until(deadline);
    if (!left) {
      co_return Failure(Errc::busy, "sandbox " + id + " is still used");
    }
  }
  // One of them may have started the supervisor anew while it left.
  ended = co_await shut_down(id);
  if (!ended) {
    co_return ended;
  }
  auto lock = co_await os::FileLock::lock_async(
      ex_, directory(id) / ".lock", os::FileLock::Kind::exclusive, clock_.now() + kFlockLimit);
  if (!lock) {
    co_return Failure(Errc::busy, "something still runs in sandbox " + id);
  }
  // The directory first: a record without one is a removal to be finished, a directory without a
  // record, too.
  if (auto discarded = discard(directory(id)); !discarded) {
    co_return discarded;
  }
  auto forgotten = co_await store_.remove_sandbox(id);
  entries_.erase(id);
  log::peer("sandbox_removed", {{"sandbox", id}, {"user", found->sandbox.user}});
  co_return forgotten;
}

awaitable<result<void>> Sandboxes::shut_down(std::string id) {
  wire::Hello hello;
  auto connection = co_await supervisors_.find(directory(id), hello);
  // One that was killed has left its record, and perhaps commands: the next one ends them.
  std::error_code error;
  if (!connection && std::filesystem::exists(directory(id) / "supervisor.json", error)) {
    connection = co_await supervisors_.connect(directory(id), hello);
  }
  if (!connection) {
    if (connection.error().code == Errc::not_found || connection.error().code == Errc::gone) {
      co_return result<void>();
    }
    co_return connection.error();
  }
  os::FrameStream& frames = *connection->frames;
  frames.send(0, wire::Shutdown{});
  bool in_time =
      co_await within(ex_, kShutdownLimit, read_ended(frames, 1), [&frames] { frames.close(); });
  if (!in_time) {
    co_return Failure(Errc::busy, "sandbox " + id + " does not end what runs in it");
  }
  co_return result<void>();
}

result<void> Sandboxes::discard(const std::filesystem::path& directory) {
  auto target = removing_ / (directory.filename().string() + "-" + os::random_hex(8));
  std::error_code error;
  std::filesystem::rename(directory, target, error);
  if (error) {
    return os::errno_failure(error.value(), directory.string());
  }
  for (const auto& parent : {removing_, root_}) {
    if (auto synced = os::sync_directory(parent); !synced) {
      return synced;
    }
  }
  boost::asio::post(*deleters_, [target] {
    auto removed = remove_tree(target);
    (void)removed;  // it is tried again at the next start
  });
  return {};
}

}  // namespace agent
