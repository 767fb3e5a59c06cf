// Packs in and out of an object store.

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "protocol/os/beneath.h"
#include "protocol/os/paths.h"
#include "protocol/sync/object_store.h"
#include "protocol/sync/record.h"
#include "protocol/sync/workspace_git.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;

namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

// What fsck says about the form of old commits, tags and trees. Much real history has them, and
// none can do harm; names that point at .git, out of the tree or twice at one place stay errors.
constexpr std::string_view kFsck =
    "--strict=missingEmail=ignore,missingNameBeforeEmail=ignore,missingSpaceBeforeEmail=ignore,"
    "missingSpaceBeforeDate=ignore,badName=ignore,badEmail=ignore,badDate=ignore,"
    "badDateOverflow=ignore,badTimezone=ignore,zeroPaddedDate=ignore,zeroPaddedFilemode=ignore,"
    "badFilemode=ignore,missingTaggerEntry=ignore,badTagName=ignore,multipleAuthors=ignore,"
    "missingAuthor=ignore,nullSha1=error,emptyName=error";

// A pack whose reading took less than this cannot have expanded beyond what is bearable.
constexpr auto kQuickImport = std::chrono::milliseconds(500);

// Reads until `buffer` is full or the stream ends.
result<std::size_t> read_fully(int fd, char* buffer, std::size_t size) {
  std::size_t have = 0;
  while (have < size) {
    ssize_t count = ::read(fd, buffer + have, size - have);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return os::errno_failure(errno, "pack");
    if (count == 0) break;
    have += static_cast<std::size_t>(count);
  }
  return have;
}

// Collects what a child says on stderr, so that it never blocks on it.
class Words {
 public:
  result<int> open() {
    auto pipe = os::make_pipe();
    if (!pipe) return pipe.error();
    write_ = std::move(pipe->write);
    read_ = std::move(pipe->read);
    return write_.get();
  }
  void start() {
    write_.reset();
    thread_ = std::thread([this] {
      std::array<char, 4096> chunk;
      for (;;) {
        ssize_t count = ::read(read_.get(), chunk.data(), chunk.size());
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return;
        if (text_.size() < 64 * 1024) text_.append(chunk.data(), static_cast<std::size_t>(count));
      }
    });
  }
  std::string finish() {
    if (thread_.joinable()) thread_.join();
    return std::move(text_);
  }
  ~Words() { finish(); }

 private:
  os::Fd read_, write_;
  std::thread thread_;
  std::string text_;
};

class ScratchDirectory {
 public:
  explicit ScratchDirectory(fs::path path) : path_(std::move(path)) {}
  ~ScratchDirectory() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

void limit_processor(pid_t pid, std::uint32_t seconds) {
#ifdef __linux__
  struct rlimit limit;
  limit.rlim_cur = seconds;
  limit.rlim_max = seconds + 5;
  ::prlimit(pid, RLIMIT_CPU, &limit, nullptr);
#else
  (void)pid, (void)seconds;
#endif
}

std::uint32_t big_endian(const char* bytes) {
  auto at = [&](int i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i])); };
  return at(0) << 24 | at(1) << 16 | at(2) << 8 | at(3);
}

// pack-objects under way; its pack comes from `out`.
struct Packing {
  os::Process process;
  os::Fd out;
  std::unique_ptr<Words> words;
};

result<Packing> start_packing(const Git& git, const std::vector<std::string>& tips,
                              const std::vector<std::string>& haves,
                              const std::vector<std::string>& shallow) {
  auto in = os::make_pipe();
  if (!in) return in.error();
  auto out = os::make_pipe();
  if (!out) return out.error();
  auto words = std::make_unique<Words>();
  auto words_fd = words->open();
  if (!words_fd) return words_fd.error();
  // Somebody waits for this pack. With git's own window of 10 it is a hundredth smaller, and new
  // binary files take twice the time.
  os::Spawn spawn = git.spawn({"pack-objects", "--revs", "--thin", "--stdout", "--quiet",
                               "--delta-base-offset", "--no-include-tag", "--window=3"});
  spawn.stdin_fd = in->read.get();
  spawn.stdout_fd = out->write.get();
  spawn.stderr_fd = *words_fd;
  auto process = os::Process::start(spawn);
  if (!process) return process.error();
  words->start();
  in->read.reset();
  out->write.reset();
  std::string revisions;
  for (const std::string& commit : shallow) revisions += "--shallow " + commit + "\n";
  for (const std::string& tip : tips) revisions += tip + "\n";
  if (!haves.empty()) revisions += "--not\n";
  for (const std::string& have : haves) revisions += have + "\n";
  {
    // It reads all of its input before it writes anything.
    NoSigpipe guard;
    (void)os::write_all(in->write.get(), revisions);
    in->write.reset();
  }
  return Packing{std::move(*process), std::move(out->read), std::move(words)};
}

