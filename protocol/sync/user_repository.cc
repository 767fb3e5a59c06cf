#include "protocol/sync/user_repository.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <set>
#include <sstream>

#include "protocol/os/paths.h"
#include "protocol/sync/record.h"
#include "protocol/sync/scan_cache.h"
#include "protocol/sync/workspace_git.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kMagic = "sandbox repository 1\n";
constexpr std::size_t kMaxSmallFile = 16 << 20;
constexpr std::size_t kMaxExcludes = 256 << 10;  // they travel in one message

// How a file looks from outside. "?" is never the same as anything: it may still change without
// looking different.
std::string look(const fs::path& file) {
  struct stat status;
  if (::stat(file.c_str(), &status) != 0) return "-";
  os::FileInfo info = os::file_info(status);
  if (info.kind == os::FileInfo::Kind::directory) return "directory";
  std::string text = std::to_string(info.inode) + " " + std::to_string(info.size) + " " +
                     std::to_string(info.modified_ns) + " " + std::to_string(info.changed_ns);
  if (!is_settled(info, file_clock_now())) text += "?";
  return text;
}

std::string first_line(const fs::path& file) {
  auto text = os::read_file(file, kMaxSmallFile);
  return text ? text->substr(0, text->find('\n')) : std::string();
}

std::string environment_key() {
  std::string key;
  for (const char* name : {"HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM",
                           "GIT_CONFIG_NOSYSTEM"}) {
    const char* value = std::getenv(name);
    key += value ? "=" + std::string(value) + "\n" : std::string("-\n");
  }
  return key;
}

std::optional<std::string_view> take(std::string_view& text, char end) {
  std::size_t at = text.find(end);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view front = text.substr(0, at);
  text.remove_prefix(at + 1);
  return front;
}

std::uint32_t parse_mode(std::string_view text) {
  std::uint32_t mode = 0;
  std::from_chars(text.data(), text.data() + text.size(), mode, 8);
  return mode;
}

bool is_true(std::string_view value) {
  return value == "true" || value == "yes" || value == "on" || value == "1" || value.empty();
}

}  // namespace

UserRepository::UserRepository(const Git& git, fs::path work_tree, fs::path memory)
    : git_(git), work_tree_(std::move(work_tree)), memory_(std::move(memory)) {}

result<std::unique_ptr<UserRepository>> UserRepository::open(const Git& git,
                                                             const fs::path& work_tree,
                                                             fs::path memory, std::string* why) {
  std::unique_ptr<UserRepository> repository(new UserRepository(git, work_tree, std::move(memory)));
  if (!repository->recall()) {
    auto found = repository->locate(why);
    if (!found) return found.error();
    if (!*found) return std::unique_ptr<UserRepository>();
  }
  repository->git_ = git.with_repository(repository->git_dir_).with_work_tree(work_tree);
  return repository;
}

result<bool> UserRepository::locate(std::string* why) {
  fs::path dot_git = work_tree_ / ".git";
  struct stat status;
  if (::lstat(dot_git.c_str(), &status) != 0) return false;
  auto answer =
      git_.with_repository(dot_git)
          .with_work_tree(work_tree_)
          .run({"rev-parse", "--absolute-git-dir", "--git-common-dir", "--show-object-format"});
  if (!answer) return answer.error();
  if (!answer->exit.ok()) {
    if (why) *why = git_failure(answer->exit, answer->err, "rev-parse").what;
    return false;
  }
  std::string_view text = answer->out;
  auto git_dir = take(text, '\n'), common = take(text, '\n'), format = take(text, '\n');
  if (!git_dir || !common || !format) return Failure(Errc::io, "git rev-parse was not understood");
  git_dir_ = std::string(*git_dir);
  common_dir_ = fs::path(std::string(*common));
  if (common_dir_.is_relative()) common_dir_ = work_tree_ / common_dir_;
  common_dir_ = common_dir_.lexically_normal();
  facts_.object_format = *format;
  return true;
}

// ---- what the facts come from --------------------------------------------------------------

