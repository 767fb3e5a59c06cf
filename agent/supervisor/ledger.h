// What a later supervisor of this sandbox has to know of this one's jobs, should it be killed:
// which process sessions may still run, and to whom the result of a job is owed. One small file,
// with a place of fixed size for each job that is written over as things change, so that a full
// disk keeps no job from being started and none from being forgotten.
//
// What a call wrote outlives this process, and nothing in it is to outlive the machine, so nothing
// is synced: processes die with it, and files that it had not yet written out are no result.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "protocol/os/fd.h"

namespace agent::supervisor {

using protocol::wire::result;

class Ledger {
 public:
  enum class State : char {
    free = '-',
    starting = 's',  // its process may be there
    running = 'r',   // `pid` is its process and its process session
    owed = 'o'       // reaped; its result was not taken yet
  };
  struct Entry {
    State state = State::free;
    std::string job;
    std::string origin;  // to whom its result is owed; empty: to nobody
    std::string boot;    // os::boot_id() when it was started
    pid_t pid = 0;
    std::uint64_t started = 0;  // in ticks, as in os::ProcessInfo
  };
  static constexpr std::size_t kPlaces = 64;  // at first: more are added when they are needed

  // Makes the file (0600) with all its places. A place that makes no sense is a free one.
  static result<Ledger> open(const std::filesystem::path& file);
  Ledger(Ledger&&) noexcept = default;
  Ledger& operator=(Ledger&&) noexcept = default;

  // Before the process is started. Errc::no_space: all places are taken and no more can be made.
  result<void> starting(const std::string& job, const std::string& origin);
  void running(const std::string& job, pid_t pid, std::uint64_t started);
  // It was not started, or it was and is reaped.
  void forget(const std::string& job);
  void ended(const std::string& job);

  // Origins with a result of an ended job that was not taken, each once.
  std::vector<std::string> owed() const;
  bool is_owed(const std::string& origin) const;
  // A result is taken between these two: jobs that end meanwhile stay owed.
  std::vector<std::string> owing_jobs(const std::string& origin) const;
  void taken(const std::vector<std::string>& jobs);

  const std::vector<Entry>& entries() const { return entries_; }

 private:
  explicit Ledger(protocol::os::Fd file) : file_(std::move(file)) {}
  result<void> write(std::size_t place);
  Entry* find(const std::string& job);

  protocol::os::Fd file_;
  std::vector<Entry> entries_;  // by place
};

}  // namespace agent::supervisor
