#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <deque>

#include "protocol/os/beneath.h"
#include "protocol/sync/object_store.h"
#include "protocol/sync/workspace_git.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;

namespace {

// Requests that are under way: few enough that writing them never waits for the reader, who is us.
constexpr std::size_t kAhead = 64;

}  // namespace

struct BlobReader::State {
  Git git;
  std::optional<os::Process> process;
  os::Fd to, from;
  std::deque<std::string> expected;  // not asked for yet
  std::deque<std::string> asked;
  std::string buffer;
  std::size_t used = 0;

  explicit State(Git g) : git(std::move(g)) {}
  ~State() { stop(); }

  void stop() {
    to.reset();
    from.reset();
    if (process) {
      (void)process->kill(SIGKILL);
      process->wait_blocking();
      process.reset();
    }
    asked.clear();
    buffer.clear();
    used = 0;
  }

  result<void> start() {
    if (process) return {};
    auto in = os::make_pipe();
    if (!in) return in.error();
    auto out = os::make_pipe();
    if (!out) return out.error();
    os::Spawn spawn = git.spawn({"cat-file", "--batch"});
    spawn.stdin_fd = in->read.get();
    spawn.stdout_fd = out->write.get();
    os::Fd quiet(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    spawn.stderr_fd = quiet.get();
    auto started = os::Process::start(spawn);
    if (!started) return started.error();
    process.emplace(std::move(*started));
    to = std::move(in->write);
    from = std::move(out->read);
    return {};
  }

  result<void> ask(const std::string& oid) {
    NoSigpipe guard;
    auto written = os::write_all(to.get(), oid + "\n");
    if (!written) return broken();
    asked.push_back(oid);
    return {};
  }

  Failure broken() {
    stop();
    return Failure(Errc::io, "git cat-file ended early");
  }

  // More bytes into the buffer; false at the end.
  bool fill() {
    if (used > 0) buffer.erase(0, used);
    used = 0;
    std::array<char, 64 * 1024> chunk;
    for (;;) {
      ssize_t count = ::read(from.get(), chunk.data(), chunk.size());
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return false;
      buffer.append(chunk.data(), static_cast<std::size_t>(count));
      return true;
    }
  }

  std::string_view ready() const { return std::string_view(buffer).substr(used); }

  result<std::string> header() {
    for (;;) {
      if (std::size_t end = ready().find('\n'); end != std::string_view::npos) {
        std::string line(ready().substr(0, end));
        used += end + 1;
        return line;
      }
      if (ready().size() > 4096 || !fill()) return broken();
    }
  }

  // The answer to the oldest request. A sink that fails does not leave the stream in the middle.
  result<void> answer(const BlobReader::Sink& sink) {
    std::string oid = std::move(asked.front());
    asked.pop_front();
    auto line = header();
    if (!line) return line.error();
    if (line->ends_with(" missing")) return Failure(Errc::not_found, oid + " is not in the store");
    std::size_t type = line->find(' '), size_at = line->rfind(' ');
    std::uint64_t size = 0;
    auto parsed = std::from_chars(line->data() + size_at + 1, line->data() + line->size(), size);
    if (type == std::string::npos || size_at <= type || parsed.ec != std::errc()) return broken();
    result<void> outcome;
    if (line->substr(type + 1, size_at - type - 1) != "blob")
      outcome = Failure(Errc::bad_input, oid + " is not a blob");
    for (std::uint64_t left = size; left > 0;) {
      if (ready().empty() && !fill()) return broken();
      std::string_view piece = ready().substr(0, left);
      // Much is left and nobody wants it: a new process is cheaper.
      if (!outcome && left > (std::size_t{1} << 20)) {
        stop();
        return outcome;
      }
      if (outcome) outcome = sink(piece);
      left -= piece.size();
      used += piece.size();
    }
    while (ready().empty())
      if (!fill()) return broken();
    used += 1;
    return outcome;
  }
};

BlobReader::BlobReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
BlobReader::BlobReader(BlobReader&&) noexcept = default;
BlobReader::~BlobReader() = default;

BlobReader ObjectStore::blob_reader() const {
  return BlobReader(std::make_unique<BlobReader::State>(git_));
}

void BlobReader::expect(std::vector<std::string> oids) {
  state_->expected.assign(std::make_move_iterator(oids.begin()),
                          std::make_move_iterator(oids.end()));
}

result<void> BlobReader::read(const std::string& oid, const Sink& sink) {
  State& state = *state_;
  if (!is_object_id(oid)) return Failure(Errc::bad_input, "`" + oid + "` is not an object id");
  auto started = state.start();
  if (!started) return started;
  // Answers that were fetched ahead and are not wanted after all.
  while (!state.asked.empty() && state.asked.front() != oid) {
    auto skipped = state.answer([](std::string_view) { return result<void>(); });
    if (!skipped && skipped.error().code == Errc::io) return skipped;
    if (!state.process && !(started = state.start())) return started;
  }
  if (state.asked.empty()) {
    auto at = std::find(state.expected.begin(), state.expected.end(), oid);
    if (at != state.expected.end()) state.expected.erase(state.expected.begin(), at + 1);
    auto asked = state.ask(oid);
    if (!asked) return asked;
  }
  while (state.asked.size() < kAhead && !state.expected.empty()) {
    std::string next = std::move(state.expected.front());
    state.expected.pop_front();
    if (!is_object_id(next)) continue;
    auto asked = state.ask(next);
    if (!asked) return asked;
  }
  return state.answer(sink);
}

result<std::string> BlobReader::read_all(const std::string& oid, std::size_t limit) {
  std::string bytes;
  auto read_whole = read(oid, [&](std::string_view piece) -> result<void> {
    if (bytes.size() + piece.size() > limit)
      return Failure(Errc::too_large, oid + " is larger than " + std::to_string(limit) + " bytes");
    bytes.append(piece);
    return {};
  });
  if (!read_whole) return read_whole.error();
  return bytes;
}

}  // namespace protocol::sync
