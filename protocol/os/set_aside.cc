#include "protocol/os/set_aside.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "protocol/os/fd.h"

namespace protocol::os {

wire::result<std::filesystem::path> set_aside(const std::filesystem::path& file) {
  for (int n = 1;; ++n) {
    std::filesystem::path aside = file.string() + ".damaged-" + std::to_string(n);
    struct stat found {};
    if (::lstat(aside.c_str(), &found) == 0) continue;
    if (::rename(file.c_str(), aside.c_str()) != 0) return errno_failure(errno, file.string());
    return aside;
  }
}

}  // namespace protocol::os
