#include "protocol/sync/object_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
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
constexpr std::size_t kMaxMergeBytes = 64 << 20;
constexpr std::size_t kMaxCommitBytes = 16 << 20;

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

std::string commit_text(const std::string& tree, const std::vector<std::string>& parents,
                        const std::string& message) {
  std::string text = "tree " + tree + "\n";
  for (const std::string& parent : parents) text += "parent " + parent + "\n";
  text += "author " + std::string(kCommitIdentity) + "\n";
  text += "committer " + std::string(kCommitIdentity) + "\n\n";
  return text + message;
}

std::uint32_t parse_mode(std::string_view text) {
  std::uint32_t mode = 0;
  std::from_chars(text.data(), text.data() + text.size(), mode, 8);
  return mode;
}

bool is_null(std::string_view oid) { return oid.find_first_not_of('0') == std::string_view::npos; }

// Takes the bytes up to `end` off the front of `text`, and `end` with them.
std::optional<std::string_view> take(std::string_view& text, char end) {
  std::size_t at = text.find(end);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view front = text.substr(0, at);
  text.remove_prefix(at + 1);
  return front;
}

Failure garbled(const std::string& command) {
  return Failure(Errc::io, "git " + command + " answered something that was not understood");
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

// ---- objects -------------------------------------------------------------------------------

bool ObjectStore::has(const std::string& oid) const {
  auto here = known({oid});
  return here && !here->empty();
}

result<std::vector<std::string>> ObjectStore::known(const std::vector<std::string>& oids) const {
  std::string input;
  for (const std::string& oid : oids)
    if (is_object_id(oid) && oid.size() == oid_digits()) input += oid + "\n";
  std::vector<std::string> here;
  if (input.empty()) return here;
  auto answer = git_.out({"cat-file", "--batch-check=%(objectname) %(objecttype)"}, input);
  if (!answer) return answer.error();
  std::string_view text = *answer;
  while (auto line = take(text, '\n'))
    if (!line->ends_with(" missing")) here.emplace_back(line->substr(0, line->find(' ')));
  return here;
}

bool ObjectStore::is_complete(const std::string& commit) const {
  if (!is_object_id(commit)) return false;
  auto answer = git_.run({"rev-list", "--objects", "--quiet", commit});
  return answer && answer->exit.ok();
}

result<Commit> ObjectStore::read_commit(const std::string& oid) const {
  if (!is_object_id(oid)) return not_an_id(oid);
  auto answer = os::run(git_.spawn({"cat-file", "commit", oid}), {}, kMaxCommitBytes);
  if (!answer) return answer.error();
  if (!answer->exit.ok()) {
    Failure failure = git_failure(answer->exit, answer->err, "cat-file");
    if (answer->err.find("bad file") != std::string::npos)
      failure = Failure(Errc::bad_input, oid + " is not a commit, or is not here");
    return failure;
  }
  Commit commit;
  std::string_view text = answer->out;
  while (auto line = take(text, '\n')) {
    if (line->empty()) break;
    if (line->starts_with("tree ")) commit.tree = line->substr(5);
    if (line->starts_with("parent ")) commit.parents.emplace_back(line->substr(7));
  }
  commit.message = text;
  if (!is_object_id(commit.tree)) return garbled("cat-file");
  return commit;
}

result<std::string> ObjectStore::tree_of(const std::string& commit) const {
  auto read = read_commit(commit);
  if (!read) return read.error();
  return std::move(read->tree);
}

result<std::vector<TreeDifference>> ObjectStore::diff_trees(const std::string& a,
                                                            const std::string& b) const {
  std::string from = a.empty() ? empty_tree() : a;
  std::string to = b.empty() ? empty_tree() : b;
  if (!is_object_id(from)) return not_an_id(from);
  if (!is_object_id(to)) return not_an_id(to);
  std::vector<TreeDifference> differences;
  if (from == to) return differences;
  auto answer = os::run(
      git_.spawn({"diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", from, to, "--"}),
      {}, kMaxTreeBytes);
  if (!answer) return answer.error();
  if (!answer->exit.ok()) return git_failure(answer->exit, answer->err, "diff-tree");
  // ":100644 100755 OID OID M" NUL path NUL
  std::string_view text = answer->out;
  while (!text.empty()) {
    auto header = take(text, '\0');
    auto path = take(text, '\0');
    if (!header || !path || header->empty() || header->front() != ':') return garbled("diff-tree");
    header->remove_prefix(1);
    TreeDifference difference;
    auto old_mode = take(*header, ' '), new_mode = take(*header, ' ');
    auto old_oid = take(*header, ' '), new_oid = take(*header, ' ');
    if (!old_mode || !new_mode || !old_oid || !new_oid) return garbled("diff-tree");
    difference.path = *path;
    difference.old_mode = parse_mode(*old_mode);
    difference.new_mode = parse_mode(*new_mode);
    if (!is_null(*old_oid)) difference.old_oid = *old_oid;
    if (!is_null(*new_oid)) difference.new_oid = *new_oid;
    differences.push_back(std::move(difference));
    if (differences.size() > kMaxTreeEntries)
      return Failure(Errc::too_large, "the trees differ in too many paths");
  }
  return differences;
}

result<std::vector<TreeEntry>> ObjectStore::list_tree(const std::string& tree) const {
  if (!is_object_id(tree)) return not_an_id(tree);
  std::vector<TreeEntry> entries;
  if (tree == empty_tree()) return entries;
  auto answer =
      os::run(git_.spawn({"ls-tree", "-r", "-z", "--full-tree", tree}), {}, kMaxTreeBytes);
  if (!answer) return answer.error();
  if (!answer->exit.ok()) return git_failure(answer->exit, answer->err, "ls-tree");
  std::string_view text = answer->out;
  while (!text.empty()) {  // "100644 blob OID" TAB path NUL
    auto mode = take(text, ' '), type = take(text, ' '), oid = take(text, '\t');
    auto path = take(text, '\0');
    if (!mode || !type || !oid || !path) return garbled("ls-tree");
    entries.push_back({std::string(*path), parse_mode(*mode), std::string(*oid)});
    if (entries.size() > kMaxTreeEntries)
      return Failure(Errc::too_large, "the tree holds too many paths");
  }
  // git sorts a file before the directory of the same name; so do bytes, except around characters
  // below '/'.
  std::sort(entries.begin(), entries.end(),
            [](const TreeEntry& a, const TreeEntry& b) { return a.path < b.path; });
  return entries;
}

result<std::string> ObjectStore::write_blob(int fd) const {
  os::Spawn spawn = git_.spawn({"hash-object", "-w", "--stdin"});
  spawn.stdin_fd = fd;
  auto answer = os::run(std::move(spawn));
  if (!answer) return answer.error();
  if (!answer->exit.ok()) return git_failure(answer->exit, answer->err, "hash-object");
  std::string oid = answer->out.substr(0, answer->out.find('\n'));
  if (!is_object_id(oid)) return garbled("hash-object");
  return oid;
}

result<std::string> ObjectStore::write_blob(std::string_view bytes) const {
  auto answer = git_.out({"hash-object", "-w", "--stdin"}, bytes);
  if (!answer) return answer.error();
  std::string oid = answer->substr(0, answer->find('\n'));
  if (!is_object_id(oid)) return garbled("hash-object");
  return oid;
}

result<std::string> ObjectStore::write_commit(const std::string& tree,
                                              const std::vector<std::string>& parents,
                                              const std::string& message) const {
  if (!is_object_id(tree)) return not_an_id(tree);
  for (const std::string& parent : parents)
    if (!is_object_id(parent)) return not_an_id(parent);
  auto answer = git_.out({"hash-object", "-t", "commit", "-w", "--stdin"},
                         commit_text(tree, parents, message));
  if (!answer) return answer.error();
  return answer->substr(0, answer->find('\n'));
}

result<std::optional<std::string>> ObjectStore::merge_file(const std::string& base,
                                                           const std::string& ours,
                                                           const std::string& theirs) const {
  fs::path directory = options_.directory / "tmp" / ("merge-" + os::random_hex(16));
  struct Remove {
    const fs::path& path;
    ~Remove() { remove_quietly(path); }
  } remove{directory};
  std::error_code error;
  fs::create_directories(directory, error);
  BlobReader reader = blob_reader();
  const std::pair<const char*, const std::string*> sides[] = {
      {"ours", &ours}, {"base", &base}, {"theirs", &theirs}};
  for (auto [name, oid] : sides) {
    std::string bytes;
    if (!oid->empty()) {
      auto read = reader.read_all(*oid, kMaxMergeBytes);
      if (!read && read.error().code == Errc::too_large) return std::optional<std::string>();
      if (!read) return read.error();
      bytes = std::move(*read);
    }
    // git looks at the first 8000 bytes; a NUL later on is as little text.
    if (bytes.find('\0') != std::string::npos) return std::optional<std::string>();
    auto written = put(options_.directory, directory / name, bytes, false);
    if (!written) return written.error();
  }
  auto merged = git_.run({"merge-file", "-p", "-q", (directory / "ours").string(),
                          (directory / "base").string(), (directory / "theirs").string()});
  if (!merged) return merged.error();
  if (merged->exit.signal != 0) return git_failure(merged->exit, merged->err, "merge-file");
  if (merged->exit.status != 0) return std::optional<std::string>();
  auto oid = write_blob(std::string_view(merged->out));
  if (!oid) return oid.error();
  return std::optional<std::string>(std::move(*oid));
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
