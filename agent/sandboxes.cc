#include "agent/sandboxes.h"

#include <algorithm>
#include <boost/json.hpp>

#include "agent/log.h"
#include "agent/sandbox_entry.h"
#include "protocol/os/paths.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

constexpr std::size_t kShortestPrefix = 4;

std::int64_t seconds_of(os::Clock::system time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

}  // namespace

bool is_sandbox_id(const std::string& id) {
  return id.size() == 32 && std::all_of(id.begin(), id.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
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
      deleters_(std::make_unique<boost::asio::thread_pool>(1)),
      measurers_(std::make_unique<boost::asio::thread_pool>(1)) {}

// What is left to delete is deleted at the next start.
Sandboxes::~Sandboxes() {
  for (auto* pool : {deleters_.get(), measurers_.get()}) {
    pool->stop();
    pool->join();
  }
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
    auto found = std::filesystem::symlink_status(directory(record.id), error);
    if (found.type() == std::filesystem::file_type::not_found) {
      // Its removal got as far as this. One that only cannot be looked at keeps its record.
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
    std::string id = found.path().filename().string();
    if (entries_.count(id) != 0 || !is_sandbox_id(id)) {
      continue;
    }
    if (may_hold_work(id)) {
      log::warn("sandbox_without_record", {{"directory", found.path().string()}});
      continue;
    }
    // Its creation never got as far as its record.
    log::info("sandbox_discarded", {{"sandbox", id}});
    if (auto discarded = discard(found.path()); !discarded) {
      co_return discarded;
    }
  }
  reclaim(false);
  co_return result<void>();
}

bool Sandboxes::may_hold_work(const std::string& id) const {
  std::error_code error;
  auto store = std::filesystem::symlink_status(directory(id) / "store.git", error);
  return store.type() != std::filesystem::file_type::not_found;
}

std::optional<Sandbox> Sandboxes::find(const std::string& id, const std::string& user) const {
  auto found = entry(id);
  if (!found || found->making || found->ending || found->sandbox.user != user) {
    return std::nullopt;
  }
  return found->sandbox;
}

std::optional<Sandbox> Sandboxes::record(const std::string& id) const {
  auto found = entry(id);
  return found ? std::optional(found->sandbox) : std::nullopt;
}

std::optional<std::string> Sandboxes::owner(const std::string& id) const {
  auto found = entry(id);
  if (!found || found->ending) {
    return std::nullopt;
  }
  return found->sandbox.user;
}

std::vector<std::string> Sandboxes::ids() const {
  std::vector<std::string> all;
  for (const auto& [id, each] : entries_) {
    if (!each->making && !each->ending) {
      all.push_back(id);
    }
  }
  return all;
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

std::optional<Sandbox> Sandboxes::named(const std::string& name) const {
  std::optional<Sandbox> found;
  for (const auto& [id, each] : entries_) {
    bool is_it = id == name;
    if (!is_it && (name.size() < kShortestPrefix || id.rfind(name, 0) != 0)) {
      continue;
    }
    if (found && !is_it) {
      return std::nullopt;
    }
    found = each->sandbox;
    if (is_it) {
      break;
    }
  }
  return found;
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
                               {"network", sandbox.network},
                               {"createdAt", os::format_utc(clock_.date())}};
  return os::write_file(top / "metadata.json", boost::json::serialize(metadata) + "\n");
}

awaitable<result<Sandbox>> Sandboxes::create(wire::Create wanted, std::string user) {
  while (auto there = entry(wanted.sandbox)) {
    if (there->sandbox.user != user) {
      co_return Failure(Errc::exists, "sandbox " + wanted.sandbox + " is somebody else's");
    }
    if (there->settled()) {
      co_return there->sandbox;
    }
    co_await there->changed.wait();
  }
  if (may_hold_work(wanted.sandbox)) {
    co_return Failure(Errc::exists, directory(wanted.sandbox).string() +
                                        " is there already, of a sandbox that this agent has no "
                                        "record of: move it away to make another");
  }
  if (of(user).size() >= wire::kMaxSandboxes) {
    co_return Failure(Errc::too_large, user + " has " + std::to_string(wire::kMaxSandboxes) +
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
  sandbox.network = wanted.network;
  sandbox.limits = wanted.limits;
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
  info.active = active(sandbox.id);
  return info;
}

}  // namespace agent
