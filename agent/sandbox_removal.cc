// How a sandbox ends: its users leave, its supervisor ends what runs, its directory goes.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <charconv>
#include <optional>

#include "agent/deadline.h"
#include "agent/log.h"
#include "agent/remove_tree.h"
#include "agent/sandbox_entry.h"
#include "protocol/os/flock.h"
#include "protocol/os/paths.h"
#include "protocol/wire/quoting.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

constexpr std::chrono::seconds kUsersLimit{30};
constexpr std::chrono::seconds kFlockLimit{10};
// Whoever only asks whether it is in use has the lock for an instant.
constexpr std::chrono::milliseconds kAskedLimit{200};
constexpr std::chrono::seconds kLookLimit{120};  // at every file of a workspace
constexpr std::uint32_t kRequest = 1;
constexpr std::size_t kNamed = 5;

// The process at the end of a staged directory's name; 0: it is no such name.
pid_t staging_process(const std::string& name) {
  auto dash = name.rfind('-');
  if (dash == std::string::npos) {
    return 0;
  }
  pid_t pid = 0;
  const char* end = name.data() + name.size();
  auto parsed = std::from_chars(name.data() + dash + 1, end, pid);
  return parsed.ec == std::errc() && parsed.ptr == end && pid > 0 ? pid : 0;
}

// What a supervisor answers, if it does.
awaitable<void> read_answer(os::FrameStream& frames, std::optional<wire::Message>& answer) {
  for (;;) {
    auto frame = co_await frames.read();
    if (!frame || !*frame) {
      co_return;
    }
    if ((*frame)->kind != wire::FrameKind::control || (*frame)->request != kRequest) {
      continue;
    }
    auto message = wire::decode((*frame)->payload);
    if (message && (std::holds_alternative<wire::Unpulled>(*message) ||
                    std::holds_alternative<wire::Failed>(*message))) {
      answer = std::move(*message);
      co_return;
    }
  }
}

std::string names_of(const std::vector<std::string>& all) {
  std::string text;
  for (std::size_t i = 0; i < std::min(all.size(), kNamed); ++i) {
    text += (i == 0 ? "" : ", ") + wire::printable(all[i], 200);
  }
  return all.size() > kNamed ? text + " and " + std::to_string(all.size() - kNamed) + " more"
                             : text;
}

std::string describe(const wire::Unpulled& lost) {
  std::string text;
  auto add = [&text](const std::string& part) { text += (text.empty() ? "" : "; ") + part; };
  if (!lost.files.empty()) {
    add("changed files that were never pulled: " + names_of(lost.files));
  } else if (lost.results > 0) {
    add("changes that were never pulled");
  }
  if (!lost.commits.empty()) {
    add("commits that were never pulled: " + names_of(lost.commits));
  }
  if (lost.drifts > 0) {
    add("files that were changed beside the commands, kept when a sync replaced them");
  }
  return text;
}

}  // namespace