std::vector<fs::path> UserRepository::sources() const {
  std::vector<fs::path> files{work_tree_ / ".git",
                              git_dir_ / "HEAD",
                              git_dir_ / "index",
                              git_dir_ / "config.worktree",
                              git_dir_ / "reftable" / "tables.list",
                              common_dir_ / "reftable" / "tables.list",
                              common_dir_ / "config",
                              common_dir_ / "packed-refs",
                              common_dir_ / "shallow",
                              common_dir_ / "info" / "exclude",
                              common_dir_ / "refs" / "remotes" / "origin" / "HEAD",
                              common_dir_ / "refs" / "remotes" / "origin" / "main",
                              common_dir_ / "refs" / "remotes" / "origin" / "master"};
  for (const std::string* ref : {&facts_.branch, &facts_.upstream, &facts_.remote_head})
    if (!ref->empty()) files.push_back(common_dir_ / *ref);
  if (!facts_.excludes_file.empty()) files.push_back(facts_.excludes_file);
  for (const fs::path& file : settings_) files.push_back(file);
  files.push_back("/etc/gitconfig");
  if (const char* home = std::getenv("HOME")) {
    files.push_back(fs::path(home) / ".gitconfig");
    files.push_back(fs::path(home) / ".config" / "git" / "config");
  }
  if (const char* config = std::getenv("XDG_CONFIG_HOME"))
    files.push_back(fs::path(config) / "git" / "config");
  return files;
}

std::string UserRepository::stamp() const {
  std::string text;
  for (const char* file : {"HEAD", "index"}) text += look(git_dir_ / file) + "\n";
  for (const char* file : {"packed-refs", "shallow"}) text += look(common_dir_ / file) + "\n";
  if (!facts_.branch.empty()) text += look(common_dir_ / facts_.branch) + "\n";
  std::erase(text, '?');
  return text;
}

std::string UserRepository::state() {
  std::string text;
  for (const fs::path& file :
       {git_dir_ / "index", common_dir_ / "info" / "exclude", common_dir_ / "config",
        git_dir_ / "config.worktree", fs::path(facts_.excludes_file)})
    text += file.string() + " " + look(file) + "\n";
  // What is not settled must not look the same next time.
  if (text.find('?') != std::string::npos) text += std::to_string(file_clock_now());
  return text;
}

// ---- memory --------------------------------------------------------------------------------

bool UserRepository::recall() {
  if (memory_.empty()) return false;
  auto bytes = os::read_file(memory_, 256 << 20);
  if (!bytes || !bytes->starts_with(kMagic) || bytes->size() < kMagic.size() + 8) return false;
  std::string_view body = std::string_view(*bytes).substr(0, bytes->size() - 8);
  if (RecordReader(std::string_view(*bytes).substr(body.size())).number() != record_checksum(body))
    return false;
  RecordReader in(body.substr(kMagic.size()));
  if (in.text() != environment_key() || in.text() != work_tree_.string()) return false;
  git_dir_ = in.text();
  common_dir_ = in.text();
  auto texts = [&](auto add) {
    for (std::size_t count = in.count(); count > 0 && !in.failed(); --count) add();
  };
  RepositoryFacts facts;
  facts.object_format = in.text();
  facts.head = in.text();
  facts.head_tree = in.text();
  facts.branch = in.text();
  facts.upstream = in.text();
  facts.remote_head = in.text();
  facts.excludes = in.text();
  facts.excludes_file = in.text();
  facts.trusts_modes = in.number() != 0;
  facts.partial = in.number() != 0;
  texts([&] {
    std::string name = in.text();
    facts.refs.push_back({std::move(name), in.text()});
  });
  texts([&] { facts.shallow.push_back(in.text()); });
  texts([&] {
    TreeChange change;
    change.path = in.text();
    change.mode = static_cast<std::uint32_t>(in.number());
    change.oid = in.text();
    facts.staged.push_back(std::move(change));
  });
  texts([&] {
    std::string path = in.text();
    facts.left_out.push_back({std::move(path), in.text()});
  });
  std::map<std::string, std::string> looks;
  std::vector<fs::path> settings;
  texts([&] { settings.emplace_back(in.text()); });
  texts([&] {
    std::string file = in.text();
    looks[std::move(file)] = in.text();
  });
  if (!in.ended_well()) return false;
  // A .git that has become another one makes all of it void; anything else is read again when it
  // has changed.
  fs::path dot_git = work_tree_ / ".git";
  auto before = looks.find(dot_git.string());
  auto config = looks.find((common_dir_ / "config").string());
  if (before == looks.end() || config == looks.end() || before->second != look(dot_git) ||
      config->second != look(common_dir_ / "config"))
    return false;
  facts_ = std::move(facts);
  looks_ = std::move(looks);
  settings_ = std::move(settings);
  return true;
}

