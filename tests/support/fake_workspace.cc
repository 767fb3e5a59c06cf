#include "tests/support/fake_workspace.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace test {

using protocol::wire::result;
namespace wire = protocol::wire;

namespace {

// Nothing can be read any more from whatever other descriptor of this process is of the same file.
void spoil(int fd) {
  struct stat wanted, found;
  int closed_to_readers = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  for (int other = 3; ::fstat(fd, &wanted) == 0 && other < 1024; ++other) {
    if (other != fd && ::fstat(other, &found) == 0 && found.st_ino == wanted.st_ino &&
        found.st_dev == wanted.st_dev)
      ::dup3(closed_to_readers, other, O_CLOEXEC);
  }
  ::close(closed_to_readers);
}

// Marks an operation, and whether it met another one.
struct Running {
  explicit Running(WorkspaceScript& s) : script(s) {
    if (script.running++ != 0) script.overlapped = true;
  }
  ~Running() { --script.running; }
  WorkspaceScript& script;
};

}  // namespace

std::string FakeWorkspace::snapshot() {
  Running running(*script_);
  return script_->snapshot;
}

std::vector<std::string> FakeWorkspace::have() {
  Running running(*script_);
  return script_->known;
}

bool FakeWorkspace::has(const std::string& commit) {
  Running running(*script_);
  return std::count(script_->known.begin(), script_->known.end(), commit) > 0;
}

result<void> FakeWorkspace::read_pack(protocol::os::Fd in, std::uint64_t,
                                      const std::vector<std::string>&) {
  Running running(*script_);
  std::string bytes;
  char buffer[4096];
  for (ssize_t count; (count = ::read(in.get(), buffer, sizeof buffer)) > 0;)
    bytes.append(buffer, static_cast<std::size_t>(count));
  script_->note("pack " + std::to_string(bytes.size()));
  script_->pack = bytes;
  if (script_->fail_pack) return *script_->fail_pack;
  return {};
}

std::optional<wire::Result> FakeWorkspace::unmerged(const std::string& origin,
                                                    const std::string& merged) {
  Running running(*script_);
  auto found = script_->results.find(origin);
  if (found == script_->results.end() || found->second.result == merged) return std::nullopt;
  return found->second;
}

result<wire::Applied> FakeWorkspace::apply(const std::string&, const wire::SyncStart& sync) {
  Running running(*script_);
  script_->note("apply " + sync.snapshot);
  {
    std::unique_lock lock(script_->mutex);
    script_->applying = true;
    script_->go.wait(lock, [&] { return !script_->hold_apply; });
    script_->applying = false;
  }
  if (script_->fail_apply) return *script_->fail_apply;
  script_->snapshot = sync.snapshot;
  wire::Applied applied;
  applied.snapshot = sync.snapshot;
  return applied;
}

result<std::optional<wire::Result>> FakeWorkspace::take_result(const std::string& origin) {
  Running running(*script_);
  script_->note("take " + origin);
  if (script_->fail_take) return *script_->fail_take;
  auto found = std::exchange(script_->next, std::nullopt);
  if (found) script_->results[origin] = *found;
  return found;
}

result<void> FakeWorkspace::write_pack(const wire::Result&, const std::string&,
                                       protocol::os::Fd out) {
  Running running(*script_);
  if (script_->fail_write) return *script_->fail_write;
  std::string_view bytes = script_->result_pack;
  while (!bytes.empty()) {
    ssize_t count = ::write(out.get(), bytes.data(), bytes.size());
    if (count <= 0) return wire::Failure(wire::Errc::io, "write");
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  if (script_->spoil_pack) spoil(out.get());
  return {};
}

result<std::vector<std::string>> FakeWorkspace::write_whole_pack(const wire::Result& result,
                                                                 const std::string& merged,
                                                                 protocol::os::Fd out) {
  script_->note("whole " + result.result);
  auto written = write_pack(result, merged, std::move(out));
  if (!written) return written.error();
  return std::vector<std::string>{"end of " + result.result};
}

wire::result<wire::Unpulled> FakeWorkspace::unpulled() {
  std::lock_guard lock(script_->mutex);
  if (script_->fail_take) return *script_->fail_take;
  wire::Unpulled lost;
  lost.results = static_cast<std::int64_t>(script_->results.size());
  return lost;
}

void FakeWorkspace::merged(const std::string& origin, const std::string& result) {
  Running running(*script_);
  script_->note("merged " + result);
  script_->results.erase(origin);
}

void FakeWorkspace::tidy() {
  Running running(*script_);
  script_->note("tidy");
}

}  // namespace test
