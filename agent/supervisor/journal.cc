#include "agent/supervisor/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <set>
#include <utility>

namespace agent::supervisor {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::FrameKind;

namespace {

// Distance of the places from which the rest of a file can be read, once the part before is
// forgotten.
constexpr std::uint64_t kMarkDistance = 1024 * 1024;

// Before the frames: what this is, and where the first kept frame is.
constexpr std::string_view kMagic = "sbxlog1\n";
constexpr std::size_t kPreambleBytes = 16;

std::uint64_t read_number(const char* bytes, int size) {
  std::uint64_t value = 0;
  for (int i = 0; i < size; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

std::string preamble(std::uint64_t head) {
  std::string bytes(kMagic);
  for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(head >> shift & 0xff);
  return bytes;
}

// Exactly that many bytes; false at the end of the file.
bool read_at(int fd, std::uint64_t offset, char* into, std::size_t size) {
  while (size > 0) {
    ssize_t count = ::pread(fd, into, size, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    into += count;
    offset += static_cast<std::uint64_t>(count);
    size -= static_cast<std::size_t>(count);
  }
  return true;
}

}  // namespace

struct JournalReader::Place {
  explicit Place(std::shared_ptr<Journal::State> j) : journal(std::move(j)) {}
  std::shared_ptr<Journal::State> journal;
  std::uint64_t offset = kPreambleBytes;
  bool paced = false;
  bool stopped = false;
  std::optional<wire::Exited> exited;
};

struct Journal::State {
  State(os::executor ex, JournalLimits l) : changed(std::move(ex)), limits(l) {}

  os::Wakeup changed;
  JournalLimits limits;
  os::Fd file;
  bool writable = false, lost = false;
  bool finished = false, interrupted = false;
  std::optional<wire::Exited> exited;  // of a live journal; else it is in the file

  struct Kept {
    std::uint64_t offset;
    std::string frame;
  };
  std::deque<Kept> memory;
  std::size_t memory_bytes = 0;
  std::uint64_t end = kPreambleBytes;   // where the next frame goes
  std::uint64_t head = kPreambleBytes;  // before it no frame is kept in the file
  std::uint64_t file_end = 0;           // behind it nothing is in the file
  std::deque<std::uint64_t> marks;      // frame boundaries
  std::set<JournalReader::Place*> paced;

  std::uint64_t lag() const {
    std::uint64_t most = 0;
    for (const JournalReader::Place* place : paced)
      most = std::max(most, end - std::min(end, place->offset));
    return most;
  }

  void write_at(std::uint64_t offset, const std::string& bytes) {
    if (!writable) return;
    std::size_t done = 0;
    while (done < bytes.size()) {
      ssize_t count = ::pwrite(file.get(), bytes.data() + done, bytes.size() - done,
                               static_cast<off_t>(offset + done));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) {
        // What is there stays readable up to the last whole frame; from here on memory serves.
        writable = false;
        lost = true;
        (void)!::ftruncate(file.get(), static_cast<off_t>(end));
        return;
      }
      done += static_cast<std::size_t>(count);
    }
    file_end = std::max(file_end, offset + bytes.size());
  }

  void add(FrameKind kind, std::string_view payload) {
    std::string frame;
    wire::append_frame(frame, kind, 0, payload);
    write_at(end, frame);
    if (marks.empty() || end >= marks.back() + kMarkDistance) marks.push_back(end);
    std::uint64_t offset = end;
    end += frame.size();
    memory_bytes += frame.size();
    memory.push_back({offset, std::move(frame)});
    trim();
    changed.notify();
  }

  void trim() {
    while (memory_bytes > limits.memory && memory.size() > 1) {
      memory_bytes -= memory.front().frame.size();
      memory.pop_front();
    }
    if (!writable || end - head <= limits.file) return;
    while (marks.size() > 1 && end - marks.front() > limits.file) marks.pop_front();
    // Kept from the next mark on; the offsets of what stays do not move.
    std::uint64_t from = marks.front();
    if (from <= head) return;
    head = from;
    write_at(0, preamble(head));
#ifdef FALLOC_FL_PUNCH_HOLE
    // Where there is no such thing the file grows on, and is read as if it had not.
    (void)!::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kPreambleBytes,
                       static_cast<off_t>(from - kPreambleBytes));
#endif
  }

  // The frame at `offset`, which is a boundary; the empty string when it is not kept.
  std::string frame_at(std::uint64_t offset) {
    if (!memory.empty() && offset >= memory.front().offset) {
      auto found = std::lower_bound(memory.begin(), memory.end(), offset,
                                    [](const Kept& k, std::uint64_t o) { return k.offset < o; });
      if (found != memory.end() && found->offset == offset) return found->frame;
      return {};
    }
    if (!file || offset < head || offset >= file_end) return {};
    char header[4];
    if (!read_at(file.get(), offset, header, sizeof header)) return {};
    std::uint64_t length = read_number(header, 4);
    if (length < wire::kFrameHeaderBytes - 4 || length > wire::kMaxControlBytes + 5) return {};
    std::string frame(4 + length, '\0');
    if (!read_at(file.get(), offset, frame.data(), frame.size())) return {};
    return frame;
  }

  // The first boundary after `offset` from which all is there.
  std::uint64_t kept_from(std::uint64_t offset) const {
    if (offset < head) return head;
    return memory.empty() ? end : std::max(offset, memory.front().offset);
  }
};

Journal::Journal(os::executor ex, const std::filesystem::path& file, const wire::JobInfo& job,
                 JournalLimits limits)
    : state_(std::make_shared<State>(std::move(ex), limits)) {
  state_->file = os::Fd(
      ::open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600));
  state_->writable = static_cast<bool>(state_->file);
  state_->lost = !state_->writable;
  state_->write_at(0, preamble(kPreambleBytes));
  wire::Status status;
  status.jobs.push_back(job);
  state_->add(FrameKind::control, wire::encode(status));
}

Journal::~Journal() {
  state_->finished = true;
  interrupt();
}

void Journal::append(FrameKind kind, std::string_view bytes) {
  assert(!state_->finished && wire::is_bulk(kind));
  while (!bytes.empty()) {
    std::string_view piece = bytes.substr(0, wire::kMaxBulkBytes);
    state_->add(kind, piece);
    bytes.remove_prefix(piece.size());
  }
}

void Journal::finish(const wire::Exited& exited) {
  if (state_->finished) return;
  state_->exited = exited;
  state_->add(FrameKind::control, wire::encode(exited));
  state_->finished = true;
  state_->changed.notify();
}

bool Journal::finished() const { return state_->finished; }
bool Journal::lost() const { return state_->lost; }

std::uint64_t Journal::lag() const { return state_->lag(); }

awaitable<void> Journal::caught_up() {
  auto state = state_;
  while (!state->interrupted && state->lag() > kMaxLag) co_await state->changed.wait();
}

void Journal::interrupt() {
  state_->interrupted = true;
  state_->changed.notify();
}

JournalReader Journal::read(bool paced) {
  auto place = std::make_shared<JournalReader::Place>(state_);
  place->paced = paced;
  if (paced) state_->paced.insert(place.get());
  return JournalReader(std::move(place));
}

// ---- reading -----------------------------------------------------------------------------------

JournalReader::JournalReader(std::shared_ptr<Place> place) : place_(std::move(place)) {}
JournalReader::JournalReader(JournalReader&&) noexcept = default;
JournalReader& JournalReader::operator=(JournalReader&&) noexcept = default;
JournalReader::~JournalReader() {
  if (place_) stop();
}

result<JournalReader> JournalReader::open(os::executor ex, const std::filesystem::path& file) {
  os::Fd fd(::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY));
  if (!fd) return os::errno_failure(errno, file.native());
  off_t size = ::lseek(fd.get(), 0, SEEK_END);
  if (size < 0) return os::errno_failure(errno, file.native());
  std::string start(kPreambleBytes, '\0');
  if (!read_at(fd.get(), 0, start.data(), start.size()) || !start.starts_with(kMagic))
    return wire::Failure(wire::Errc::bad_input, file.native() + ": not a journal");
  auto state = std::make_shared<Journal::State>(std::move(ex), JournalLimits{});
  state->file = std::move(fd);
  state->head = std::max<std::uint64_t>(kPreambleBytes, read_number(start.data() + 8, 8));
  state->end = state->file_end = static_cast<std::uint64_t>(size);
  state->finished = true;
  return JournalReader(std::make_shared<Place>(std::move(state)));
}

