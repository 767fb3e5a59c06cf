#include "agent/user_locks.h"

#include "agent/log.h"
#include "protocol/wire/scope.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using Change = LockTable::UserLockChange;

// One change from its question to the lock table to the table's change.
class UserLocks::Turn {
 public:
  explicit Turn(UserLocks& locks) : locks_(locks) {}
  ~Turn() {
    locks_.changing_ = false;
    locks_.changed_.notify();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  UserLocks& locks_;
};

wire::UserLockInfo info_of(const UserLock& lock) {
  return {.user = lock.user, .scope = lock.scope, .since = lock.since, .reason = lock.reason};
}

awaitable<result<void>> UserLocks::load() {
  auto record = co_await store_.user_lock();
  if (!record) {
    co_return record.error();
  }
  if (*record) {
    const UserLockRecord& lock = **record;
    locks_.user_lock({lock.user, lock.since, lock.reason, lock.scope});
  }
  co_return result<void>();
}

awaitable<void> UserLocks::take_turn() {
  while (changing_) {
    co_await changed_.wait();
  }
  changing_ = true;
}

wire::Message UserLocks::refused() const {
  const UserLock& lock = *locks_.table().user_lock();
  wire::Refused refused;
  refused.why = "locked";
  refused.box = box_;
  refused.holders.push_back(*locks_.user_lock_holder());
  refused.since = lock.since;
  refused.reason = lock.reason;
  return refused;
}

awaitable<wire::Message> UserLocks::lock(std::string user, std::string scope, std::string reason) {
  co_await take_turn();
  Turn turn(*this);
  Change change = locks_.table().may_lock(user, scope);
  if (change == Change::refused) {
    co_return refused();
  }
  if (change == Change::unchanged) {
    co_return wire::UserLocked{info_of(*locks_.table().user_lock()), false};
  }
  UserLockRecord record{user, os::format_utc(clock_.date()), reason, scope};
  auto written = co_await store_.set_user_lock(record);
  if (!written) {
    co_return wire::Failed{"user_lock", wire::name(written.error().code), written.error().what};
  }
  locks_.user_lock({user, record.since, reason, scope});
  log::peer("user_lock", {{"user", user}, {"scope", scope}});
  co_return wire::UserLocked{info_of(*locks_.table().user_lock()), true};
}

awaitable<wire::Message> UserLocks::unlock(std::string user, std::string scope, bool force) {
  co_await take_turn();
  Turn turn(*this);
  Change change = locks_.table().may_unlock(user, scope, force);
  if (change == Change::refused) {
    co_return refused();
  }
  if (change == Change::unchanged) {
    co_return wire::UserUnlocked{};
  }
  UserLock was = *locks_.table().user_lock();
  bool forced = !was.is_of(user, scope);
  std::optional<NoticeRecord> notice;
  std::int64_t now =
      std::chrono::duration_cast<std::chrono::seconds>(clock_.date().time_since_epoch()).count();
  if (forced) {
    notice = NoticeRecord{.user = was.user,
                          .text = "your lock of this box, taken at " + was.since +
                                  ", was removed by " + wire::shown_user(user, scope) + " at " +
                                  os::format_utc(clock_.date())};
  }
  auto written = co_await store_.set_user_lock(std::nullopt, notice);
  if (!written) {
    co_return wire::Failed{"user_unlock", wire::name(written.error().code), written.error().what};
  }
  locks_.user_unlock(user, scope, force);
  log::peer("user_unlock", {{"user", user}, {"of", was.user}, {"forced", forced ? "yes" : "no"}});
  if (forced) {
    notice->number = *written;
    notices_.added(std::move(*notice));
    store_.audit({now, user, "unlock --force", "",
                  "locked by " + wire::shown_user(was.user, was.scope) + " since " + was.since});
  }
  co_return wire::UserUnlocked{info_of(was)};
}

}  // namespace agent
