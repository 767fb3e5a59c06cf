#include "agent/supervisor/ledger.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <sstream>

#include "protocol/os/paths.h"

namespace agent::supervisor {

namespace os = protocol::os;
using protocol::wire::Errc;
using protocol::wire::Failure;

namespace {

// A line of text, filled up with spaces: state, job, boot, pid, start and origin.
constexpr std::size_t kPlaceBytes = 256;
constexpr std::size_t kMaxWord = 64;
constexpr std::size_t kMaxPlaces = 4096;

std::string line_of(const Ledger::Entry& entry) {
  std::string line(1, static_cast<char>(entry.state));
  auto add = [&](const std::string& word) { line += " " + (word.empty() ? "-" : word); };
  add(entry.job);
  add(entry.boot);
  add(std::to_string(entry.pid));
  add(std::to_string(entry.started));
  add(entry.origin);
  assert(line.size() < kPlaceBytes);
  line.resize(kPlaceBytes - 1, ' ');
  return line + "\n";
}

Ledger::Entry entry_of(const std::string& line) {
  Ledger::Entry entry;
  std::istringstream words(line);
  std::string state;
  if (!(words >> state >> entry.job >> entry.boot >> entry.pid >> entry.started >> entry.origin))
    return {};
  for (std::string* word : {&entry.boot, &entry.origin})
    if (*word == "-") word->clear();
  for (Ledger::State known : {Ledger::State::starting, Ledger::State::running, Ledger::State::owed})
    if (state == std::string(1, static_cast<char>(known))) entry.state = known;
  bool sound = entry.pid >= 0 && (entry.state != Ledger::State::running || entry.pid > 1) &&
               entry.job.size() <= kMaxWord && entry.boot.size() <= kMaxWord &&
               entry.origin.size() <= kMaxWord;
  return sound ? entry : Ledger::Entry{};
}

}  // namespace

result<Ledger> Ledger::open(const std::filesystem::path& path) {
  os::Fd file(::open(path.c_str(),
                     O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600));
  if (!file) return os::errno_failure(errno, path.native());
  struct stat status;
  if (::fstat(file.get(), &status) != 0) return os::errno_failure(errno, path.native());
  if (!S_ISREG(status.st_mode))
    return Failure(Errc::refused, path.native() + ": not a regular file");
  Ledger ledger(std::move(file));
  auto size = static_cast<std::size_t>(std::max<off_t>(0, status.st_size));
  std::string line(kPlaceBytes, ' ');
  std::size_t places = std::min(size / kPlaceBytes, kMaxPlaces);
  for (std::size_t place = 0; place < std::max(places, kPlaces); ++place) {
    Entry entry;
    auto offset = static_cast<off_t>(place * kPlaceBytes);
    if (::pread(ledger.file_.get(), line.data(), line.size(), offset) ==
        static_cast<ssize_t>(line.size()))
      entry = entry_of(line);
    ledger.entries_.push_back(std::move(entry));
    if (place < places) continue;
    auto made = ledger.write(place);
    if (!made) return made.error();
  }
  return ledger;
}

result<void> Ledger::write(std::size_t place) {
  std::string line = line_of(entries_[place]);
  auto offset = static_cast<off_t>(place * kPlaceBytes);
  for (;;) {
    ssize_t count = ::pwrite(file_.get(), line.data(), line.size(), offset);
    if (count == static_cast<ssize_t>(line.size())) return {};
    if (count < 0 && errno == EINTR) continue;
    return os::errno_failure(count < 0 ? errno : ENOSPC, "the record of the sandbox's jobs");
  }
}

Ledger::Entry* Ledger::find(const std::string& job) {
  auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.state != State::free && entry.job == job;
  });
  return found == entries_.end() ? nullptr : &*found;
}

result<void> Ledger::starting(const std::string& job, const std::string& origin) {
  auto place = std::find_if(entries_.begin(), entries_.end(),
                            [](const Entry& entry) { return entry.state == State::free; });
  if (place == entries_.end()) {
    if (entries_.size() >= kMaxPlaces)
      return Failure(Errc::too_large, std::to_string(kMaxPlaces) + " commands run in the sandbox");
    place = entries_.emplace(entries_.end());
  }
  *place = {State::starting, job, origin, os::boot_id(), 0, 0};
  auto written = write(static_cast<std::size_t>(place - entries_.begin()));
  if (!written) *place = {};
  return written;
}

// From here on a place that has been written is written over. Where that fails all the same, the
// place says more than is so, and a later supervisor finds that out.

void Ledger::running(const std::string& job, pid_t pid, std::uint64_t started) {
  Entry* entry = find(job);
  if (!entry) return;
  entry->state = State::running;
  entry->pid = pid;
  entry->started = started;
  (void)write(static_cast<std::size_t>(entry - entries_.data()));
}

void Ledger::forget(const std::string& job) {
  Entry* entry = find(job);
  if (!entry) return;
  *entry = {};
  (void)write(static_cast<std::size_t>(entry - entries_.data()));
}

void Ledger::ended(const std::string& job) {
  Entry* entry = find(job);
  if (!entry) return;
  if (entry->origin.empty()) return forget(job);
  // One is enough to know that something is owed, and the latest one is it.
  for (const std::string& other : owing_jobs(entry->origin))
    if (other != job) forget(other);
  entry->state = State::owed;
  entry->pid = 0;
  entry->started = 0;
  (void)write(static_cast<std::size_t>(entry - entries_.data()));
}

std::vector<std::string> Ledger::owed() const {
  std::vector<std::string> origins;
  for (const Entry& entry : entries_) {
    if (entry.state == State::owed &&
        std::find(origins.begin(), origins.end(), entry.origin) == origins.end())
      origins.push_back(entry.origin);
  }
  return origins;
}

bool Ledger::is_owed(const std::string& origin) const { return !owing_jobs(origin).empty(); }

std::vector<std::string> Ledger::owing_jobs(const std::string& origin) const {
  std::vector<std::string> jobs;
  for (const Entry& entry : entries_)
    if (entry.state == State::owed && entry.origin == origin) jobs.push_back(entry.job);
  return jobs;
}

void Ledger::taken(const std::vector<std::string>& jobs) {
  for (const std::string& job : jobs) forget(job);
}

}  // namespace agent::supervisor
