// A workspace without git: it remembers what was asked of it, in order, and answers as it was told.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "protocol/sync/workspace.h"

namespace test {

// Shared by the test and the fake; calls come from another thread.
struct WorkspaceScript {
  std::mutex mutex;
  std::vector<std::string> calls;  // "apply main", "take main" ...
  std::string pack;                // bytes of the last one that was read
  std::string snapshot;
  std::vector<std::string> known = {"base"};
  std::map<std::string, protocol::wire::Result> results;  // unmerged, by origin
  std::optional<protocol::wire::Result> next;             // what take_result finds
  std::string result_pack = "PACK of the result";
  std::optional<protocol::wire::Failure> fail_apply, fail_pack, fail_take, fail_write;
  bool spoil_pack = false;       // it is written, and then cannot be read back
  std::atomic<int> running = 0;  // operations now
  std::atomic<bool> overlapped = false;
  std::condition_variable go;
  bool hold_apply = false;  // apply waits until release()
  std::atomic<bool> applying = false;

  void note(std::string call) {
    std::lock_guard lock(mutex);
    calls.push_back(std::move(call));
  }
  std::vector<std::string> taken_calls() {
    std::lock_guard lock(mutex);
    return calls;
  }
  void release() {
    std::lock_guard lock(mutex);
    hold_apply = false;
    go.notify_all();
  }
};

class FakeWorkspace : public protocol::sync::Workspace {
 public:
  explicit FakeWorkspace(std::shared_ptr<WorkspaceScript> script) : script_(std::move(script)) {}

  std::string snapshot() override;
  std::vector<std::string> have() override;
  bool has(const std::string& commit) override;
  protocol::wire::result<void> read_pack(protocol::os::Fd in, std::uint64_t max_bytes,
                                         const std::vector<std::string>& shallow) override;
  std::optional<protocol::wire::Result> unmerged(const std::string& origin,
                                                 const std::string& merged) override;
  protocol::wire::result<protocol::wire::Applied> apply(
      const std::string& origin, const protocol::wire::SyncStart& sync) override;
  protocol::wire::result<std::optional<protocol::wire::Result>> take_result(
      const std::string& origin) override;
  protocol::wire::result<void> write_pack(const protocol::wire::Result& result,
                                          const std::string& merged, protocol::os::Fd out) override;
  protocol::wire::result<std::vector<std::string>> write_whole_pack(
      const protocol::wire::Result& result, const std::string& merged,
      protocol::os::Fd out) override;
  protocol::wire::result<protocol::wire::Unpulled> unpulled() override;
  void merged(const std::string& origin, const std::string& result) override;
  void tidy() override;

 private:
  std::shared_ptr<WorkspaceScript> script_;
};

}  // namespace test
