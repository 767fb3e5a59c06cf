// Opening and making a store, and what is a file of its own in it: refs and the shallow list.
#include "protocol/sync/object_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "protocol/os/beneath.h"
#include "protocol/os/paths.h"
#include "protocol/sync/object_id.h"
#include "protocol/sync/workspace_git.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;

namespace {

namespace fs = std::filesystem;

// No attribute of a tree or of the user means anything here.
constexpr std::string_view kAttributes =
    "* -text !eol -filter -ident -working-tree-encoding !merge !diff !delta\n";

std::string marker(const ObjectStore::Options& options) {
  return "sandbox store 1 " + options.object_format + "\n";
}

// Replaces a file in one step; not beside it, because what stands beneath refs/ is taken for a ref.
result<void> put(const fs::path& store, const fs::path& file, std::string_view bytes,
                 bool durable) {
  std::error_code error;
  fs::create_directories(store / "tmp", error);
  fs::path temporary = store / "tmp" / ("file-" + os::random_hex(16));
  os::Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return os::errno_failure(errno, temporary.string());
  auto written = os::write_all(fd.get(), bytes);
  if (written && durable && ::fsync(fd.get()) != 0) written = os::errno_failure(errno, "fsync");
  fd.reset();
  for (int attempt = 0; written && attempt < 3; ++attempt) {
    fs::create_directories(file.parent_path(), error);
    if (::rename(temporary.c_str(), file.c_str()) == 0)
      return durable ? os::sync_directory(file.parent_path()) : result<void>();
    if (errno != ENOENT) break;  // delete_ref has just taken the directory
  }
  Failure failure = written ? os::errno_failure(errno, file.string()) : Failure(written.error());
  ::unlink(temporary.c_str());
  return failure;
}

Failure not_an_id(const std::string& text) {
  return Failure(Errc::bad_input, "`" + text.substr(0, 80) + "` is not an object id");
}

void remove_quietly(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
}

bool is_made(const ObjectStore::Options& options) {
  auto text = os::read_file(options.directory / "sandbox-store", 4096);
  return text && *text == marker(options);
}

result<void> make_store(const Git& git, const ObjectStore::Options& options) {
  auto directory = os::make_private_directory(options.directory);
  if (!directory) return directory;
  auto lock = os::FileLock::lock(options.directory / "lock", os::FileLock::Kind::exclusive);
  if (!lock) return lock.error();
  if (is_made(options)) return {};  // by the process that had the lock
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(options.directory, error)) {
    if (entry.path().filename() == "lock") continue;
    // What `git init` leaves when it is killed has no objects; nothing else is ours to remove.
    if (!options.cache && entry.path().filename() == "sandbox-store")
      return Failure(Errc::bad_input, options.directory.string() + ": not a store for " +
                                          options.object_format + " objects");
    if (options.cache) remove_quietly(entry.path());
  }
  std::vector<std::string> init{"init", "--quiet", "--bare",
                                "--template=", "--object-format=" + options.object_format};
  if (git.version() >= GitVersion{2, 45}) init.push_back("--ref-format=files");
  init.push_back("--");
  init.push_back(options.directory.string());
  auto made = git.out(std::move(init));
  if (!made) return made.error();
  auto attributes = put(options.directory, options.directory / "info" / "attributes", kAttributes,
                        !options.cache);
  if (!attributes) return attributes;
  return put(options.directory, options.directory / "sandbox-store", marker(options),
             !options.cache);
}

}  // namespace

std::string alternates_line(const fs::path& objects) {
  std::string out = "\"";
  for (char c : objects.string()) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out + "\"\n";
}

ObjectStore::ObjectStore(Git git, Options options)
    : git_(std::move(git)), options_(std::move(options)) {}

result<ObjectStore> ObjectStore::open(const Git& git, Options options) {
  std::error_code error;
  options.directory = fs::absolute(options.directory);
  const fs::path& directory = options.directory;
  if (!is_made(options)) {
    auto made = make_store(git, options);
    if (!made) return made.error();
  }
  std::string alternates;
  for (const fs::path& path : options.alternates) alternates += alternates_line(path);
  fs::path file = directory / "objects" / "info" / "alternates";
  auto before = os::read_file(file, 1 << 20);
  if ((before ? *before : std::string()) != alternates) {
    auto written = put(directory, file, alternates, !options.cache);
    if (!written) return written.error();
  }
  Git own = git.with_repository(directory)
                .with_config(options.cache ? "core.fsync=none" : "core.fsync=committed")
                .with_config("core.fsyncMethod=batch")
                .with_config("core.bigFileThreshold=64m");
  return ObjectStore(std::move(own), std::move(options));
}

std::string ObjectStore::empty_tree() const {
  return ObjectHash(options_.object_format, "tree", 0).finish();
}

result<os::FileLock> ObjectStore::lock() const {
  return os::FileLock::lock(options_.directory / "lock", os::FileLock::Kind::exclusive);
}

// ---- refs ----------------------------------------------------------------------------------

result<void> ObjectStore::set_ref(const std::string& name, const std::string& oid) {
  if (!is_ref_name(name)) return Failure(Errc::bad_input, "`" + name + "` is not a ref's name");
  if (!is_object_id(oid)) return not_an_id(oid);
  if (get_ref(name) == oid) return {};
  return put(options_.directory, options_.directory / name, oid + "\n", !options_.cache);
}

std::string ObjectStore::get_ref(const std::string& name) const {
  if (!is_ref_name(name)) return {};
  auto text = os::read_file(options_.directory / name, 256);
  if (!text) return {};
  while (!text->empty() && text->back() == '\n') text->pop_back();
  return is_object_id(*text) ? *text : std::string();
}

void ObjectStore::delete_ref(const std::string& name) {
  if (!is_ref_name(name)) return;
  fs::path file = options_.directory / name;
  ::unlink(file.c_str());
  for (fs::path up = file.parent_path(); up != options_.directory / "refs"; up = up.parent_path())
    if (::rmdir(up.c_str()) != 0) break;
}

std::vector<std::pair<std::string, std::string>> ObjectStore::list_refs(
    const std::string& prefix) const {
  std::vector<std::pair<std::string, std::string>> refs;
  std::error_code error;
  fs::recursive_directory_iterator entry(options_.directory / prefix, error), end;
  for (; !error && entry != end; entry.increment(error)) {
    std::string name = entry->path().lexically_relative(options_.directory).string();
    if (std::string oid = get_ref(name); !oid.empty()) refs.emplace_back(name, oid);
  }
  std::sort(refs.begin(), refs.end());
  return refs;
}

// ---- shallow -------------------------------------------------------------------------------

std::vector<std::string> ObjectStore::shallow() const {
  std::vector<std::string> commits;
  auto text = os::read_file(options_.directory / "shallow", 64 << 20);
  if (!text) return commits;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);)
    if (is_object_id(line)) commits.push_back(line);
  return commits;
}

result<void> ObjectStore::set_shallow(std::vector<std::string> commits) {
  std::sort(commits.begin(), commits.end());
  commits.erase(std::unique(commits.begin(), commits.end()), commits.end());
  for (const std::string& commit : commits)
    if (!is_object_id(commit)) return not_an_id(commit);
  if (commits == shallow()) return {};
  fs::path file = options_.directory / "shallow";
  if (commits.empty()) {
    if (::unlink(file.c_str()) != 0 && errno != ENOENT)
      return os::errno_failure(errno, file.string());
    return {};
  }
  std::string text;
  for (const std::string& commit : commits) text += commit + "\n";
  return put(options_.directory, file, text, !options_.cache);
}

}  // namespace protocol::sync
