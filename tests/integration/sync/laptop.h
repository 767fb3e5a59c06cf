// A laptop alone: a work tree in any state, and what its snapshots hold.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "protocol/sync/object_store.h"
#include "tests/integration/sync/two_ends.h"

namespace sync_test {

inline void make_repository(const fs::path& root) {
  fs::create_directories(root);
  git_out(root, {"init", "-q", "-b", "main"});
  write_file(root / "file", "one\n");
  write_file(root / "dir/inner", "inner\n");
  write_file(root / "program", "#!/bin/sh\n", true);
  write_file(root / ".gitignore", "*.o\n/build/\n");
  git_out(root, {"add", "-A"});
  git_out(root, {"commit", "-q", "-m", "one"});
}

inline void commit_all(const fs::path& root, const std::string& message) {
  git_out(root, {"add", "-A"});
  git_out(root, {"commit", "-q", "--allow-empty", "-m", message});
}

// A work tree and the store beside it.
class Laptop {
 public:
  explicit Laptop(const Scratch& scratch, const std::string& name = "laptop")
      : root_(scratch / name), store_(scratch / (name + "-store")) {
    fs::create_directories(root_);
  }
  const fs::path& root() const { return root_; }
  const fs::path& store() const { return store_; }
  sync::OriginOptions options() const {
    sync::OriginOptions options;
    options.work_tree = root_;
    options.store = store_;
    options.includes = includes;
    options.depth = depth;
    options.git = program;
    return options;
  }
  // As a new program each time.
  sync::Snapshot snapshot() { return must(must(sync::Origin::open(options()))->snapshot()); }

  sync::ObjectStore objects(const sync::Snapshot& snapshot) const {
    auto git = must(sync::Git::find("git"));
    sync::ObjectStore::Options options;
    options.directory = store_ / "store.git";
    options.object_format = snapshot.sync.object_format;
    options.cache = true;
    auto alternates = read_file(options.directory / "objects/info/alternates");
    if (alternates.size() > 3) options.alternates = {alternates.substr(1, alternates.size() - 3)};
    return must(sync::ObjectStore::open(git, options));
  }
  // What a tree of the store holds.
  Tree held(const sync::Snapshot& snapshot, const std::string& tree) const {
    auto store = objects(snapshot);
    auto reader = store.blob_reader();
    Tree out;
    for (const sync::TreeEntry& entry : must(store.list_tree(tree))) {
      if (entry.mode == 0160000) continue;
      Node node;
      node.kind = entry.mode == 0120000   ? Node::Kind::link
                  : entry.mode == 0100755 ? Node::Kind::program
                                          : Node::Kind::file;
      node.bytes = must(reader.read_all(entry.oid, 1 << 30));
      out.emplace(entry.path, std::move(node));
    }
    return out;
  }
  Tree held(const sync::Snapshot& snapshot) const { return held(snapshot, snapshot.tree); }
  // A pack of the whole snapshot goes into a store that has nothing.
  void check_sendable(const Scratch& scratch, const sync::Snapshot& snapshot) {
    auto git = must(sync::Git::find("git"));
    sync::ObjectStore::Options options;
    static int count = 0;
    options.directory = scratch / ("receiver" + std::to_string(count++));
    options.object_format = snapshot.sync.object_format;
    auto receiver = must(sync::ObjectStore::open(git, options));
    auto pipe = must(os::make_pipe());
    auto origin = must(sync::Origin::open(this->options()));
    result<void> written;
    std::thread writer([&, out = std::move(pipe.write)]() mutable {
      written = origin->write_pack(snapshot, {}, std::move(out));
    });
    auto read = receiver.read_pack(std::move(pipe.read), snapshot.sync.shallow);
    writer.join();
    must(std::move(written));
    must(std::move(read));
    CHECK(receiver.is_complete(snapshot.sync.snapshot));
    for (const wire::Ref& ref : snapshot.sync.refs) CHECK(receiver.is_complete(ref.oid));
  }

  std::vector<std::string> includes;
  std::uint32_t depth = 50;
  std::string program = "git";

 private:
  fs::path root_, store_;
};

inline bool names(const sync::Snapshot& snapshot, const std::string& path,
                  const std::string& why = {}) {
  return std::any_of(snapshot.left_out.begin(), snapshot.left_out.end(),
                     [&](const wire::LeftOut& left) {
                       return left.path == path && left.why.find(why) != std::string::npos;
                     });
}

}  // namespace sync_test
