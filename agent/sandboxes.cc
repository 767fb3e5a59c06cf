#include "agent/sandboxes.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/json.hpp>
#include <cassert>

#include "agent/deadline.h"
#include "agent/log.h"
#include "agent/remove_tree.h"
#include "protocol/os/flock.h"
#include "protocol/os/paths.h"
#include "protocol/wire/quoting.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

constexpr std::chrono::seconds kShutdownLimit{30};  // INT, TERM and KILL of every job, and some
constexpr std::chrono::seconds kUsersLimit{30};
constexpr std::chrono::seconds kFlockLimit{10};
constexpr std::int64_t kSaveUseEvery = 60;  // seconds
constexpr std::size_t kShortestPrefix = 4;

std::int64_t seconds_of(os::Clock::system time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

// Reads until so many `ended` have come, or the peer is gone.
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

}  // namespace

bool is_sandbox_id(const std::string& id) {
  return id.size() == 32 && std::all_of(id.begin(), id.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

struct Sandboxes::Entry {
  explicit Entry(os::executor ex) : changed(std::move(ex)) {}

  Sandbox sandbox;
  bool making = false;
  bool ending = false;
  std::int64_t use_saved_at = 0;
  std::list<std::function<void()>> users;
  os::Wakeup changed;  // made, ended, or a user left
};

struct Sandboxes::Use::Place {
  std::shared_ptr<Entry> entry;
  std::list<std::function<void()>>::iterator user;
  os::FileLock lock;  // shared, so that no other program removes the directory either
};

Sandboxes::Use::Use(std::unique_ptr<Place> place) : place_(std::move(place)) {}

Sandboxes::Use::~Use() {
  auto entry = place_->entry;
  entry->users.erase(place_->user);
  place_.reset();
  entry->changed.notify();
}

Sandboxes::Sandboxes(os::executor ex, const os::Clock& clock, std::filesystem::path root,
                     Store& store, Supervisors& supervisors)
    : ex_(std::move(ex)),
      clock_(clock),
      root_(std::move(root)),
      removing_(root_.parent_path() / ".removing"),
      store_(store),
      supervisors_(supervisors),
      saved_(ex_),
      deleters_(std::make_unique<boost::asio::thread_pool>(1)) {}

// What is left to delete is deleted at the next start.
Sandboxes::~Sandboxes() {
  deleters_->stop();
  deleters_->join();
}

std::int64_t Sandboxes::now() const { return seconds_of(clock_.date()); }

std::shared_ptr<Sandboxes::Entry> Sandboxes::entry(const std::string& id) const {
  auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : found->second;
}

awaitable<result<void>> Sandboxes::load() {
  for (const auto& directory : {root_, removing_}) {
    if (auto made = os::make_private_directory(directory); !made) {
      co_return made;
    }
  }
  auto records = co_await store_.sandboxes();
  if (!records) {
    co_return records.error();
  }
  for (Sandbox& record : *records) {
    std::error_code error;
    if (!std::filesystem::is_directory(directory(record.id), error)) {
      // Its removal got as far as this.
      auto removed = co_await store_.remove_sandbox(record.id);
      if (!removed) {
        co_return removed;
      }
      continue;
    }
    auto made = std::make_shared<Entry>(ex_);
    made->use_saved_at = record.used_at;
    std::string id = record.id;
    made->sandbox = std::move(record);
    entries_[id] = std::move(made);
  }
  std::error_code error;
  for (const auto& found : std::filesystem::directory_iterator(root_, error)) {
    if (entries_.count(found.path().filename().string()) == 0) {
      // Its creation never got as far as its record.
      log::info("sandbox_discarded", {{"sandbox", found.path().filename().string()}});
      if (auto discarded = discard(found.path()); !discarded) {
        co_return discarded;
      }
    }
  }
  for (const auto& found : std::filesystem::directory_iterator(removing_, error)) {
    boost::asio::post(*deleters_, [path = found.path()] {
      auto removed = remove_tree(path);
      (void)removed;  // it is tried again at the next start
    });
  }
  co_return result<void>();
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

std::optional<Sandbox> Sandboxes::find(const std::string& id, const std::string& user) const {
  auto found = entry(id);
  if (!found || found->making || found->ending || found->sandbox.user != user) {
    return std::nullopt;
  }
  return found->sandbox;
}

std::optional<std::string> Sandboxes::owner(const std::string& id) const {
  auto found = entry(id);
  if (!found || found->ending) {
    return std::nullopt;
  }
  return found->sandbox.user;
}

std::vector<Sandbox> Sandboxes::of(const std::string& user) const {
  std::vector<Sandbox> all;
  for (const auto& [id, each] : entries_) {
    if (each->sandbox.user == user && !each->making && !each->ending) {
      all.push_back(each->sandbox);
    }
  }
  return all;
}

result<Sandbox> Sandboxes::resolve(const std::string& name, const std::string& user) const {
  auto mine = of(user);
  if (name == "sandbox" || name == "rwx-cli") {
    auto latest = std::max_element(mine.begin(), mine.end(), [](const auto& a, const auto& b) {
      return a.used_at < b.used_at;
    });
    if (latest == mine.end()) {
      return Failure(Errc::not_found,
                     user + " has no sandbox on this box; `sandbox start` makes one");
    }
    return *latest;
  }
  std::vector<Sandbox> matches;
  for (const Sandbox& sandbox : mine) {
    if (sandbox.id == name) {
      return sandbox;
    }
    if (name.size() >= kShortestPrefix && sandbox.id.rfind(name, 0) == 0) {
      matches.push_back(sandbox);
    }
  }
  if (matches.size() == 1) {
    return matches.front();
  }
  std::string shown = wire::printable(name, 80);
  if (matches.empty()) {
    return Failure(Errc::not_found, "no sandbox " + shown + " of " + user +
                                        " on this box; `sandbox list` shows their ids");
  }
  return Failure(Errc::refused, std::to_string(matches.size()) + " sandboxes begin with " + shown +
                                    "; give more of the id");
}

result<void> Sandboxes::make_directories(const Sandbox& sandbox) const {
  auto top = directory(sandbox.id);
  for (const auto& each : {top, top / "workspace", top / "home", top / "logs"}) {
    if (auto made = os::make_private_directory(each); !made) {
      return made;
    }
  }
  boost::json::object metadata{{"version", 1},
                               {"id", sandbox.id},
                               {"user", sandbox.user},
                               {"project", wire::printable(sandbox.project)},
                               {"branch", wire::printable(sandbox.branch)},
                               {"config", wire::printable(sandbox.config)},
                               {"isolation", sandbox.isolation},
                               {"createdAt", os::format_utc(clock_.date())}};
  return os::write_file(top / "metadata.json", boost::json::serialize(metadata) + "\n");
}

awaitable<result<Sandbox>> Sandboxes::create(wire::Create wanted, std::string user) {
  while (auto there = entry(wanted.sandbox)) {
    if (there->sandbox.user != user) {
      co_return Failure(Errc::exists, "sandbox " + wanted.sandbox + " is somebody else's");
    }
    if (!there->making && !there->ending) {
      co_return there->sandbox;
    }
    co_await there->changed.wait();
  }
  if (of(user).size() >= kMaxPerUser) {
    co_return Failure(Errc::too_large, user + " has " + std::to_string(kMaxPerUser) +
                                           " sandboxes on this box; `sandbox stop` ends one");
  }
  auto made = std::make_shared<Entry>(ex_);
  Sandbox& sandbox = made->sandbox;
  sandbox.id = wanted.sandbox;
  sandbox.user = user;
  sandbox.project = wanted.project;
  sandbox.branch = wanted.branch;
  sandbox.config = wanted.config;
  sandbox.isolation = wanted.isolation;
  sandbox.created_at = sandbox.used_at = now();
  made->use_saved_at = sandbox.used_at;
  made->making = true;
  entries_[sandbox.id] = made;

  auto kept = make_directories(sandbox);
  if (kept) {
    auto saved = co_await store_.put_sandbox(sandbox);
    kept = saved;
  }
  made->making = false;
  made->changed.notify();
  if (!kept) {
    entries_.erase(sandbox.id);
    auto discarded = discard(directory(sandbox.id));
    (void)discarded;  // what could not be made may not be there; the next start looks again
    co_return kept.error();
  }
  log::peer("sandbox_made", {{"sandbox", sandbox.id}, {"user", user}});
  co_return sandbox;
}

awaitable<result<Sandbox>> Sandboxes::set_ready(std::string id) {
  auto found = entry(id);
  if (!found || found->ending) {
    co_return Failure(Errc::not_found, "no sandbox " + id);
  }
  Sandbox wanted = found->sandbox;
  wanted.ready = true;
  auto saved = co_await store_.put_sandbox(wanted);
  if (!saved) {
    co_return saved.error();
  }
  found->sandbox.ready = true;
  co_return found->sandbox;
}

void Sandboxes::save_later(const Sandbox& sandbox) {
  ++saving_;
  os::spawn(ex_, "sandbox record", [](Sandboxes& self, Sandbox record) -> awaitable<void> {
    auto saved = co_await self.store_.put_sandbox(record);
    if (!saved) {
      log::peer("sandbox_not_saved", {{"sandbox", record.id}, {"error", saved.error().what}});
    }
    --self.saving_;
    self.saved_.notify();
  }(*this, sandbox));
}

awaitable<void> Sandboxes::settled() {
  while (saving_ > 0) {
    co_await saved_.wait();
  }
}

void Sandboxes::note_synced(const std::string& id) {
  auto found = entry(id);
  if (found && !found->ending && !std::exchange(found->sandbox.synced, true)) {
    save_later(found->sandbox);
  }
}

result<std::unique_ptr<Sandboxes::Use>> Sandboxes::use(const std::string& id,
                                                       std::function<void()> on_end) {
  auto found = entry(id);
  if (!found || found->making || found->ending) {
    return Failure(Errc::not_found, "no sandbox " + wire::printable(id, 80));
  }
  auto lock = os::FileLock::try_lock(directory(id) / ".lock", os::FileLock::Kind::shared);
  if (!lock) {
    if (lock.error().code == Errc::busy) {
      return Failure(Errc::busy, "sandbox " + id + " is being removed by another program");
    }
    return lock.error();
  }
  found->sandbox.used_at = now();
  if (found->sandbox.used_at - found->use_saved_at >= kSaveUseEvery) {
    found->use_saved_at = found->sandbox.used_at;
    save_later(found->sandbox);
  }
  auto user = found->users.insert(found->users.end(), std::move(on_end));
  return std::unique_ptr<Use>(
      new Use(std::make_unique<Use::Place>(Use::Place{found, user, std::move(*lock)})));
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
  auto users = found->users;
  for (const auto& on_end : users) {
    on_end();
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

wire::SandboxInfo Sandboxes::info(const Sandbox& sandbox) const {
  auto date = [](std::int64_t seconds) {
    return os::format_utc(os::Clock::system(std::chrono::seconds(seconds)));
  };
  wire::SandboxInfo info;
  info.sandbox = sandbox.id;
  info.user = sandbox.user;
  info.project = sandbox.project;
  info.branch = sandbox.branch;
  info.config = sandbox.config;
  info.state = sandbox.ready ? "ready" : "starting";
  info.created_at = date(sandbox.created_at);
  info.used_at = date(sandbox.used_at);
  return info;
}

}  // namespace agent
