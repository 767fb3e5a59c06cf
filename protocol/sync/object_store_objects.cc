// What a store holds: asked of git, or written by it.
#include <algorithm>

#include "protocol/os/paths.h"
#include "protocol/os/run.h"
#include "protocol/sync/git_output.h"
#include "protocol/sync/object_id.h"
#include "protocol/sync/object_store.h"
#include "protocol/sync/record.h"
#include "protocol/sync/workspace_git.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxMergeBytes = 64 << 20;
constexpr std::size_t kMaxCommitBytes = 16 << 20;

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

bool is_null(std::string_view oid) { return oid.find_first_not_of('0') == std::string_view::npos; }

Failure garbled(const std::string& command) {
  return Failure(Errc::io, "git " + command + " answered something that was not understood");
}

}  // namespace

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
    ~Remove() {
      std::error_code error;
      fs::remove_all(path, error);
    }
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
    auto written = write_record(directory / name, bytes);
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

}  // namespace protocol::sync
