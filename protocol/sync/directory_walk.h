// Looking at many files of a tree in path order: each directory is opened once, one component at a
// time, and no link is followed. For single files os::Beneath is simpler.
#pragma once

#include <dirent.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/os/beneath.h"
#include "protocol/os/fd.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

using wire::result;

class DirectoryWalk {
 public:
  // `root` outlives this.
  explicit DirectoryWalk(const os::Beneath& root) : root_(root.fd()) {}

  // std::nullopt: nothing is there, or a link or file stands above it. A failure (Errc::denied,
  // io): nobody knows what is there; its `what` is the system's word alone. "" is the root.
  result<std::optional<os::FileInfo>> info(std::string_view path);
  // For reading, without waiting for anything (a pipe's writer). An Fd that is empty: errno says
  // why.
  os::Fd open_file(std::string_view path);
  std::optional<std::string> read_link(std::string_view path);
  struct Child {
    std::string name;
    unsigned char type = DT_UNKNOWN;
  };
  // What is in a directory, without `.` and `..`. Errc::denied, not_found, io; `what` is the
  // system's word alone.
  result<std::vector<Child>> list(std::string_view path);

 private:
  int directory(std::string_view path);  // -1: errno says why
  int parent(std::string_view path, std::string& name);
  struct Level {
    std::string path;
    os::Fd fd;
  };
  int root_;
  std::vector<Level> open_;
  std::string failed_;  // the last directory that could not be opened
  int failed_errno_ = 0;
};

}  // namespace protocol::sync