awaitable<void> read_ended(os::FrameStream& frames, std::size_t& count) {
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
  co_await decided(id);
  if (entry(id) != found) {
    co_return result<void>();
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
  auto forgotten = co_await forget(id, found);
  co_return forgotten;
}

awaitable<result<void>> Sandboxes::remove_if_idle(std::string id, IdleRemoval how) {
  co_await decided(id);
  auto found = entry(id);
  if (!found) {
    co_return Failure(Errc::not_found, "no sandbox " + wire::printable(id, 80));
  }
  found->deciding = true;
  auto removed = co_await remove_idle_now(id, found, std::move(how));
  found->deciding = false;
  found->changed.notify();
  co_return removed;
}

awaitable<result<void>> Sandboxes::remove_idle_now(std::string id, std::shared_ptr<Entry> found,
                                                   IdleRemoval how) {
  auto in_use = [&]() -> std::string {
    if (!found->users.empty()) {
      const SandboxUse& who = found->users.front().who;
      if (!who.session) {
        return who.user + " has a detached command in it: " + who.command;
      }
      std::string doing = who.verb + (who.command.empty() ? "" : " ") + who.command;
      return who.user + " is attached to it" + (doing.empty() ? "" : ": " + doing);
    }
    return how.claims ? how.claims() : std::string();
  };
  if (auto who = in_use(); !who.empty()) {
    co_return Failure(Errc::busy, who);
  }
  auto lock = co_await os::FileLock::lock_async(
      ex_, directory(id) / ".lock", os::FileLock::Kind::exclusive, clock_.now() + kAskedLimit);
  if (!lock && lock.error().code == Errc::timed_out) {
    co_return Failure(Errc::busy, "something runs in it");
  }
  if (!lock) {
    co_return lock.error();
  }
  if (how.keep_unpulled) {
    auto kept = co_await refuse_unpulled(id);
    if (!kept) {
      co_return kept;
    }
  }
  // A stock client may have asked for its lock meanwhile.
  if (auto who = in_use(); !who.empty()) {
    co_return Failure(Errc::busy, who);
  }
  if (how.dry_run) {
    co_return result<void>();
  }
  auto ended = co_await shut_down(id);
  if (!ended) {
    co_return ended;
  }
  auto forgotten = co_await forget(id, found);
  co_return forgotten;
}

// The directory first: a record without one is a removal to be finished, a directory without a
// record may hold work of which nothing else is known.
awaitable<result<void>> Sandboxes::forget(std::string id, std::shared_ptr<Entry> found) {
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
  std::size_t left = 1;
  std::function<void()> cut = [&frames] { frames.close(); };
  bool in_time = co_await within(ex_, kShutdownLimit, read_ended(frames, left), cut);
  if (!in_time) {
    co_return Failure(Errc::busy, "sandbox " + id + " does not end what runs in it");
  }
  co_return result<void>();
}

// Named for the process that deletes it: when that has died, somebody else has to.
result<void> Sandboxes::discard(const std::filesystem::path& directory) {
  auto target = removing_ / (directory.filename().string() + "." + os::random_hex(8) + "-" +
                             std::to_string(::getpid()));
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
  remove_in_background(target);
  return {};
}

void Sandboxes::remove_in_background(std::filesystem::path staged) {
  deleting_->insert(staged);
  boost::asio::post(*deleters_, [staged = std::move(staged), ex = ex_, deleting = deleting_] {
    auto removed = remove_tree(staged);
    (void)removed;  // it is tried again by the next prune, and at the next start
    boost::asio::post(ex, [staged, deleting] { deleting->erase(staged); });
  });
}

std::size_t Sandboxes::reclaim(bool dry_run) {
  std::size_t count = 0;
  std::error_code error;
  for (const auto& found : std::filesystem::directory_iterator(removing_, error)) {
    pid_t pid = staging_process(found.path().filename().string());
    bool alive = pid != ::getpid() && (::kill(pid, 0) == 0 || errno == EPERM);
    std::error_code unreadable;
    if (pid <= 0 || alive || deleting_->count(found.path()) != 0 ||
        found.symlink_status(unreadable).type() != std::filesystem::file_type::directory) {
      continue;
    }
    ++count;
    if (!dry_run) {
      log::info("removal_reclaimed", {{"directory", found.path().filename().string()}});
      remove_in_background(found.path());
    }
  }
  return count;
}

// ---- what would be lost ----------------------------------------------------------------------

awaitable<result<void>> Sandboxes::refuse_unpulled(std::string id) {
  auto lost = co_await unpulled(id);
  if (!lost) {
    co_return Failure(Errc::refused, "whether it has work that was never pulled cannot be told: " +
                                         lost.error().what);
  }
  if (!lost->empty()) {
    co_return Failure(Errc::refused, *lost);
  }
  co_return result<void>();
}

awaitable<result<std::string>> Sandboxes::unpulled(std::string id) {
  wire::Hello hello;
  auto connection = co_await supervisors_.find(directory(id), hello);
  bool ran = connection.has_value();
  if (!ran) {
    connection = co_await supervisors_.connect(directory(id), hello);
  }
  if (!connection) {
    co_return connection.error();
  }
  os::FrameStream& frames = *connection->frames;
  frames.send(kRequest, wire::UnpulledRequest{});
  std::optional<wire::Message> answer;
  std::function<void()> cut = [&frames] { frames.close(); };
  co_await within(ex_, kLookLimit, read_answer(frames, answer), cut);
  frames.close();
  if (!ran) {
    auto ended = co_await shut_down(id);  // as it was found
    (void)ended;                          // it ends by itself when nobody uses it
  }
  if (!answer) {
    co_return Failure(Errc::timed_out, "its supervisor does not answer");
  }
  if (const auto* failed = std::get_if<wire::Failed>(&*answer)) {
    co_return Failure(wire::errc_from_name(failed->code), failed->message);
  }
  co_return describe(std::get<wire::Unpulled>(*answer));
}

}  // namespace agent
