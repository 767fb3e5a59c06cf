// Who uses a sandbox: session locks, and what is told of them.
#include "agent/disk_usage.h"
#include "agent/sandbox_entry.h"
#include "protocol/os/flock.h"
#include "protocol/os/offload.h"
#include "protocol/wire/quoting.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

constexpr std::int64_t kSaveUseEvery = 60;  // seconds
// Whoever asks whether it is in use has the lock for an instant.
constexpr std::chrono::milliseconds kAskedLimit{20};
constexpr std::chrono::seconds kPatience{2};

Failure not_locked(const std::string& id, const Failure& failure) {
  bool taken = failure.code == Errc::timed_out;
  return Failure(taken ? Errc::busy : failure.code,
                 "cannot take the session lock of sandbox " + id + ": " +
                     (taken ? "another program holds it alone" : failure.what));
}

}  // namespace

struct Sandboxes::Use::Place {
  std::shared_ptr<Entry> entry;
  std::list<Entry::User>::iterator user;
  os::FileLock lock;  // shared, so that no other program removes the directory either
};

Sandboxes::Use::Use(std::unique_ptr<Place> place) : place_(std::move(place)) {}

Sandboxes::Use::~Use() {
  auto entry = place_->entry;
  entry->users.erase(place_->user);
  place_.reset();
  entry->changed.notify();
}

awaitable<void> Sandboxes::decided(std::string id) {
  for (auto found = entry(id); found && !found->settled(); found = entry(id)) {
    co_await found->changed.wait();
  }
}

result<std::unique_ptr<Sandboxes::Use>> Sandboxes::use(const std::string& id, SandboxUse who,
                                                       std::function<void()> on_end) {
  auto found = entry(id);
  if (!found || found->making || found->ending) {
    return Failure(Errc::not_found, "no sandbox " + wire::printable(id, 80));
  }
  if (found->deciding) {
    return Failure(Errc::busy, "whether sandbox " + id + " is removed is being decided: try again");
  }
  auto lock = os::FileLock::lock(directory(id) / ".lock", os::FileLock::Kind::shared,
                                 std::chrono::steady_clock::now() + kAskedLimit);
  if (!lock) {
    return not_locked(id, lock.error());
  }
  found->sandbox.used_at = now();
  if (found->sandbox.used_at - found->use_saved_at >= kSaveUseEvery) {
    found->use_saved_at = found->sandbox.used_at;
    save_later(found->sandbox);
  }
  auto user = found->users.insert(found->users.end(),
                                  {std::move(who), found->sandbox.used_at, std::move(on_end)});
  return std::unique_ptr<Use>(
      new Use(std::make_unique<Use::Place>(Use::Place{found, user, std::move(*lock)})));
}

awaitable<result<std::unique_ptr<Sandboxes::Use>>> Sandboxes::use_when_decided(
    std::string id, SandboxUse who, std::function<void()> on_end) {
  for (;;) {
    co_await decided(id);
    if (!entry(id)) {
      co_return Failure(Errc::not_found, "no sandbox " + wire::printable(id, 80));
    }
    // Waited for here, where it costs nobody else the time.
    auto waited =
        co_await os::FileLock::lock_async(ex_, directory(id) / ".lock", os::FileLock::Kind::shared,
                                          std::chrono::steady_clock::now() + kPatience);
    auto found = entry(id);
    if (!found || !found->settled()) {
      continue;  // things are different now
    }
    if (!waited) {
      co_return not_locked(id, waited.error());
    }
    auto used = use(id, std::move(who), std::move(on_end));
    co_return used;
  }
}

std::vector<Sandboxes::InUse> Sandboxes::uses() const {
  std::vector<InUse> all;
  for (const auto& [id, each] : entries_) {
    for (const Entry::User& user : each->users) {
      all.push_back({id, each->sandbox.user, user.who, user.since});
    }
  }
  return all;
}

bool Sandboxes::active(const std::string& id) const {
  auto found = entry(id);
  if (!found) {
    return false;
  }
  // Those known here need not be asked about; the rest is what a supervisor runs.
  if (!found->users.empty()) {
    return true;
  }
  auto held = os::FileLock::is_held(directory(id) / ".lock");
  return held && *held;
}

awaitable<std::uint64_t> Sandboxes::size(std::string id) {
  auto measure = [tree = directory(id)] { return disk_usage(tree); };
  std::uint64_t bytes = co_await os::offload(*measurers_, std::move(measure));
  co_return bytes;
}

}  // namespace agent
