// What somebody has to be told who was not there when it happened: that a user lock was taken away
// by force, that a detached job was killed or had company. Kept on the disk until a session of that
// user has written it to its client.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "agent/store.h"
#include "protocol/os/async.h"

namespace agent {

class Notices {
 public:
  explicit Notices(Store& store) : store_(store) {}

  // Once, before anybody is let in.
  awaitable<result<void>> load();
  // On the disk when it returns, but for a disk that cannot take it: then it is known until the
  // agent ends.
  awaitable<void> add(std::string user, std::string text);
  // One that the disk has already.
  void added(NoticeRecord notice);

  bool any(const std::string& user) const { return waiting_.count(user) != 0; }
  // Oldest first.
  std::vector<NoticeRecord> of(const std::string& user) const;
  awaitable<void> told(NoticeRecord notice);

 private:
  Store& store_;
  std::map<std::string, std::vector<NoticeRecord>> waiting_;  // by user, never empty
};

}  // namespace agent