void UserRepository::remember() const {
  if (memory_.empty()) return;
  RecordWriter out;
  out.out() = kMagic;
  out.text(environment_key());
  out.text(work_tree_.string());
  out.text(git_dir_.string());
  out.text(common_dir_.string());
  for (const std::string* text :
       {&facts_.object_format, &facts_.head, &facts_.head_tree, &facts_.branch, &facts_.upstream,
        &facts_.remote_head, &facts_.excludes, &facts_.excludes_file})
    out.text(*text);
  out.number(facts_.trusts_modes);
  out.number(facts_.partial);
  out.number(facts_.refs.size());
  for (const wire::Ref& ref : facts_.refs) {
    out.text(ref.name);
    out.text(ref.oid);
  }
  out.number(facts_.shallow.size());
  for (const std::string& commit : facts_.shallow) out.text(commit);
  out.number(facts_.staged.size());
  for (const TreeChange& change : facts_.staged) {
    out.text(change.path);
    out.number(change.mode);
    out.text(change.oid);
  }
  out.number(facts_.left_out.size());
  for (const wire::LeftOut& left : facts_.left_out) {
    out.text(left.path);
    out.text(left.why);
  }
  out.number(settings_.size());
  for (const fs::path& file : settings_) out.text(file.string());
  out.number(looks_.size());
  for (const auto& [file, seen] : looks_) {
    out.text(file);
    out.text(seen);
  }
  out.number(record_checksum(out.out()));
  write_record(memory_, out.out());
}

result<void> UserRepository::refresh() {
  bool same = !looks_.empty();
  for (const fs::path& file : sources()) {
    auto before = looks_.find(file.string());
    same = same && before != looks_.end() && before->second == look(file) &&
           !before->second.ends_with('?');
  }
  if (same) return {};
  // Facts may name other files to watch, so the looks are taken once before and once after: what
  // moved in between does not look the same and is read again next time.
  std::map<std::string, std::string> before;
  for (const fs::path& file : sources()) before[file.string()] = look(file);
  auto done = read();
  if (!done) return done;
  looks_.clear();
  for (const fs::path& file : sources()) {
    auto seen = before.find(file.string());
    std::string now = look(file);
    looks_[file.string()] = seen != before.end() && seen->second != now ? now + "?" : now;
  }
  remember();
  return {};
}

// ---- reading -------------------------------------------------------------------------------

result<void> UserRepository::read() {
  RepositoryFacts fresh;
  fresh.object_format = facts_.object_format;
  facts_ = std::move(fresh);
  auto done = read_settings();
  if (done) done = read_refs();
  if (done) done = read_staged();
  if (!done) return done;
  read_excludes();
  auto shallow = os::read_file(common_dir_ / "shallow", kMaxSmallFile);
  std::istringstream lines(shallow ? *shallow : std::string());
  for (std::string line; std::getline(lines, line);)
    if (is_object_id(line)) facts_.shallow.push_back(line);
  return {};
}

