#include "agent/notices.h"

#include "agent/log.h"

namespace agent {

awaitable<result<void>> Notices::load() {
  auto records = co_await store_.notices();
  if (!records) {
    co_return records.error();
  }
  for (NoticeRecord& record : *records) {
    added(std::move(record));
  }
  co_return result<void>();
}

void Notices::added(NoticeRecord notice) {
  auto& all = waiting_[notice.user];
  if (all.size() >= Store::kMaxNotices) {
    all.erase(all.begin());
  }
  all.push_back(std::move(notice));
}

awaitable<void> Notices::add(std::string user, std::string text) {
  NoticeRecord notice{.user = std::move(user), .text = std::move(text)};
  auto number = co_await store_.add_notice(notice);
  if (number) {
    notice.number = *number;
  } else {
    log::peer("notice_not_kept", {{"user", notice.user}, {"error", number.error().what}});
  }
  added(std::move(notice));
}

std::vector<NoticeRecord> Notices::of(const std::string& user) const {
  auto found = waiting_.find(user);
  return found == waiting_.end() ? std::vector<NoticeRecord>() : found->second;
}

awaitable<void> Notices::told(NoticeRecord notice) {
  auto found = waiting_.find(notice.user);
  if (found == waiting_.end()) {
    co_return;
  }
  std::erase_if(found->second, [&](const NoticeRecord& each) {
    return each.number == notice.number && each.text == notice.text;
  });
  if (found->second.empty()) {
    waiting_.erase(found);
  }
  auto removed = co_await store_.remove_notice(notice.number);
  (void)removed;  // then it is told again after a restart
}

}  // namespace agent
