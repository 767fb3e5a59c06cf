// Writes many objects through one git process (fast-import): blobs as raw bytes, trees as changes
// to another tree, commits. The process starts with the first object, so that a writer that is not
// used costs nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/os/beneath.h"
#include "protocol/sync/object_store.h"
#include "protocol/wire/result.h"

namespace protocol::sync {

struct TreeChange {
  std::string path;
  std::uint32_t mode = 0;  // 0: it goes
  std::string oid;
};

class ObjectWriter {
 public:
  // `store` outlives the writer.
  explicit ObjectWriter(const ObjectStore& store);
  ~ObjectWriter();  // without finish(): what was written may be lost

  result<std::string> blob(std::string_view bytes);
  // What a regular file holds, from its first byte, and what it was when it was read.
  struct FileBlob {
    std::string oid;
    os::FileInfo info;
    bool steady = true;    // it did not change while it was read
    bool readable = true;  // false: the system failed to read it, and `oid` is not what it holds
  };
  result<FileBlob> blob(const os::Fd& file);

  // The tree `base` (empty: the empty tree) with changes done in order. Blobs of this writer may be
  // named. Errc::not_found: an object that a change names is not here.
  result<std::string> tree(const std::string& base, const std::vector<TreeChange>& changes);
  // As ObjectStore::write_commit.
  result<std::string> commit(const std::string& tree, const std::vector<std::string>& parents,
                             const std::string& message);

  bool used() const;
  // The process died and what it had not yet stored is lost: start over with restart().
  bool failed() const;
  void restart();
  // Ends the process; from then on everything written is in the store.
  result<void> finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace protocol::sync
