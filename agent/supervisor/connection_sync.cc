// A connection's file and git steps.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "agent/supervisor/connection.h"
#include "agent/supervisor/connection_request.h"
#include "agent/supervisor/supervisor.h"
#include "agent/supervisor/workspace_queue.h"
#include "protocol/wire/limits.h"

namespace agent::supervisor {

namespace os = protocol::os;
namespace sync = protocol::sync;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;
using wire::FrameKind;

namespace {

// Of the same open file, for the workspace to close.
os::Fd second(const os::Fd& fd) { return os::Fd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3)); }

// What is looked at before anything of a sync is accepted.
struct Standing {
  std::optional<wire::Result> later;  // of this origin, which it has not merged
  bool has_base = true;
  std::vector<std::string> have;
};

}  // namespace

awaitable<void> Connection::receive(std::uint32_t number, wire::SyncStart start) {
  Request& of = *request(number);
  std::string step(wire::message_name(start));
  std::string origin = hello_.origin;
  merged_ = start.merged;
  // What a command changed and nobody could take is taken before it is overwritten.
  auto owed = co_await supervisor_.take_owed_of_others(origin);
  if (owed) owed = co_await supervisor_.take_owed(origin);
  if (over()) co_return;
  if (!owed) {
    of.failed = true;
    fail(number, step, owed.error());
    co_return;
  }
  auto look = supervisor_.workspace().run([origin, start](sync::Workspace& workspace) {
    Standing standing;
    standing.later = workspace.unmerged(origin, start.merged);
    standing.has_base = start.base.empty() || workspace.has(start.base);
    if (!standing.has_base) standing.have = workspace.have();
    return standing;
  });
  Standing standing = co_await std::move(look);
  if (over()) co_return;
  if (standing.later) {
    of.failed = true;
    discard_streams(number, of);
    frames_.send(number, wire::Stale{standing.later->result});
    co_await send_result(number, step, std::move(*standing.later), start.merged);
    co_return;
  }
  if (!standing.has_base) {
    of.failed = true;
    frames_.send(number, wire::Missing{std::move(standing.have)});
    co_return;
  }
  std::uint64_t size = 0;
  auto spool = co_await spool_pack(number, size);
  if (over()) co_return;
  result<void> kept;
  if (!spool) {
    kept = spool.error();
  } else if (size > 0) {
    ::lseek(spool->get(), 0, SEEK_SET);
    auto keep = supervisor_.workspace().run(
        [pack = std::move(*spool), start](sync::Workspace& workspace) mutable -> result<void> {
          auto begun = workspace.begin(start);
          if (!begun) return begun;
          return workspace.read_pack(std::move(pack), wire::kMaxPackBytes, start.shallow);
        });
    kept = co_await std::move(keep);
  }
  if (!kept) {
    of.failed = true;
    fail(number, step, kept.error());
    co_return;
  }
  of.sync = std::move(start);
}

// The pack in a file of its own. Ends early when the connection does.
awaitable<result<os::Fd>> Connection::spool_pack(std::uint32_t number, std::uint64_t& size) {
  Request& of = *request(number);
  os::Fd spool;
  for (;;) {
    auto bytes = co_await of.pack.next();
    if (!bytes) break;
    buffered_ -= bytes->size();
    size += bytes->size();
    if (size > wire::kMaxPackBytes) co_return Failure(Errc::too_large, "the pack");
    if (!spool) {
      auto made = make_spool(supervisor_.directory().root);
      if (!made) co_return made.error();
      spool = std::move(*made);
    }
    auto kept = os::write_all(spool.get(), *bytes);
    if (!kept) co_return Failure(kept.error().code, "keeping the pack: " + kept.error().what);
    frames_.consumed(FrameKind::pack, number, bytes->size());
  }
  if (!of.pack_complete) co_return Failure(Errc::gone, "the pack was not sent to its end");
  co_return std::move(spool);
}

awaitable<void> Connection::apply(std::uint32_t number) {
  Request& of = *request(number);
  std::string step(wire::message_name(wire::SyncStart{}));
  if (!of.sync) {
    of.failed = true;
    fail(number, step, Failure(Errc::bad_input, "sync_end without a sync_start"));
    co_return;
  }
  wire::SyncStart start = std::move(*of.sync);
  of.sync.reset();
  if (supervisor_.runs_under_another(hello_.fence)) {
    of.failed = true;
    fail(number, step, Failure(Errc::busy, "another command was let into this sandbox by force"));
    co_return;
  }
  std::string origin = hello_.origin;
  std::optional<Supervisor::Applying> applying(supervisor_);
  auto work = supervisor_.workspace().run(
      [origin, start](sync::Workspace& workspace) { return workspace.apply(origin, start); });
  auto applied = co_await std::move(work);
  applying.reset();
  if (!applied) {
    of.failed = true;
    fail(number, step, applied.error());
    co_return;
  }
  supervisor_.workspace().known.snapshot = applied->snapshot;
  frames_.send(number, *applied);
}

