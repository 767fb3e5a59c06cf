// Running git so that nothing of the user's or the box's settings changes what it does: its
// environment and configuration are built from nothing, no hook, filter, pager, helper or file
// system monitor runs, no network is reached. The only place that starts git.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/os/process.h"
#include "protocol/os/run.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

using wire::result;

struct GitVersion {
  int major = 0, minor = 0;
  auto operator<=>(const GitVersion&) const = default;
};
inline constexpr GitVersion kOldestGit{2, 39};

// A git program, and the repository that it is to look at. A value: with_… give a changed copy.
class Git {
 public:
  // `memory` (a file, or empty) remembers the version of a program as long as its file stays the
  // same. Errc::unsupported: no such program, or older than kOldestGit.
  static result<Git> find(const std::string& program, const std::filesystem::path& memory = {});

  GitVersion version() const { return version_; }

  Git with_repository(const std::filesystem::path& git_dir) const;  // GIT_DIR
  Git with_work_tree(const std::filesystem::path& root) const;      // GIT_WORK_TREE, and its cwd
  Git with_index(const std::filesystem::path& file) const;          // GIT_INDEX_FILE
  Git with_config(const std::string& setting) const;                // "core.x=y"
  Git with_variable(const std::string& name, const std::string& value) const;
  // Reads the settings of the user and of the system as well. Only to ask what they say.
  Git with_user_settings() const;

  // `git <args>` as it would be started; the caller adds descriptors.
  os::Spawn spawn(std::vector<std::string> args) const;
  // Runs to the end whatever the exit status. Arguments are never paths from a work tree: those go
  // through `input`.
  result<os::Output> run(std::vector<std::string> args, std::string_view input = {}) const;
  // What it printed; a failing exit is the Failure that git_failure makes of it.
  result<std::string> out(std::vector<std::string> args, std::string_view input = {}) const;

 private:
  Git() = default;
  std::string program_;
  GitVersion version_;
  std::string cwd_;
  std::map<std::string, std::string> environment_;
  std::vector<std::string> config_;
};

// What a failed git command means: Errc::no_space, denied, gone (a broken pipe), not_found (an
// object that is not there), bad_input (fsck or pack errors), io; `what` has its last words.
wire::Failure git_failure(const os::ExitStatus& exit, std::string_view words,
                          const std::string& command);

// Keeps a write to a closed pipe from killing this process: the write fails with EPIPE instead.
class NoSigpipe {
 public:
  NoSigpipe();
  ~NoSigpipe();
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;

 private:
  bool was_pending_ = false, was_blocked_ = false;
};

}  // namespace protocol::sync
