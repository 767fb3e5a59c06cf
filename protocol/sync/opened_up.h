// Files and directories of a workspace that were shut against their own owner (`chmod 000`), opened
// for as long as this lives: what a command hid from us would be lost or taken for gone. For the
// box only, whose workspace is ours; a user's own work tree is left as it is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "protocol/os/beneath.h"

namespace protocol::sync {

class OpenedUp {
 public:
  // `root` outlives this.
  explicit OpenedUp(const os::Beneath& root) : root_(root) {}
  // Modes are again what they were, but for the root's and those that somebody has set meanwhile.
  ~OpenedUp();
  OpenedUp(const OpenedUp&) = delete;
  OpenedUp& operator=(const OpenedUp&) = delete;

  // Lets the owner read the file at `path`, or read, search and write the directory there, and the
  // same for every directory above; "" is the root. True: something was shut, and looking again
  // may show more.
  bool open(const std::string& path);

 private:
  struct Opened {
    std::string path;
    std::uint64_t inode;
    std::uint32_t before, since;  // modes
  };
  bool open_one(const std::string& path, bool& changed);

  const os::Beneath& root_;
  std::vector<Opened> opened_;
};

}  // namespace protocol::sync