awaitable<std::optional<JournalReader::Item>> JournalReader::next() {
  auto place = place_;
  auto& journal = *place->journal;
  for (;;) {
    if (place->stopped || place->exited) co_return std::nullopt;
    if (place->offset >= journal.end) {
      if (journal.finished) co_return std::nullopt;
      co_await journal.changed.wait();
      continue;
    }
    std::string bytes = journal.frame_at(place->offset);
    std::uint64_t before = place->offset;
    if (bytes.empty()) {
      std::uint64_t kept = std::max(before, journal.kept_from(before));
      place->offset = kept == before ? journal.end : kept;
      if (place->paced) journal.changed.notify();
      // Nothing behind it: a tail that its writer did not finish.
      if (place->offset >= journal.end) continue;
      Item item;
      item.forgotten = kept - before;
      co_return item;
    }
    place->offset += bytes.size();
    if (place->paced) journal.changed.notify();
    wire::FrameDecoder decoder;
    decoder.feed(std::as_bytes(std::span(bytes)));
    auto frame = decoder.next();
    if (!frame || !*frame) continue;  // damaged: the rest of the file may still be whole
    if (wire::is_bulk((*frame)->kind)) {
      Item item;
      item.kind = (*frame)->kind;
      item.bytes = std::move((*frame)->payload);
      co_return item;
    }
    auto message = wire::decode((*frame)->payload);
    if (!message) continue;
    if (auto* exited = std::get_if<wire::Exited>(&*message)) place->exited = *exited;
  }
}

std::optional<wire::Exited> JournalReader::exited() const { return place_->exited; }

std::optional<wire::JobInfo> JournalReader::job() const {
  std::string bytes = place_->journal->frame_at(kPreambleBytes);
  wire::FrameDecoder decoder;
  decoder.feed(std::as_bytes(std::span(bytes)));
  auto frame = decoder.next();
  if (!frame || !*frame || (*frame)->kind != FrameKind::control) return std::nullopt;
  auto message = wire::decode((*frame)->payload);
  const auto* status = message ? std::get_if<wire::Status>(&*message) : nullptr;
  if (!status || status->jobs.empty()) return std::nullopt;
  return status->jobs.front();
}

void JournalReader::stop() {
  place_->stopped = true;
  place_->journal->paced.erase(place_.get());
  place_->journal->changed.notify();
}

}  // namespace agent::supervisor
