// A job's journal: everything it wrote, both streams in the order in which it was read, and how it
// ended. What is shown to a client comes from here, whether it watches live or attaches later, so
// that a client that went away can never hold up a job or lose a byte of it.
//
// On disk: eight bytes that say what it is, eight that say where the first kept frame is, then
// frames (protocol/WIRE.md, "Frames"; request 0). First a control frame `status` with the job's
// JobInfo, then output and error frames, last a control frame `exited`. A file that ends within a
// frame is one whose writer died; what is whole in it counts. In memory: the newest megabyte, from
// which a live reader is served. When the disk is full the job goes on with that alone.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/os/fd.h"
#include "protocol/os/wakeup.h"
#include "protocol/wire/frames.h"
#include "protocol/wire/messages.h"

namespace agent::supervisor {

using protocol::os::awaitable;
using protocol::wire::result;

struct JournalLimits {
  std::uint64_t file = 1ull << 30;  // beyond it the oldest output is forgotten
  std::size_t memory = 1024 * 1024;
};

class JournalReader;

class Journal {
 public:
  // Makes the file (0600). Without one (disk full, read-only) the journal lives in memory; `lost`
  // says so.
  Journal(protocol::os::executor ex, const std::filesystem::path& file,
          const protocol::wire::JobInfo& job, JournalLimits limits = {});
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;
  ~Journal();

  // Of FrameKind::output or error.
  void append(protocol::wire::FrameKind kind, std::string_view bytes);
  // Nothing comes after it. Readers end.
  void finish(const protocol::wire::Exited& exited);
  bool finished() const;
  // The file could not take everything.
  bool lost() const;

  // How far the slowest paced reader is behind, in bytes. The writer stops reading the job above
  // kMaxLag; 0 without such readers.
  static constexpr std::uint64_t kMaxLag = 256 * 1024;
  std::uint64_t lag() const;
  // Returns when lag() is at most kMaxLag, or interrupt() was called.
  awaitable<void> caught_up();
  void interrupt();  // for good

  // From the first byte. A paced reader holds up the job when it is slow; another one does not.
  // A reader may outlive the journal.
  JournalReader read(bool paced);

 private:
  friend class JournalReader;
  struct State;
  std::shared_ptr<State> state_;
};

class JournalReader {
 public:
  struct Item {
    protocol::wire::FrameKind kind = protocol::wire::FrameKind::output;
    std::string bytes;
    std::uint64_t forgotten = 0;  // that many bytes before this were not kept; no bytes come along
  };
  // Of a job that this process does not know any more. Errc::not_found, io.
  static result<JournalReader> open(protocol::os::executor ex, const std::filesystem::path& file);

  JournalReader(JournalReader&&) noexcept;
  JournalReader& operator=(JournalReader&&) noexcept;
  ~JournalReader();

  // The next piece, waiting for it; std::nullopt when the job has ended and all was read, or when
  // stop() was called.
  awaitable<std::optional<Item>> next();
  // How the job ended; once next() came to the end. std::nullopt: the writer died before.
  std::optional<protocol::wire::Exited> exited() const;
  // Whose journal it is; std::nullopt: its beginning was forgotten or is damaged.
  std::optional<protocol::wire::JobInfo> job() const;
  // Ends a waiting next(), and all that follow.
  void stop();

 private:
  friend class Journal;
  struct Place;
  explicit JournalReader(std::shared_ptr<Place> place);
  std::shared_ptr<Place> place_;
};

}  // namespace agent::supervisor