// The user's settings are asked for once; none of them is in force when git runs for us.
result<void> UserRepository::read_settings() {
  settings_.clear();
  std::string excludes_file;
  auto listed = git_.with_user_settings().run({"config", "--list", "--show-origin", "-z"});
  if (!listed) return listed.error();
  std::set<std::string> files;
  std::string_view text = listed->out;
  while (listed->exit.ok() && !text.empty()) {
    auto origin = take(text, '\0'), entry = take(text, '\0');
    if (!origin || !entry) break;
    if (!origin->starts_with("file:")) continue;
    fs::path file(std::string(origin->substr(5)));
    if (file.is_relative()) file = work_tree_ / file;
    if (files.insert(file.string()).second) settings_.push_back(file);
    std::size_t line = entry->find('\n');
    std::string_view key = entry->substr(0, line);
    std::string_view value =
        line == std::string_view::npos ? std::string_view() : entry->substr(line + 1);
    if (key == "core.excludesfile") excludes_file = value;
    if (key == "core.filemode") facts_.trusts_modes = is_true(value);
    if (key == "extensions.partialclone" ||
        (key.starts_with("remote.") && key.ends_with(".promisor") && is_true(value)))
      facts_.partial = true;
  }
  const char* home = std::getenv("HOME");
  if (excludes_file.starts_with("~/") && home) excludes_file.replace(0, 1, home);
  if (excludes_file.empty()) {
    const char* config = std::getenv("XDG_CONFIG_HOME");
    if (config && *config)
      excludes_file = (fs::path(config) / "git" / "ignore").string();
    else if (home)
      excludes_file = (fs::path(home) / ".config" / "git" / "ignore").string();
  }
  if (!excludes_file.empty() && fs::path(excludes_file).is_relative())
    excludes_file = (work_tree_ / excludes_file).string();
  facts_.excludes_file = excludes_file;
  return {};
}

result<void> UserRepository::read_refs() {
  std::string head = first_line(git_dir_ / "HEAD");
  if (head.starts_with("ref: ") && head != "ref: refs/heads/.invalid") {
    facts_.branch = head.substr(5);
  } else if (!is_object_id(head)) {  // refs kept in another form
    auto symbolic = git_.run({"symbolic-ref", "-q", "HEAD"});
    if (!symbolic) return symbolic.error();
    if (symbolic->exit.ok()) facts_.branch = symbolic->out.substr(0, symbolic->out.find('\n'));
  }
  if (!facts_.branch.starts_with("refs/heads/")) facts_.branch.clear();
  std::vector<std::string> ask{"for-each-ref", "--format=%(refname)%00%(upstream)%00%(symref)",
                               "refs/remotes/origin/HEAD", "refs/remotes/origin/main",
                               "refs/remotes/origin/master"};
  if (!facts_.branch.empty()) ask.push_back(facts_.branch);
  auto listed = git_.out(std::move(ask));
  if (!listed) return listed.error();
  std::string_view text = *listed;
  std::set<std::string> found;
  while (auto line = take(text, '\n')) {
    auto name = take(*line, '\0'), upstream = take(*line, '\0');
    if (!name || !upstream) continue;
    found.emplace(*name);
    if (*name == facts_.branch) facts_.upstream = *upstream;
    if (*name == "refs/remotes/origin/HEAD") facts_.remote_head = *line;
  }
  std::string fallback;
  for (const char* name : {"refs/remotes/origin/main", "refs/remotes/origin/master"})
    if (facts_.remote_head.empty() && fallback.empty() && found.contains(name)) fallback = name;

  std::vector<std::string> names{"HEAD", "HEAD^{tree}"};
  for (const std::string* name : {&facts_.upstream, &facts_.remote_head, &fallback})
    if (name->starts_with("refs/") && std::find(names.begin(), names.end(), *name) == names.end())
      names.push_back(*name);
  std::string input;
  for (const std::string& name : names) input += name + "\n";
  auto resolved = git_.out({"cat-file", "--batch-check=%(objectname) %(objecttype)"}, input);
  if (!resolved) return resolved.error();
  std::map<std::string, std::string> ids;
  text = *resolved;
  for (const std::string& name : names) {
    auto line = take(text, '\n');
    if (!line) break;
    bool right = line->ends_with(name == "HEAD^{tree}" ? " tree" : " commit");
    std::string id(line->substr(0, line->find(' ')));
    if (right && is_object_id(id)) ids[name] = id;
  }
  facts_.head = ids["HEAD"];
  facts_.head_tree = ids["HEAD^{tree}"];
  if (facts_.head_tree.empty()) facts_.head.clear();
  bool points = facts_.branch.empty() ? is_object_id(head) : found.contains(facts_.branch);
  if (facts_.head.empty() && points)
    facts_.left_out.push_back({".git", "HEAD names a commit that is not there"});
  for (std::string* name : {&facts_.upstream, &facts_.remote_head})
    if (!name->empty() && ids[*name].empty()) name->clear();

  if (!facts_.branch.empty() && !facts_.head.empty())
    facts_.refs.push_back({facts_.branch, facts_.head});
  for (const std::string& name : names)
    if (name.starts_with("refs/") && !ids[name].empty()) facts_.refs.push_back({name, ids[name]});
  return {};
}

