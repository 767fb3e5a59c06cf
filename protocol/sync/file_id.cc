#include "protocol/sync/file_id.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "protocol/sync/object_id.h"

namespace protocol::sync {

using os::FileInfo;
using wire::Errc;
using wire::Failure;

result<Identity> identify(const os::Beneath& root, const std::string& path,
                          std::string_view format) {
  Identity identity;
  auto info = root.info(path);
  if (!info) return info.error();
  identity.info = *info;
  Failure changed(Errc::busy, path + ": it changed while it was read");
  if (!*info) return identity;
  if ((*info)->kind == FileInfo::Kind::link) {
    auto target = root.read_link(path);
    if (!target) return changed;
    identity.wanted = Wanted{kModeLink, blob_id(format, *target)};
    return identity;
  }
  if ((*info)->kind != FileInfo::Kind::file) return identity;

  FileInfo opened;
  auto fd = root.open_file(path, &opened);
  if (!fd && fd.error().code == Errc::denied) return fd.error();
  if (!fd) return changed;
  ObjectHash hash(format, "blob", opened.size);
  std::array<char, 128 * 1024> buffer;
  std::uint64_t rest = opened.size;
  while (rest > 0) {
    ssize_t count = ::read(fd->get(), buffer.data(), std::min<std::uint64_t>(buffer.size(), rest));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return os::errno_failure(errno, path);
    if (count == 0) return changed;
    hash.update({buffer.data(), static_cast<std::size_t>(count)});
    rest -= static_cast<std::uint64_t>(count);
  }
  auto after = root.info(path);
  if (!after) return after.error();
  if (!*after || !(*after)->same_content(**info) || !opened.same_content(**info)) return changed;
  identity.wanted = Wanted{(opened.mode & 0100) != 0 ? kModeProgram : kModeFile, hash.finish()};
  return identity;
}

}  // namespace protocol::sync
