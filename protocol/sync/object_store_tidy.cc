// Keeping a store small and sound.
#include <chrono>

#include "protocol/os/paths.h"
#include "protocol/sync/object_store.h"
#include "protocol/sync/workspace_git.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;
namespace fs = std::filesystem;

void ObjectStore::drop_empty_objects() {
  std::error_code error;
  std::vector<fs::path> empty;
  fs::recursive_directory_iterator entry(objects(), error), end;
  for (; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    bool info = entry->path().parent_path().filename() == "info";
    if (!info && entry->is_regular_file(ignored) && entry->file_size(ignored) == 0)
      empty.push_back(entry->path());
  }
  for (const fs::path& file : empty) {
    // A pack and its index are of no use without each other.
    for (const char* extension : {".pack", ".idx", ".rev"})
      if (file.parent_path().filename() == "pack")
        fs::remove(fs::path(file).replace_extension(extension), error);
    fs::remove(file, error);
  }
}

std::size_t ObjectStore::clutter() const {
  std::error_code error;
  std::size_t packs = 0, loose = 0;
  for (const auto& entry : fs::directory_iterator(objects() / "pack", error))
    packs += entry.path().extension() == ".pack" ? 1 : 0;
  for (const auto& entry : fs::directory_iterator(objects() / "17", error)) {
    (void)entry;
    ++loose;
  }
  return packs + loose * 256 / 100;
}

result<void> ObjectStore::copy_borrowed(const std::string& commit) {
  if (!is_object_id(commit))
    return Failure(Errc::bad_input, "`" + commit + "` is not an object id");
  fs::path packs = objects() / "pack";
  auto packed =
      git_.out({"pack-objects", "--revs", "--quiet", (packs / "pack").string()}, commit + "\n");
  if (!packed) return packed.error();
  std::string name = packed->substr(0, packed->find('\n'));
  // Without this a repack leaves out again what can be borrowed.
  return os::write_file(packs / ("pack-" + name + ".keep"), "kept\n");
}

result<void> ObjectStore::tidy() {
  auto repacked = git_.out({"repack", "-A", "-d", "-l", "-q", "--unpack-unreachable=1.hour.ago"});
  if (!repacked && options_.cache) {
    // Something that a ref reaches is gone, because the repository that we borrow from has dropped
    // it. What a cache no longer has it need not name.
    for (const auto& [name, oid] : list_refs("refs/")) {
      bool copied = !get_ref(name + std::string(kCopied)).empty();
      if ((copied || !name.starts_with(kKeptRefs)) && !is_complete(oid)) delete_ref(name);
    }
    repacked = git_.out({"repack", "-A", "-d", "-l", "-q", "--unpack-unreachable=1.hour.ago"});
  }
  if (!repacked) return repacked.error();
  auto pruned = git_.out({"prune", "--expire=1.hour.ago"});
  if (!pruned) return pruned.error();
  std::error_code error;
  auto day_ago = fs::file_time_type::clock::now() - std::chrono::hours(24);
  for (const auto& entry : fs::directory_iterator(options_.directory / "tmp", error)) {
    std::error_code ignored;
    if (entry.last_write_time(ignored) < day_ago) fs::remove_all(entry.path(), ignored);
  }
  return {};
}

}  // namespace protocol::sync