// The index of a pack that is a file already. Expanding it has the limits of one that is received.
result<void> make_index(const Git& git, const fs::path& pack, const ImportLimits& limits) {
  Words words;
  auto words_fd = words.open();
  if (!words_fd) return words_fd.error();
  os::Spawn spawn = git.spawn({"index-pack", pack.string()});
  spawn.stderr_fd = *words_fd;
  auto process = os::Process::start(spawn);
  if (!process) return process.error();
  limit_processor(process->pid(), limits.processor_seconds);
  words.start();
  os::ExitStatus exit = process->wait_blocking();
  if (exit.ok()) return {};
  return git_failure(exit, words.finish(), "index-pack");
}

}  // namespace

result<void> ObjectStore::write_pack(const std::vector<std::string>& tips,
                                     const std::vector<std::string>& haves,
                                     const std::vector<std::string>& shallow, os::Fd out) const {
  for (const auto* list : {&tips, &haves, &shallow})
    for (const std::string& oid : *list)
      if (!is_object_id(oid))
        return Failure(Errc::bad_input, "`" + oid.substr(0, 80) + "` is not an object id");
  std::vector<std::string> wanted;
  for (const std::string& tip : tips)
    if (std::find(haves.begin(), haves.end(), tip) == haves.end()) wanted.push_back(tip);
  if (wanted.empty()) return {};
  std::vector<std::string> base = haves;
  for (bool again = false;; again = true) {
    auto packing = start_packing(git_, wanted, base, shallow);
    if (!packing) return packing.error();
    // Everything is looked up before the first byte is written, so that a missing object is known
    // while there is still a choice.
    std::array<char, 12> header;
    auto begun = read_fully(packing->out.get(), header.data(), header.size());
    result<void> copied;
    if (begun && *begun == header.size() && big_endian(header.data() + 8) > 0) {
      NoSigpipe guard;
      copied = os::write_all(out.get(), std::string_view(header.data(), header.size()));
      if (copied) copied = os::copy_bytes(packing->out.get(), out.get());
    }
    if (!copied) (void)packing->process.kill(SIGTERM);
    bool empty = begun && *begun == header.size() && big_endian(header.data() + 8) == 0;
    if (empty) {
      std::array<char, 64> rest;
      (void)read_fully(packing->out.get(), rest.data(), rest.size());
    }
    packing->out.reset();
    os::ExitStatus exit = packing->process.wait_blocking();
    std::string words = packing->words->finish();
    if (!copied) return Failure(Errc::gone, "the pack's reader went away");
    if (exit.ok()) return {};
    if (begun && *begun > 0) {
      Failure failure = git_failure(exit, words, "pack-objects");
      if (failure.code == Errc::not_found) failure.code = Errc::io;
      return failure;
    }
    // Nothing was written. Perhaps only because of a base that is not here.
    if (!again && !base.empty()) {
      auto here = known(base);
      if (here && here->size() < base.size()) {
        base = std::move(*here);
        continue;
      }
    }
    Failure failure = git_failure(exit, words, "pack-objects");
    if (failure.code == Errc::io) failure.code = Errc::not_found;
    return failure;
  }
}

