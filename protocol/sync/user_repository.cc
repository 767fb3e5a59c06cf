#include "protocol/sync/user_repository.h"

#include <sys/stat.h>

#include <cstdlib>

#include "protocol/os/file_info.h"
#include "protocol/os/paths.h"
#include "protocol/sync/git_output.h"
#include "protocol/sync/record.h"
#include "protocol/sync/scan_cache.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kMagic = "sandbox repository 1\n";

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

std::string environment_key() {
  std::string key;
  for (const char* name : {"HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM",
                           "GIT_CONFIG_NOSYSTEM"}) {
    const char* value = std::getenv(name);
    key += value ? "=" + std::string(value) + "\n" : std::string("-\n");
  }
  return key;
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
  for (const fs::path& file : facts_.settings) files.push_back(file);
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
  RepositoryFacts facts = parse_facts(in);
  std::map<std::string, std::string> looks;
  for (std::size_t count = in.count(); count > 0 && !in.failed(); --count) {
    std::string file = in.text();
    looks[std::move(file)] = in.text();
  }
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
  write_facts(facts_, out);
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
  auto facts = read_facts(git_, {work_tree_, git_dir_, common_dir_}, facts_.object_format);
  if (!facts) return facts.error();
  facts_ = std::move(*facts);
  looks_.clear();
  for (const fs::path& file : sources()) {
    auto seen = before.find(file.string());
    std::string now = look(file);
    looks_[file.string()] = seen != before.end() && seen->second != now ? now + "?" : now;
  }
  remember();
  return {};
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
