// A laptop's work tree and a box's workspace in two directories, and what travels between them.
// Real git, real files, no network.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "protocol/os/beneath.h"
#include "protocol/os/process.h"
#include "protocol/os/run.h"
#include "protocol/sync/origin.h"
#include "protocol/sync/path_rules.h"
#include "protocol/sync/workspace.h"
#include "protocol/wire/limits.h"
#include "tests/support/catch.h"

namespace sync_test {

namespace fs = std::filesystem;
namespace os = protocol::os;
namespace sync = protocol::sync;
namespace wire = protocol::wire;
using wire::result;

// A directory of a test's own, left behind when the test fails and SANDBOX_KEEP is set.
class Scratch {
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "sync-XXXXXX").native();
    REQUIRE(::mkdtemp(name.data()));
    path_ = fs::canonical(name);
  }
  ~Scratch() {
    if (std::getenv("SANDBOX_KEEP")) return;
    auto root = os::Beneath::open(path_);
    if (root) (void)root->remove_all("");
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  fs::path operator/(const fs::path& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

inline void write_file(const fs::path& file, const std::string& bytes, bool program = false) {
  fs::create_directories(file.parent_path());
  std::error_code ignored;
  if (fs::is_symlink(fs::symlink_status(file))) fs::remove(file, ignored);
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
  REQUIRE(::chmod(file.c_str(), program ? 0755 : 0644) == 0);
}

inline std::string read_file(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// ---- trees as values -------------------------------------------------------------------------

struct Node {
  enum class Kind { file, program, link } kind = Kind::file;
  std::string bytes;  // content, or a link's target
  bool operator==(const Node&) const = default;
};
using Tree = std::map<std::string, Node>;

inline void collect(const fs::path& root, const std::string& prefix, Tree& tree,
                    std::map<std::string, std::int64_t>* times, std::vector<std::string>* empty) {
  bool any = false;
  for (const auto& entry : fs::directory_iterator(root / prefix)) {
    any = true;
    std::string name = entry.path().filename().native();
    std::string path = prefix.empty() ? name : prefix + "/" + name;
    if (path == ".git" || name.ends_with(sync::kConflictSuffix)) continue;
    struct stat status;
    REQUIRE(::lstat(entry.path().c_str(), &status) == 0);
    if (S_ISDIR(status.st_mode)) {
      collect(root, path, tree, times, empty);
      continue;
    }
    Node node;
    if (S_ISLNK(status.st_mode)) {
      node = {Node::Kind::link, fs::read_symlink(entry.path()).native()};
    } else {
      node = {(status.st_mode & 0100) ? Node::Kind::program : Node::Kind::file,
              read_file(entry.path())};
    }
    if (times) {
      (*times)[path] = status.st_mtim.tv_sec * std::int64_t{1'000'000'000} + status.st_mtim.tv_nsec;
    }
    tree.emplace(std::move(path), std::move(node));
  }
  if (!any && !prefix.empty() && empty) empty->push_back(prefix);
}

inline Tree read_tree(const fs::path& root, std::map<std::string, std::int64_t>* times = nullptr,
                      std::vector<std::string>* empty = nullptr) {
  Tree tree;
  collect(root, "", tree, times, empty);
  return tree;
}

inline void write_node(const fs::path& root, const std::string& path, const Node& node) {
  fs::path file = root / path;
  fs::create_directories(file.parent_path());
  std::error_code ignored;
  fs::remove(file, ignored);
  if (node.kind == Node::Kind::link) {
    REQUIRE(::symlink(node.bytes.c_str(), file.c_str()) == 0);
  } else {
    write_file(file, node.bytes, node.kind == Node::Kind::program);
  }
}

// ---- git as a user runs it -------------------------------------------------------------------

inline os::Output git(const fs::path& directory, std::vector<std::string> args,
                      std::string_view input = {}) {
  os::Spawn spawn;
  spawn.argv = {"git", "-c", "user.name=Dev", "-c", "user.email=dev@example.org"};
  spawn.argv.insert(spawn.argv.end(), args.begin(), args.end());
  spawn.cwd = directory;
  spawn.env = std::map<std::string, std::string>{{"PATH", std::getenv("PATH")},
                                                 {"HOME", "/nonexistent"},
                                                 {"GIT_CONFIG_NOSYSTEM", "1"},
                                                 {"GIT_CONFIG_GLOBAL", "/dev/null"},
                                                 {"GIT_TERMINAL_PROMPT", "0"}};
  auto output = os::run(std::move(spawn), input);
  REQUIRE(output);
  return *output;
}
inline std::string git_out(const fs::path& directory, std::vector<std::string> args) {
  auto output = git(directory, std::move(args));
  INFO(output.err);
  REQUIRE(output.exit.ok());
  while (!output.out.empty() && output.out.back() == '\n') output.out.pop_back();
  return output.out;
}

// ---- both ends -------------------------------------------------------------------------------

template <class T>
auto must(result<T> outcome) {
  if (!outcome) FAIL(wire::name(outcome.error().code) << ": " << outcome.error().what);
  if constexpr (!std::is_void_v<T>) return std::move(*outcome);
}

class TwoEnds {
 public:
  explicit TwoEnds(const Scratch& scratch, const std::string& laptop = "laptop")
      : laptop_(scratch / laptop),
        store_(scratch / (laptop + "-store")),
        workspace_(scratch / "box/workspace"),
        box_store_(scratch / "box/store.git") {
    fs::create_directories(laptop_);
    fs::create_directories(workspace_);
  }

  const fs::path& laptop() const { return laptop_; }
  const fs::path& box() const { return workspace_; }
  const fs::path& box_store() const { return box_store_; }
  fs::path laptop_store() const { return store_ / "store.git"; }

  sync::Origin& origin() {
    if (!origin_) {
      sync::OriginOptions options;
      options.work_tree = laptop_;
      options.store = store_;
      options.includes = includes;
      origin_ = must(sync::Origin::open(options));
    }
    return *origin_;
  }
  sync::Workspace& workspace() {
    if (!open_workspace_) {
      sync::WorkspaceOptions options;
      options.workspace = workspace_;
      options.store = box_store_;
      open_workspace_ = must(sync::Workspace::open(options));
    }
    return *open_workspace_;
  }
  // Both programs end and start again.
  void restart() {
    origin_.reset();
    open_workspace_.reset();
  }

  // Sends a snapshot's pack to the box.
  void send(const sync::Snapshot& snapshot) {
    std::vector<std::string> haves;
    std::string base = origin().base(kSandbox);
    if (!base.empty()) haves.push_back(base);
    auto pipe = must(os::make_pipe());
    result<void> written;
    std::thread writer([&, out = std::move(pipe.write)]() mutable {
      written = origin().write_pack(snapshot, haves, std::move(out));
    });
    auto read =
        workspace().read_pack(std::move(pipe.read), wire::kMaxPackBytes, snapshot.sync.shallow);
    writer.join();
    must(std::move(written));
    must(std::move(read));
  }
  result<wire::Applied> try_push() {
    sync::Snapshot snapshot = must(origin().snapshot());
    last_snapshot = snapshot;
    must(workspace().begin(snapshot.sync));
    send(snapshot);
    auto applied = workspace().apply(origin().id(), snapshot.sync);
    if (applied) must(origin().set_base(kSandbox, snapshot.sync.snapshot));
    return applied;
  }
  wire::Applied push() { return must(try_push()); }

  // Brings a result's pack to the laptop.
  result<void> receive(const wire::Result& result) {
    auto pipe = must(os::make_pipe());
    // Here, not in the thread: after a restart the first call opens the origin.
    std::string merged = origin().merged(kSandbox);
    wire::result<void> written;
    std::thread writer([&, out = std::move(pipe.write)]() mutable {
      written = workspace().write_pack(result, merged, std::move(out));
    });
    auto read = origin().read_pack(std::move(pipe.read), wire::kMaxPackBytes, {});
    writer.join();
    if (!read) return read;
    return written;
  }
  // The same, of all that it reaches.
  result<void> receive_whole(wire::Result& result) {
    // Known when the pack is complete; the laptop has to know it before.
    fs::path spool = box_store_.parent_path() / "spool";
    os::Fd file(::open(spool.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    REQUIRE(file);
    os::Fd out(::fcntl(file.get(), F_DUPFD_CLOEXEC, 3));
    auto ends = workspace().write_whole_pack(result, origin().merged(kSandbox), std::move(out));
    if (!ends) return ends.error();
    result.shallow = *ends;
    ::lseek(file.get(), 0, SEEK_SET);
    return origin().read_pack(std::move(file), wire::kMaxPackBytes, result.shallow);
  }
  // std::nullopt: the box has nothing new.
  std::optional<sync::MergeReport> pull() {
    auto taken = must(workspace().take_result(origin().id()));
    if (!taken) taken = workspace().unmerged(origin().id(), origin().merged(kSandbox));
    if (!taken) return std::nullopt;
    last_result = *taken;
    must(receive(*taken));
    auto report = must(origin().merge(kSandbox, *taken));
    workspace().merged(origin().id(), taken->result);
    return report;
  }

  static constexpr const char* kSandbox = "0123456789abcdef0123456789abcdef";
  std::vector<std::string> includes;
  std::optional<sync::Snapshot> last_snapshot;
  std::optional<wire::Result> last_result;

 private:
  fs::path laptop_, store_, workspace_, box_store_;
  std::unique_ptr<sync::Origin> origin_;
  std::unique_ptr<sync::Workspace> open_workspace_;
};

}  // namespace sync_test
