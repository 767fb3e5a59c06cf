#include "protocol/sync/opened_up.h"

namespace protocol::sync {

using os::FileInfo;

OpenedUp::~OpenedUp() {
  for (auto at = opened_.rbegin(); at != opened_.rend(); ++at) {
    auto now = root_.info(at->path);
    if (now && *now && (*now)->inode == at->inode && (*now)->mode == at->since)
      (void)root_.set_mode(at->path, at->before);
  }
}

bool OpenedUp::open(const std::string& path) {
  bool changed = false;
  bool deeper = open_one("", changed);
  for (std::size_t end = 0; deeper && !path.empty() && end != std::string::npos;) {
    end = path.find('/', end == 0 ? 0 : end + 1);
    deeper = open_one(path.substr(0, end), changed);
  }
  return changed;
}

// True: a directory in which we may look on.
bool OpenedUp::open_one(const std::string& path, bool& changed) {
  auto info = root_.info(path);
  if (!info || !*info) return false;
  bool directory = (*info)->kind == FileInfo::Kind::directory;
  if (!directory && (*info)->kind != FileInfo::Kind::file) return false;
  std::uint32_t open = (*info)->mode | (directory ? 0700 : 0400);
  if (open == (*info)->mode) return directory;
  if (!root_.set_mode(path, open)) return false;  // somebody else's
  if (!path.empty()) opened_.push_back({path, (*info)->inode, (*info)->mode, open});
  changed = true;
  return directory;
}

}  // namespace protocol::sync
