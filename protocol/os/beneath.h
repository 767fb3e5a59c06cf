// Files beneath one root directory: no call follows a link, and none leaves the root, whatever
// stands in the tree and whoever changes it meanwhile. Linux resolves paths with openat2
// (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS); the portable way opens one component at a time with
// O_NOFOLLOW. Knows nothing of git or of which names are allowed.
//
// Paths are bytes, relative to the root, their components joined by single slashes; "" is the root
// itself. An absolute path, an empty, `.` or `..` component and a NUL byte are Errc::bad_input. A
// link or a file where a directory has to be is Errc::refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/os/fd.h"
#include "protocol/os/file_info.h"
#include "protocol/wire/result.h"

namespace protocol::os {

using wire::result;

// Temporary files are called this and a number, beside the file that they become. Whoever lists a
// tree leaves them out.
inline constexpr std::string_view kTemporaryPrefix = ".sandbox-tmp-";

class Beneath;

// A new file that has no place yet. The destructor removes it.
class TemporaryFile {
 public:
  TemporaryFile(TemporaryFile&& other) noexcept;
  TemporaryFile& operator=(TemporaryFile&& other) noexcept;
  ~TemporaryFile();
  int fd() const { return fd_.get(); }  // open for reading and writing; -1 for a link
  // All of it; Errc::no_space or io.
  result<void> write(std::string_view bytes);
  result<void> set_mode(std::uint32_t mode);
  result<void> sync();
  void close() { fd_.reset(); }  // before placing many, so that descriptors do not run out

 private:
  friend class Beneath;
  TemporaryFile(Fd parent, Fd fd, std::string name);
  void remove() noexcept;
  Fd parent_, fd_;
  std::string name_;
};

class Beneath {
 public:
  enum class Way { best, portable };
  // The root itself may be reached through links; it stays this directory even when it is renamed.
  // Errc::not_found, denied, or refused when it is not a directory.
  static result<Beneath> open(const std::filesystem::path& root, Way way = Way::best);
  Beneath(Beneath&&) noexcept = default;
  Beneath& operator=(Beneath&&) noexcept = default;

  int fd() const { return root_.get(); }

  // std::nullopt: nothing there, or something above it is missing or not a directory.
  result<std::optional<FileInfo>> info(std::string_view path) const;
  // A regular file, open for reading, and what fstat says of it. Errc::not_found, denied; refused
  // for all that is not a regular file.
  result<Fd> open_file(std::string_view path, FileInfo* info = nullptr) const;
  result<Fd> open_directory(std::string_view path) const;
  // A whole small file. Errc::too_large above `limit`.
  result<std::string> read_file(std::string_view path, std::size_t limit) const;
  result<std::string> read_link(std::string_view path) const;
  // Names in a directory, unsorted, without `.` and `..`.
  result<std::vector<std::string>> list(std::string_view directory) const;

  // Makes the directory and those above it. A directory that is there already is fine.
  result<void> make_directories(std::string_view path) const;

  // An empty file in the directory of `path`, which has to be there. The umask applies to `mode`.
  result<TemporaryFile> create(std::string_view path, std::uint32_t mode = 0600) const;
  // A link that has no place yet.
  result<TemporaryFile> create_link(std::string_view path, const std::string& target) const;
  // Puts it in place in one step. With `expected`, only when the place holds exactly that
  // (std::nullopt: nothing); false: something else is there now, which stays as it is. A directory
  // is never replaced: Errc::exists.
  result<bool> place(TemporaryFile file, std::string_view path,
                     const std::optional<FileInfo>& expected) const;
  result<void> place(TemporaryFile file, std::string_view path) const;

  // A file or link; one that is not there is fine. With `expected`: false, and nothing is removed,
  // when something else is there.
  result<void> remove_file(std::string_view path) const;
  result<bool> remove_file(std::string_view path, const FileInfo& expected) const;
  // False: it is not empty. One that is not there is fine.
  result<bool> remove_directory(std::string_view path) const;
  // All that is in it, and itself; links are removed, not followed.
  result<void> remove_all(std::string_view path) const;
  // Moves within the root, replacing a file.
  result<void> rename(std::string_view from, std::string_view to) const;

  // Of a regular file or directory, the root included.
  result<void> set_mode(std::string_view path, std::uint32_t mode) const;
  result<void> sync_directory(std::string_view path) const;
  // Everything written so far beneath the root is on the disk.
  result<void> sync_all() const;

  // Tests only: asked before every call that changes a file; an errno value makes that call fail
  // with it, 0 lets it happen.
  static void set_fault(std::function<int(std::string_view operation)> fault);

 private:
  Beneath(Fd root, bool portable) : root_(std::move(root)), portable_(portable) {}
  struct Place {
    Fd parent;
    std::string name;
  };
  result<Place> locate(std::string_view path) const;
  result<Fd> resolve(std::string_view path, int flags) const;
  result<Fd> resolve_portably(std::string_view path, int flags) const;

  Fd root_;
  mutable bool portable_ = false;
};

}  // namespace protocol::os
