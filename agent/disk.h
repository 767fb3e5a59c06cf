// What the agent does with its own state directory: small files that survive a crash, locks beside
// them, and the removal of a sandbox's tree. Everything made here is the user's alone (0600, 0700).
// All calls block.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/os/fd.h"
#include "protocol/wire/result.h"

namespace agent::disk {

using protocol::wire::result;

// A flock, held while this value lives. Its descriptor reaches no child, and the kernel frees it
// with its holder, so a file that is left over is harmless. Files are made when missing, never
// unlinked, never followed when they are links.
class FileLock {
 public:
  static result<FileLock> exclusive(const std::filesystem::path& file);  // waits
  // std::nullopt when others are in the way.
  static result<std::optional<FileLock>> try_exclusive(const std::filesystem::path& file);
  static result<std::optional<FileLock>> try_shared(const std::filesystem::path& file);

 private:
  explicit FileLock(protocol::os::Fd fd) : fd_(std::move(fd)) {}
  static result<std::optional<FileLock>> take(const std::filesystem::path& file, int operation);
  protocol::os::Fd fd_;
};

// Makes the directory and those above it, 0700 where it makes one; an existing one of ours is made
// 0700.
result<void> make_directory(const std::filesystem::path& directory);

result<std::string> read_file(const std::filesystem::path& file,
                              std::size_t limit = 16 * 1024 * 1024);
// Replaces `file`: written beside it, fsynced, renamed, and the directory fsynced. On failure the
// old content stays.
result<void> replace_file(const std::filesystem::path& file, std::string_view content);

// Renames within one file system, and makes that durable.
result<void> rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);

// Removes a tree that sandboxed code wrote: follows no link, opens no file, and makes directories
// writable that are not.
result<void> remove_tree(const std::filesystem::path& tree);

// Changes whenever the file's content may have; empty when there is no file.
std::string stamp(const std::filesystem::path& file);

}  // namespace agent::disk