result<void> UserRepository::read_staged() {
  std::string against = facts_.head;
  if (against.empty())
    against = facts_.object_format == "sha256"
                  ? "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
                  : "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
  auto listed = git_.out({"diff-index", "--cached", "--raw", "-z", "--no-renames", "--no-abbrev",
                          "--ita-invisible-in-index", "--ignore-submodules=none", against, "--"});
  if (!listed) return listed.error();
  std::string_view text = *listed;
  std::set<std::string> unmerged;
  while (!text.empty()) {  // ":100644 100755 OID OID M" NUL path NUL
    auto header = take(text, '\0'), path = take(text, '\0');
    if (!header || !path) return Failure(Errc::io, "git diff-index was not understood");
    if (header->ends_with(" U")) {
      if (unmerged.emplace(*path).second)
        facts_.left_out.push_back(
            {std::string(*path), "unmerged: the file is carried, the index has it as in HEAD"});
      continue;
    }
    auto old_mode = take(*header, ' '), mode = take(*header, ' '), old_oid = take(*header, ' ');
    auto oid = take(*header, ' ');
    if (!old_mode || !mode || !old_oid || !oid)
      return Failure(Errc::io, "git diff-index was not understood");
    TreeChange change;
    change.path = *path;
    change.mode = parse_mode(*mode);
    if (change.mode != 0) change.oid = *oid;
    facts_.staged.push_back(std::move(change));
  }
  std::erase_if(facts_.staged,
                [&](const TreeChange& change) { return unmerged.contains(change.path); });
  return {};
}

void UserRepository::read_excludes() {
  // What comes later wins.
  for (const fs::path& file : {fs::path(facts_.excludes_file), common_dir_ / "info" / "exclude"}) {
    if (file.empty()) continue;
    auto text = os::read_file(file, kMaxExcludes);
    if (!text) {
      if (text.error().code != Errc::not_found)
        facts_.left_out.push_back({file.string(), "ignore rules: " + text.error().what});
      continue;
    }
    facts_.excludes += *text;
    if (!facts_.excludes.empty() && facts_.excludes.back() != '\n') facts_.excludes += '\n';
  }
}

// ---- names ---------------------------------------------------------------------------------

Git UserRepository::git() {
  std::string file = facts_.excludes_file.empty() ? "/dev/null" : facts_.excludes_file;
  return git_.with_config("core.excludesFile=" + file);
}

result<NameSource::Names> UserRepository::list() {
  auto listed = git().out({"ls-files", "-z", "-t", "-s", "-c", "-o", "--exclude-standard"});
  if (!listed) return listed.error();
  Names names;
  std::string_view text = *listed;
  while (!text.empty()) {  // "? path", or "H 100644 OID 0" TAB path
    auto tag = take(text, ' ');
    if (tag && *tag == "?") {
      auto path = take(text, '\0');
      if (!path) return Failure(Errc::io, "git ls-files was not understood");
      names.others.emplace_back(*path);
      continue;
    }
    auto mode = take(text, ' '), oid = take(text, ' '), stage = take(text, '\t');
    auto path = take(text, '\0');
    if (!tag || !mode || !oid || !stage || !path)
      return Failure(Errc::io, "git ls-files was not understood");
    // The stages of an unmerged path stand next to each other; one is enough to know the name.
    if (!names.tracked.empty() && names.tracked.back().path == *path) continue;
    bool sparse = !tag->empty() && (tag->front() == 'S' || tag->front() == 's');
    names.tracked.push_back({std::string(*path), parse_mode(*mode), std::string(*oid), sparse});
  }
  return names;
}

}  // namespace protocol::sync
