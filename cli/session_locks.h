// Which sandboxes the commands on this machine are using. A command holds a shared lock on its
// sandbox's file (sessions/<id>.lock) from before it asks the box for anything until it ends;
// whoever removes the sandbox holds it exclusively. The kernel gives both back when their process
// dies, so that list and prune are right without the network. Lock files are never removed.
//
// Beside it each command has a record, locked by it as well, which says who it is. A record that
// nobody holds is a dead command's: whoever sees it removes it.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/output.h"
#include "protocol/os/async.h"
#include "protocol/os/flock.h"

namespace cli {

// What a command on this machine does with a sandbox.
struct LocalSession {
  std::string sandbox;
  std::string box;
  std::string verb;     // exec, push, start ...
  std::string command;  // what is run, for people; may be empty
  std::string since;    // RFC 3339, UTC
  int pid = 0;
};

// The hold of one command. Destroyed, or with its process, it is over.
class SessionLock {
 public:
  SessionLock(protocol::os::FileLock lock, std::filesystem::path record,
              std::optional<protocol::os::FileLock> record_lock);
  ~SessionLock();
  SessionLock(const SessionLock&) = delete;
  SessionLock& operator=(const SessionLock&) = delete;

 private:
  protocol::os::FileLock lock_;
  std::filesystem::path record_;
  std::optional<protocol::os::FileLock> record_lock_;
};

class SessionLocks {
 public:
  explicit SessionLocks(std::filesystem::path directory) : directory_(std::move(directory)) {}

  // Waits while somebody removes it, and says so. Throws UserError when it cannot be locked:
  // without the lock nothing may be done in the sandbox.
  protocol::os::awaitable<std::unique_ptr<SessionLock>> hold(protocol::os::executor executor,
                                                             Output& output,
                                                             LocalSession session) const;

  // Does a command on this machine use it? Makes no file, and disturbs nobody.
  bool in_use(const std::string& sandbox) const;

  // The exclusive lock, for whoever removes the sandbox. std::nullopt: it is in use. Throws
  // UserError.
  protocol::os::awaitable<std::optional<protocol::os::FileLock>> take(
      protocol::os::executor executor, std::string sandbox) const;

  // The live ones, oldest first.
  std::vector<LocalSession> sessions() const;

 private:
  std::filesystem::path lock_file(const std::string& sandbox) const;
  void make_directory() const;
  std::filesystem::path directory_;
};

}  // namespace cli
