#include "cli/session_locks.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <tuple>

#include "cli/error.h"
#include "cli/ids.h"
#include "cli/waiting_line.h"
#include "protocol/os/beneath.h"
#include "protocol/os/paths.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace fs = std::filesystem;
namespace json = boost::json;
namespace os = protocol::os;
using protocol::wire::Errc;

namespace {

// Ending a sandbox is given up by the box long before this.
constexpr std::chrono::minutes kRemovalLimit{5};
// Whoever only asks holds a lock for an instant.
constexpr std::chrono::milliseconds kAskingLimit{200};
constexpr std::size_t kMostRecordBytes = 64 * 1024;
constexpr int kRecordTries = 3;
constexpr const char* kRecordEnd = ".session";

UserError unusable(const std::string& sandbox, const std::string& why) {
  return UserError("storage", "cannot take the session lock of the sandbox " + sandbox + ": " + why,
                   "Make that directory writable, or set SANDBOX_STATE_DIR to one that is. Nothing "
                   "was sent or run.");
}

json::object encode(const LocalSession& session) {
  json::object out;
  out["sandbox"] = session.sandbox;
  out["box"] = json_text(session.box);
  out["verb"] = session.verb;
  out["command"] = json_text(session.command);
  out["since"] = session.since;
  out["pid"] = session.pid;
  return out;
}

std::optional<LocalSession> decode(const fs::path& file) {
  auto bytes = os::read_file(file, kMostRecordBytes);
  if (!bytes) {
    return std::nullopt;
  }
  boost::system::error_code error;
  json::value value = json::parse(*bytes, error);
  if (error || !value.is_object()) {
    return std::nullopt;
  }
  auto member = [&value](const char* name) {
    const json::value* found = value.get_object().if_contains(name);
    return found != nullptr && found->is_string() ? std::string(found->get_string())
                                                  : std::string();
  };
  LocalSession session;
  session.sandbox = member("sandbox");
  session.box = member("box");
  session.verb = member("verb");
  session.command = member("command");
  session.since = member("since");
  const json::value* pid = value.get_object().if_contains("pid");
  if (pid != nullptr && pid->is_int64()) {
    session.pid = static_cast<int>(pid->get_int64());
  }
  return session;
}

// A record comes into being locked, so that nobody takes it for a dead command's. Without one a
// session is as good, but not named.
std::optional<os::FileLock> write_record(const fs::path& record, const LocalSession& session) {
  fs::path unnamed = record.string() + ".new";
  for (int tried = 0; tried < kRecordTries; ++tried) {
    auto lock = os::FileLock::try_lock(unnamed, os::FileLock::Kind::exclusive);
    os::Fd fd(::open(unnamed.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
    if (lock && fd && os::write_all(fd.get(), json::serialize(encode(session)) + "\n") &&
        ::rename(unnamed.c_str(), record.c_str()) == 0) {
      return std::move(*lock);
    }
  }
  return std::nullopt;
}

}  // namespace

SessionLock::SessionLock(os::FileLock lock, fs::path record,
                         std::optional<os::FileLock> record_lock)
    : lock_(std::move(lock)), record_(std::move(record)), record_lock_(std::move(record_lock)) {}

SessionLock::~SessionLock() {
  if (record_lock_) {
    ::unlink(record_.c_str());
  }
}

fs::path SessionLocks::lock_file(const std::string& sandbox) const {
  return directory_ / (sandbox + ".lock");
}

void SessionLocks::make_directory() const {
  if (auto made = os::make_private_directory(directory_); !made) {
    throw UserError("storage", "cannot keep session locks: " + made.error().what,
                    "Make that directory writable, or set SANDBOX_STATE_DIR to one that is.");
  }
}

os::awaitable<std::unique_ptr<SessionLock>> SessionLocks::hold(os::executor executor,
                                                               Output& output,
                                                               LocalSession wanted) const {
  LocalSession session = std::move(wanted);
  if (!is_plain_id(session.sandbox)) {
    throw unusable(protocol::wire::printable(session.sandbox, 80), "that is no sandbox's id");
  }
  fs::path file = lock_file(session.sandbox);
  fs::path record =
      directory_ / (session.sandbox + "." + os::random_hex(16) + std::string(kRecordEnd));
  make_directory();
  WaitingLine waiting(executor, output,
                      "waiting for the process that is removing the sandbox " + session.sandbox);
  auto lock = co_await os::FileLock::lock_async(executor, file, os::FileLock::Kind::shared,
                                                std::chrono::steady_clock::now() + kRemovalLimit);
  if (!lock) {
    throw unusable(session.sandbox, lock.error().what);
  }
  auto record_lock = write_record(record, session);
  co_return std::make_unique<SessionLock>(std::move(*lock), record, std::move(record_lock));
}

bool SessionLocks::in_use(const std::string& sandbox) const {
  if (!is_plain_id(sandbox)) {
    return false;
  }
  auto held = os::FileLock::is_held(lock_file(sandbox));
  return held && *held;
}

os::awaitable<std::optional<os::FileLock>> SessionLocks::take(os::executor executor,
                                                              std::string sandbox) const {
  if (!is_plain_id(sandbox)) {
    throw unusable(protocol::wire::printable(sandbox, 80), "that is no sandbox's id");
  }
  make_directory();
  auto lock =
      co_await os::FileLock::lock_async(executor, lock_file(sandbox), os::FileLock::Kind::exclusive,
                                        std::chrono::steady_clock::now() + kAskingLimit);
  std::optional<os::FileLock> taken;
  if (lock) {
    taken = std::move(*lock);
  } else if (lock.error().code != Errc::timed_out) {
    throw unusable(sandbox, lock.error().what);
  }
  co_return taken;
}

std::vector<LocalSession> SessionLocks::sessions() const {
  std::vector<LocalSession> live;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    const fs::path& file = entry.path();
    bool record = file.extension() == kRecordEnd;
    if (!record && file.extension() != ".new") {
      continue;
    }
    auto held = os::FileLock::is_held(file);
    if (held && !*held) {
      ::unlink(file.c_str());
    } else if (auto session = record ? decode(file) : std::nullopt) {
      live.push_back(std::move(*session));
    }
  }
  std::sort(live.begin(), live.end(), [](const LocalSession& a, const LocalSession& b) {
    return std::tie(a.since, a.pid) < std::tie(b.since, b.pid);
  });
  return live;
}

}  // namespace cli
