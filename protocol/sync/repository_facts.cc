#include "protocol/sync/repository_facts.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <sstream>

#include "protocol/os/paths.h"
#include "protocol/sync/git_output.h"
#include "protocol/sync/workspace_git.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;
namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMaxSmallFile = 16 << 20;
constexpr std::size_t kMaxExcludes = 256 << 10;  // they travel in one message

bool is_true(std::string_view value) {
  return value == "true" || value == "yes" || value == "on" || value == "1" || value.empty();
}

std::string first_line(const fs::path& file) {
  auto text = os::read_file(file, kMaxSmallFile);
  return text ? text->substr(0, text->find('\n')) : std::string();
}

class FactsReader {
 public:
  FactsReader(const Git& git, const RepositoryPlace& place, std::string object_format)
      : git_(git), place_(place) {
    facts_.object_format = std::move(object_format);
  }
  result<RepositoryFacts> read();

 private:
  result<void> read_settings();
  result<void> read_refs();
  result<void> read_staged();
  void read_excludes();
  void read_shallow();

  const Git& git_;
  const RepositoryPlace& place_;
  RepositoryFacts facts_;
};

result<RepositoryFacts> FactsReader::read() {
  auto done = read_settings();
  if (done) done = read_refs();
  if (done) done = read_staged();
  if (!done) return done.error();
  read_excludes();
  read_shallow();
  return std::move(facts_);
}

// The user's settings are asked for once; none of them is in force when git runs for us.
result<void> FactsReader::read_settings() {
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
    if (file.is_relative()) file = place_.work_tree / file;
    if (files.insert(file.string()).second) facts_.settings.push_back(file);
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
    excludes_file = (place_.work_tree / excludes_file).string();
  facts_.excludes_file = excludes_file;
  return {};
}

result<void> FactsReader::read_refs() {
  std::string head = first_line(place_.git_dir / "HEAD");
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

result<void> FactsReader::read_staged() {
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

void FactsReader::read_excludes() {
  // What comes later wins.
  for (const fs::path& file :
       {fs::path(facts_.excludes_file), place_.common_dir / "info" / "exclude"}) {
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

void FactsReader::read_shallow() {
  auto shallow = os::read_file(place_.common_dir / "shallow", kMaxSmallFile);
  std::istringstream lines(shallow ? *shallow : std::string());
  for (std::string line; std::getline(lines, line);)
    if (is_object_id(line)) facts_.shallow.push_back(line);
}

}  // namespace

result<RepositoryFacts> read_facts(const Git& git, const RepositoryPlace& place,
                                   std::string object_format) {
  return FactsReader(git, place, std::move(object_format)).read();
}

void write_facts(const RepositoryFacts& facts, RecordWriter& out) {
  for (const std::string* text :
       {&facts.object_format, &facts.head, &facts.head_tree, &facts.branch, &facts.upstream,
        &facts.remote_head, &facts.excludes, &facts.excludes_file})
    out.text(*text);
  out.number(facts.trusts_modes);
  out.number(facts.partial);
  out.number(facts.refs.size());
  for (const wire::Ref& ref : facts.refs) {
    out.text(ref.name);
    out.text(ref.oid);
  }
  out.number(facts.shallow.size());
  for (const std::string& commit : facts.shallow) out.text(commit);
  out.number(facts.staged.size());
  for (const TreeChange& change : facts.staged) {
    out.text(change.path);
    out.number(change.mode);
    out.text(change.oid);
  }
  out.number(facts.left_out.size());
  for (const wire::LeftOut& left : facts.left_out) {
    out.text(left.path);
    out.text(left.why);
  }
  out.number(facts.settings.size());
  for (const fs::path& file : facts.settings) out.text(file.string());
}

RepositoryFacts parse_facts(RecordReader& in) {
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
  texts([&] { facts.settings.emplace_back(in.text()); });
  return facts;
}

}  // namespace protocol::sync