result<void> ObjectStore::read_pack(os::Fd in, const std::vector<std::string>& shallow_commits,
                                    const ImportLimits& limits) {
  std::array<char, 12> header;
  auto begun = read_fully(in.get(), header.data(), header.size());
  if (!begun) return begun.error();
  std::vector<std::string> boundary = shallow();
  boundary.insert(boundary.end(), shallow_commits.begin(), shallow_commits.end());
  if (*begun == 0) return set_shallow(std::move(boundary));
  if (*begun < header.size()) return Failure(Errc::bad_input, "the pack ends in its header");
  std::uint32_t version = big_endian(header.data() + 4);
  if (std::string_view(header.data(), 4) != "PACK" || version < 2 || version > 3)
    return Failure(Errc::bad_input, "what was sent is not a pack");
  if (big_endian(header.data() + 8) > limits.objects)
    return Failure(Errc::too_large,
                   "the pack has more than " + std::to_string(limits.objects) + " objects");

  ScratchDirectory quarantine(options_.directory / "tmp" / ("incoming-" + os::random_hex(16)));
  std::error_code error;
  for (const char* part : {"pack", "info"})
    if (!fs::create_directories(quarantine.path() / part, error) && error)
      return os::errno_failure(error.value(), quarantine.path().string());
  auto linked = write_record(quarantine.path() / "info" / "alternates", alternates_line(objects()));
  if (!linked) return linked.error();
  fs::path shallow_file = quarantine.path() / "shallow";
  std::string text;
  for (const std::string& commit : boundary) {
    if (!is_object_id(commit))
      return Failure(Errc::bad_input, "`" + commit.substr(0, 80) + "` is not an object id");
    text += commit + "\n";
  }
  auto written = write_record(shallow_file, text);
  if (!written) return written.error();

  Git apart = git_.with_variable("GIT_OBJECT_DIRECTORY", quarantine.path().string());
  // Neither one object nor all of them together may take more than was allowed: large blobs are
  // streamed and so need no memory, everything else has to fit into one allocation.
  Git careful = apart.with_variable(
      "GIT_ALLOC_LIMIT", std::to_string(std::min<std::uint64_t>(limits.object_bytes, 1u << 30)));
  auto pipe = os::make_pipe();
  if (!pipe) return pipe.error();
  Words words;
  auto words_fd = words.open();
  if (!words_fd) return words_fd.error();
  os::Spawn spawn =
      careful.spawn({"--shallow-file", shallow_file.string(), "index-pack", "--stdin", "--fix-thin",
                     std::string(kFsck), "--max-input-size=" + std::to_string(limits.bytes)});
  spawn.stdin_fd = pipe->read.get();
  spawn.stderr_fd = *words_fd;
  auto begin = steady_clock::now();
  auto process = os::Process::start(spawn);
  if (!process) return process.error();
  limit_processor(process->pid(), limits.processor_seconds);
  words.start();
  pipe->read.reset();
  result<void> copied;
  {
    NoSigpipe guard;
    copied = os::write_all(pipe->write.get(), std::string_view(header.data(), header.size()));
    if (copied) copied = os::copy_bytes(in.get(), pipe->write.get());
    pipe->write.reset();
  }
  os::ExitStatus exit = process->wait_blocking();
  std::string said = words.finish();
  if (!exit.ok()) {
    Failure failure = git_failure(exit, said, "index-pack");
    if (exit.signal == SIGXCPU || exit.signal == SIGKILL)
      return Failure(Errc::too_large, "the pack takes too long to expand");
    if (failure.code == Errc::too_large)
      return Failure(Errc::too_large, "the pack is larger than it may be: " + failure.what);
    if (failure.code == Errc::no_space || failure.code == Errc::denied) return failure;
    return Failure(Errc::bad_input, "the pack is not sound: " + failure.what);
  }
  if (!copied) return copied.error();

  if (steady_clock::now() - begin > kQuickImport || limits.expanded_bytes < (1ull << 30)) {
    auto sizes =
        apart.with_variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", "")
            .out({"cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectsize)"});
    if (!sizes) return sizes.error();
    std::uint64_t total = 0, one = 0;
    bool too_large = false;
    for (char c : *sizes) {
      if (c == '\n') {
        too_large = too_large || one > limits.object_bytes;
        total += one;
        one = 0;
      } else {
        one = one * 10 + static_cast<std::uint64_t>(c - '0');
      }
    }
    if (too_large || total > limits.expanded_bytes)
      return Failure(Errc::too_large, "the pack expands to more than it may");
  }

  // History that ends, before the commits at which it does.
  auto ended = set_shallow(std::move(boundary));
  if (!ended) return ended;
  fs::path target = objects() / "pack";
  fs::create_directories(target, error);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(quarantine.path() / "pack", error))
    if (entry.path().extension() != ".idx") files.push_back(entry.path());
  for (const auto& entry : fs::directory_iterator(quarantine.path() / "pack", error))
    if (entry.path().extension() == ".idx") files.push_back(entry.path());
  for (const fs::path& file : files)
    if (::rename(file.c_str(), (target / file.filename()).c_str()) != 0)
      return os::errno_failure(errno, file.string());
  return options_.cache ? result<void>() : os::sync_directory(target);
}

result<void> ObjectStore::adopt(const fs::path& theirs, const std::vector<std::string>& tips,
                                const ImportLimits& limits) {
  if (tips.empty()) return {};
  std::vector<std::string> haves;
  for (const auto& [name, oid] : list_refs("refs/")) haves.push_back(oid);
  std::sort(haves.begin(), haves.end());
  haves.erase(std::unique(haves.begin(), haves.end()), haves.end());
  std::error_code error;
  fs::create_directories(theirs / "info", error);
  auto linked = os::write_file(theirs / "info" / "alternates", alternates_line(objects()));
  if (!linked) return linked;
  Git apart = git_.with_variable("GIT_OBJECT_DIRECTORY", theirs.string())
                  .with_variable("GIT_ALLOC_LIMIT", std::to_string(1u << 30));
  for (const std::string& tip : tips)
    if (!is_object_id(tip)) return Failure(Errc::bad_input, "`" + tip + "` is not an object id");
  std::vector<fs::path> packs;
  for (const auto& entry : fs::directory_iterator(theirs / "pack", error))
    packs.push_back(entry.path());
  for (const fs::path& file : packs) {
    if (file.extension() != ".pack") fs::remove(file, error);  // an index is not theirs to make
  }
  for (const fs::path& file : packs) {
    if (file.extension() != ".pack") continue;
    auto indexed = make_index(apart, file, limits);
    if (!indexed) return indexed;
  }
  auto packing = start_packing(apart, tips, haves, {});
  if (!packing) return packing.error();
  limit_processor(packing->process.pid(), limits.processor_seconds);
  result<void> kept = read_pack(std::move(packing->out), {}, limits);
  os::ExitStatus exit = packing->process.wait_blocking();
  std::string words = packing->words->finish();
  if (!exit.ok() && exit.signal != SIGPIPE) {
    Failure failure = git_failure(exit, words, "pack-objects");
    return Failure(failure.code == Errc::no_space ? Errc::no_space : Errc::bad_input, failure.what);
  }
  return kept;
}

}  // namespace protocol::sync