awaitable<void> Connection::take_result(std::uint32_t number) {
  Request& of = *request(number);
  std::string step(wire::message_name(wire::LockReleased{}));
  auto taken = co_await supervisor_.take_result(hello_.origin, merged_);
  if (!taken) {
    of.failed = true;
    fail(number, step, taken.error());
    co_return;
  }
  if (!*taken) {
    frames_.send(number, wire::Unchanged{});
    co_return;
  }
  wire::Result news = std::move(**taken);
  co_await send_result(number, step, std::move(news), merged_);
}

// The connection is over: what its job left is kept for its origin all the same.
awaitable<void> Connection::take_quietly() {
  auto taken = co_await supervisor_.take_owed(hello_.origin);
  (void)taken;  // it stays owed
}

awaitable<void> Connection::pull(std::uint32_t number, wire::Pull pull) {
  Request& of = *request(number);
  merged_ = pull.merged;
  std::string origin = hello_.origin;
  std::string last = pull.merged;
  auto owed = co_await supervisor_.take_owed(origin);
  if (!owed) {
    of.failed = true;
    fail(number, "pull", owed.error());
    co_return;
  }
  auto look = supervisor_.workspace().run([origin, last](sync::Workspace& workspace) {
    (void)workspace.offer_drift(origin);  // what cannot be offered is still kept
    return workspace.unmerged(origin, last);
  });
  auto later = co_await std::move(look);
  if (origin.empty() || !later) {
    frames_.send(number, wire::Unchanged{});
    co_return;
  }
  co_await send_result(number, "pull", std::move(*later), last, pull.whole);
}

awaitable<void> Connection::merged(wire::Merged news) {
  merged_ = news.result;
  std::string origin = hello_.origin;
  if (origin.empty()) co_return;
  auto work = supervisor_.workspace().run([origin, news](sync::Workspace& workspace) {
    workspace.merged(origin, news.result);
    return workspace.unmerged(origin, news.result).has_value();
  });
  bool unmerged = co_await std::move(work);
  supervisor_.workspace().known.unmerged[origin] = unmerged;
}

awaitable<void> Connection::send_result(std::uint32_t number, std::string_view step,
                                        wire::Result news, std::string merged, bool whole) {
  if (over()) co_return;
  Request& of = *request(number);
  std::string step_name(step);
  // Complete before it is announced: the lock passes on at `result`, and whoever has it next should
  // not wait for this client's line.
  auto spool = make_spool(supervisor_.directory().root);
  result<void> written;
  if (!spool) {
    written = spool.error();
  } else {
    auto work = supervisor_.workspace().run(
        [news, merged, whole, out = second(*spool)](
            sync::Workspace& workspace) mutable -> result<std::vector<std::string>> {
          if (whole) return workspace.write_whole_pack(news, merged, std::move(out));
          auto thin = workspace.write_pack(news, merged, std::move(out));
          if (!thin) return thin.error();
          return std::vector<std::string>();
        });
    auto shallow = co_await std::move(work);
    if (shallow) {
      news.shallow = std::move(*shallow);
    } else {
      written = shallow.error();
    }
  }
  if (over()) co_return;
  if (!written) {
    of.failed = true;
    fail(number, step_name, written.error());
    co_return;
  }
  frames_.send(number, news);
  std::string buffer(wire::kMaxBulkBytes, '\0');
  off_t offset = 0;
  for (;;) {
    ssize_t count = ::pread(spool->get(), buffer.data(), buffer.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      // It stays on the box; nobody waits for the rest of this.
      fail(number, "result_pack", os::errno_failure(errno, "the result's pack"));
      break;
    }
    if (count == 0) break;
    offset += count;
    auto sent = co_await frames_.send_bulk(
        FrameKind::result_pack, number,
        std::string_view(buffer.data(), static_cast<std::size_t>(count)));
    if (!sent) co_return;
  }
  frames_.end_bulk(FrameKind::result_pack, number);
}

}  // namespace agent::supervisor
