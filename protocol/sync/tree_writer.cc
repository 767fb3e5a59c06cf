#include "protocol/sync/tree_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cassert>
#include <utility>

#include "protocol/sync/path_rules.h"
#include "protocol/sync/tree_path.h"

namespace protocol::sync {

using os::FileInfo;
using os::TemporaryFile;
using wire::Errc;
using wire::Failure;

namespace {

// Files that are staged before they are put in place. Each batch that has to be on the disk costs
// one sync of the whole file system, which takes seconds where others write to it, too.
constexpr std::size_t kBatch = 4000;
constexpr std::uint64_t kBatchBytes = std::uint64_t{256} << 20;  // what they replace is there, too
constexpr std::size_t kSyncEach = 8;  // above this many, one sync of the file system is cheaper

// The permissions of a file that replaces `old`: what git does not record stays as it was.
std::uint32_t permissions(bool program, const FileInfo& old) {
  std::uint32_t mode = old.mode & 0777;
  return program ? mode | 0100 | ((mode & 0444) >> 2) : mode & ~0111u;
}

ChangeOutcome failed(Failure failure) {
  ChangeOutcome outcome;
  outcome.state = failure.code == Errc::refused || failure.code == Errc::exists
                      ? ChangeOutcome::State::obstructed
                      : ChangeOutcome::State::failed;
  outcome.failure = std::move(failure);
  return outcome;
}

ChangeOutcome moved_on() {
  ChangeOutcome outcome;
  outcome.state = ChangeOutcome::State::moved_on;
  return outcome;
}

}  // namespace

struct TreeWriter::Staged {
  std::size_t index;
  TemporaryFile file;
  std::uint64_t bytes;
};

TreeWriter::TreeWriter(const os::Beneath& root, ReadBlob read_blob, TreeWriterOptions options)
    : root_(root), read_blob_(std::move(read_blob)), options_(std::move(options)) {}

result<std::vector<ChangeOutcome>> TreeWriter::run(const std::vector<Change>& changes) {
  std::vector<ChangeOutcome> outcomes(changes.size());
  if (changes.empty()) return outcomes;
  auto journal = write_journal(changes);
  if (!journal) return journal.error();

  result<void> work;
  for (std::size_t i = 0; i < changes.size() && work; ++i) {
    if (changes[i].to) continue;
    outcomes[i] = remove(changes[i]);
    if (outcomes[i].failure.code == Errc::no_space) work = outcomes[i].failure;
  }
  std::vector<Staged> staged;
  std::uint64_t bytes = 0;  // of those
  for (std::size_t i = 0; i < changes.size() && work; ++i) {
    const Change& change = changes[i];
    if (!change.to) continue;
    if (change.only_mode) {
      outcomes[i] = set_mode(change);
      continue;
    }
    auto one = stage(change, i, outcomes[i]);
    if (!one) {
      work = one.error();
    } else if (*one) {
      staged.push_back(std::move(**one));
      // They are synced together then, and one descriptor each is enough.
      if (staged.size() > kSyncEach) staged.back().file.close();
      bytes += staged.back().bytes;
      if (staged.size() >= kBatch || bytes >= kBatchBytes) {
        work = place(staged, changes, outcomes);
        bytes = 0;
      }
    }
  }
  if (work) work = place(staged, changes, outcomes);
  staged.clear();

  for (const std::string& directory : emptied_) prune(directory);
  for (auto at = made_writable_.rbegin(); at != made_writable_.rend(); ++at)
    (void)root_.set_mode(at->first, at->second);  // gone by now, at worst
  made_writable_.clear();
  if (options_.durable) {
    auto synced = sync_directories();
    if (work) work = synced;
  }
  if (!options_.journal.empty()) ::unlink(options_.journal.c_str());
  if (!work) return work.error();
  return outcomes;
}

// ---- one change ------------------------------------------------------------------------------

ChangeOutcome TreeWriter::remove(const Change& change) {
  auto attempt = [&]() -> result<bool> {
    if (change.expected && change.expected->kind == FileInfo::Kind::directory) {
      auto removed = root_.remove_directory(change.path);  // a submodule's, when nothing is in it
      if (!removed) return removed.error();
      return true;
    }
    if (change.expected && !change.unconditional)
      return root_.remove_file(change.path, *change.expected);
    auto info = root_.info(change.path);
    if (!info) return info.error();
    if (!*info || (*info)->kind == FileInfo::Kind::directory) return true;
    auto removed = root_.remove_file(change.path);
    if (!removed) return removed.error();
    return true;
  };
  auto removed = attempt();
  if (!removed && removed.error().code == Errc::denied &&
      make_writable(std::string(parent_of(change.path))))
    removed = attempt();
  if (!removed) return failed(removed.error());
  if (!*removed) return moved_on();
  touched_.emplace(parent_of(change.path));
  emptied_.emplace(parent_of(change.path));
  return {};
}

ChangeOutcome TreeWriter::set_mode(const Change& change) {
  auto info = root_.info(change.path);
  if (!info) return failed(info.error());
  if (!*info || (*info)->kind != FileInfo::Kind::file) return moved_on();
  if (change.expected && !change.unconditional && !(*info)->same_content(*change.expected))
    return moved_on();
  auto set = root_.set_mode(change.path, permissions(change.to->mode == kModeProgram, **info));
  if (!set) return failed(set.error());
  touched_.emplace(parent_of(change.path));
  ChangeOutcome outcome;
  if (auto now = root_.info(change.path)) outcome.info = *now;
  return outcome;
}

// Writes the new content beside its place. std::nullopt: it could not be, `outcome` says why, and
// other changes may go on.
result<std::optional<TreeWriter::Staged>> TreeWriter::stage(const Change& change, std::size_t index,
                                                            ChangeOutcome& outcome) {
  const std::string parent(parent_of(change.path));
  auto give_up = [&](Failure failure) -> result<std::optional<Staged>> {
    if (failure.code == Errc::no_space) return failure;
    outcome = failed(std::move(failure));
    return std::optional<Staged>();
  };
  auto made = root_.make_directories(parent);
  if (!made && made.error().code == Errc::refused && clear_way(parent))
    made = root_.make_directories(parent);
  if (!made && made.error().code == Errc::denied && make_writable(parent))
    made = root_.make_directories(parent);
  if (!made) return give_up(made.error());
  touched_.insert(parent);

  if (change.to->mode == kModeSubmodule) {
    auto there = root_.make_directories(change.path);
    if (!there) return give_up(there.error());
    if (auto info = root_.info(change.path)) outcome.info = *info;
    return std::optional<Staged>();
  }

  std::string target;
  bool link = change.to->mode == kModeLink;
  if (link) {
    auto read = read_blob_(change.to->oid, [&](std::string_view bytes) -> result<void> {
      if (target.size() + bytes.size() > 4096)
        return Failure(Errc::too_large, change.path + ": the link's target");
      target += bytes;
      return {};
    });
    if (!read && read.error().code == Errc::too_large) return give_up(read.error());
    if (!read) return read.error();
  }
  bool program = change.to->mode == kModeProgram;
  bool replaces = change.expected && change.expected->kind == FileInfo::Kind::file;
  auto create = [&] {
    return link ? root_.create_link(change.path, target)
                : root_.create(change.path, replaces  ? 0600
                                            : program ? 0777
                                                      : 0666);
  };
  auto file = create();
  if (!file && file.error().code == Errc::denied && make_writable(parent)) file = create();
  if (!file) return give_up(file.error());
  std::uint64_t size = 0;
  if (!link) {
    auto written = read_blob_(change.to->oid, [&](std::string_view bytes) -> result<void> {
      size += bytes.size();
      return file->write(bytes);
    });
    if (!written) return written.error();
    if (replaces) {
      auto set = file->set_mode(permissions(program, *change.expected));
      if (!set) return give_up(set.error());
    }
  }
  return std::optional<Staged>(Staged{index, std::move(*file), size});
}

result<void> TreeWriter::place(std::vector<Staged>& staged, const std::vector<Change>& changes,
                               std::vector<ChangeOutcome>& outcomes) {
  if (options_.durable && staged.size() > kSyncEach) {
    auto synced = root_.sync_all();
    if (!synced) return synced;
  }
  for (Staged& one : staged) {
    if (options_.durable && staged.size() <= kSyncEach) {
      auto synced = one.file.sync();
      if (!synced) return synced;
    }
    one.file.close();
    outcomes[one.index] = place(one, changes[one.index]);
    if (outcomes[one.index].failure.code == Errc::no_space) return outcomes[one.index].failure;
  }
  staged.clear();
  return {};
}

ChangeOutcome TreeWriter::place(Staged& staged, const Change& change) {
  auto info = root_.info(change.path);
  if (!info) return failed(info.error());
  if (*info && (*info)->kind == FileInfo::Kind::directory) {
    if (!remove_empty_directories(change.path) && !clear_way(change.path))
      return failed(Failure(Errc::exists, change.path + ": a directory with files in it"));
  }
  if (change.unconditional) {
    auto placed = root_.place(std::move(staged.file), change.path);
    if (!placed) return failed(placed.error());
  } else {
    std::optional<FileInfo> expected = change.expected;
    if (expected && expected->kind == FileInfo::Kind::directory) expected.reset();
    auto placed = root_.place(std::move(staged.file), change.path, expected);
    if (!placed) return failed(placed.error());
    if (!*placed) return moved_on();
  }
  ChangeOutcome outcome;
  if (auto now = root_.info(change.path)) outcome.info = *now;
  return outcome;
}

// ---- directories -----------------------------------------------------------------------------

// Moves the first thing on `path` that is no directory out of the way, or a directory at its end.
bool TreeWriter::clear_way(const std::string& path) {
  if (!options_.force) return false;
  std::string at;
  for (std::size_t end = 0; end != std::string::npos;) {
    end = path.find('/', end == 0 ? 0 : end + 1);
    at = path.substr(0, end);
    auto info = root_.info(at);
    if (!info || !*info) return false;
    bool directory = (*info)->kind == FileInfo::Kind::directory;
    if (directory && end != std::string::npos) continue;
    for (int number = 0; number < 1000; ++number) {
      std::string aside = at + (number == 0 ? "" : "." + std::to_string(number));
      aside += kConflictSuffix;
      auto taken = root_.info(aside);
      if (!taken) return false;
      if (*taken) continue;
      if (!root_.rename(at, aside)) return false;
      moved_aside_[at] = aside;
      touched_.emplace(parent_of(at));
      return true;
    }
    return false;
  }
  return false;
}

// True when the directory held nothing but directories, and is gone.
bool TreeWriter::remove_empty_directories(const std::string& path) {
  auto names = root_.list(path);
  if (!names) return false;
  for (const std::string& name : *names) {
    std::string inner = path + "/" + name;
    auto info = root_.info(inner);
    if (!info || !*info || (*info)->kind != FileInfo::Kind::directory) return false;
    if (!remove_empty_directories(inner)) return false;
  }
  auto removed = root_.remove_directory(path);
  return removed && *removed;
}

bool TreeWriter::make_writable(const std::string& path) {
  if (!options_.force) return false;
  bool changed = false;
  for (std::size_t end = 0;; ++end) {
    end = path.find('/', end);
    std::string at = path.substr(0, end);
    auto info = root_.info(at);
    if (!info || !*info || (*info)->kind != FileInfo::Kind::directory) return changed;
    if (((*info)->mode & 0700) != 0700 && !at.empty()) {
      if (!root_.set_mode(at, (*info)->mode | 0700)) return false;
      made_writable_.emplace(at, (*info)->mode);
      changed = true;
    }
    if (end == std::string::npos) return changed;
  }
}

void TreeWriter::prune(const std::string& path) {
  for (std::string at = path; !at.empty(); at = parent_of(at)) {
    auto removed = root_.remove_directory(at);
    if (!removed && removed.error().code == Errc::denied &&
        make_writable(std::string(parent_of(at))))
      removed = root_.remove_directory(at);
    if (!removed || !*removed) return;
    touched_.emplace(parent_of(at));
  }
}

result<void> TreeWriter::sync_directories() {
  if (touched_.size() > kSyncEach) return root_.sync_all();
  for (const std::string& directory : touched_) {
    auto synced = root_.sync_directory(directory);
    Errc code = synced ? Errc::io : synced.error().code;
    // A directory that went, or that we may not read, has nothing of ours that needs its own sync.
    if (!synced && code != Errc::not_found && code != Errc::denied && code != Errc::refused)
      return synced;
  }
  return {};
}

// ---- journal ---------------------------------------------------------------------------------

result<void> TreeWriter::write_journal(const std::vector<Change>& changes) {
  if (options_.journal.empty()) return {};
  std::set<std::string> directories;
  for (const Change& change : changes) directories.emplace(parent_of(change.path));
  std::string text;
  for (const std::string& directory : directories) {
    text += directory;
    text += '\0';
  }
  os::Fd fd(::open(options_.journal.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                   0600));
  if (!fd) return os::errno_failure(errno, options_.journal.native());
  auto written = os::write_all(fd.get(), text);
  if (!written) {
    ::unlink(options_.journal.c_str());
    return written;
  }
  if (options_.durable && ::fsync(fd.get()) != 0)
    return os::errno_failure(errno, options_.journal.native());
  return {};
}

result<void> TreeWriter::clean_up(const os::Beneath& root, const std::filesystem::path& journal) {
  auto store = os::Beneath::open(journal.parent_path());
  if (!store) return {};
  auto text = store->read_file(journal.filename().native(), std::size_t{256} << 20);
  if (!text) return {};  // nothing was being written
  std::string_view rest = *text;
  while (!rest.empty()) {
    std::size_t end = std::min(rest.find('\0'), rest.size());
    std::string directory(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    auto names = root.list(directory);
    if (!names) continue;
    for (const std::string& name : *names) {
      if (!std::string_view(name).starts_with(os::kTemporaryPrefix)) continue;
      auto removed = root.remove_file(directory.empty() ? name : directory + "/" + name);
      if (!removed) return removed;
    }
  }
  ::unlink(journal.c_str());
  return {};
}

}  // namespace protocol::sync
