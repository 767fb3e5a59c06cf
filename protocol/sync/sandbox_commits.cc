#include "protocol/sync/sandbox_commits.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "protocol/sync/workspace_git.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;

namespace {

constexpr std::string_view kHeads = "refs/heads/";
constexpr std::string_view kTags = "refs/tags/";
constexpr std::string_view kStashes = "refs/stash/";
constexpr std::string_view kDrifts = "refs/drift/";
constexpr std::size_t kShortId = 12;

// refs/heads/x in the sandbox is refs/sandbox/x here; its detached HEAD is refs/sandbox/HEAD. What
// has no lasting name there is named by its id, so that none takes another's place. Empty: no such
// name.
std::string local_name(const wire::Ref& ref) {
  const std::string& name = ref.name;
  if (name == "HEAD") return "refs/sandbox/HEAD";
  if (!is_ref_name(name)) return {};
  if (name.starts_with(kHeads)) return "refs/sandbox/" + name.substr(kHeads.size());
  if (name.starts_with(kTags)) return "refs/sandbox/tags/" + name.substr(kTags.size());
  if (name.starts_with(kStashes)) return "refs/sandbox/stash/" + ref.oid.substr(0, kShortId);
  if (name.starts_with(kDrifts)) return "refs/sandbox/drift/" + ref.oid.substr(0, kShortId);
  return {};
}

bool repository_has(const Git& git, const std::string& oid) {
  auto there = git.run({"cat-file", "-e", oid});
  return there && there->exit.ok();
}

bool points_at(const Git& git, const std::string& name, const std::string& oid) {
  auto now = git.run({"rev-parse", "--verify", "--quiet", name});
  return now && now->exit.ok() && now->out.substr(0, oid.size()) == oid;
}

// Its history is the user's own already: nothing was made in the sandbox.
bool is_known_history(const Git& git, const std::string& commit) {
  auto listed = git.run(
      {"rev-list", "--max-count=1", commit, "--not", "--exclude=refs/sandbox/*", "--all", "HEAD"});
  return listed && listed->exit.ok() && listed->out.empty();
}

// The store writes a pack that the user's repository checks as it reads it.
result<void> transfer(const MergeContext& context, const Git& git,
                      const std::vector<std::string>& tips, const std::vector<std::string>& haves) {
  NoSigpipe no_sigpipe;
  auto pack = os::make_pipe();
  if (!pack) return pack.error();
  auto words = os::make_pipe();
  if (!words) return words.error();
  os::Spawn spawn = git.spawn({"index-pack", "--stdin", "--fix-thin", "--strict"});
  spawn.stdin_fd = pack->read.get();
  spawn.stderr_fd = words->write.get();
  auto process = os::Process::start(spawn);
  if (!process) return process.error();
  pack->read.reset();
  words->write.reset();
  auto written = context.store.write_pack(tips, haves, {}, std::move(pack->write));
  os::ExitStatus exit = process->wait_blocking();
  if (exit.ok()) return written;
  char text[4096];
  ssize_t count = ::read(words->read.get(), text, sizeof text);
  return git_failure(exit, std::string_view(text, count > 0 ? static_cast<std::size_t>(count) : 0),
                     "index-pack");
}

}  // namespace

result<void> fetch_sandbox_commits(const MergeContext& context, const wire::Result& result,
                                   MergeReport& report) {
  auto commit = context.store.read_commit(result.result);
  if (!commit) return commit.error();
  auto refuse = [&](const std::string& name, std::string why) {
    report.refused.push_back({name, std::move(why)});
  };

  struct Wanted {
    std::string name;  // here
    std::string oid;
    std::string tag;  // its name in the sandbox, when it is one
  };
  std::vector<Wanted> wanted;
  for (const wire::Ref& ref : result.commits) {
    std::string name = local_name(ref);
    const auto& parents = commit->parents;
    bool came = std::find(parents.begin() + 1, parents.end(), ref.oid) != parents.end() ||
                (ref.name.starts_with(kTags) && context.store.has(ref.oid));
    if (name.empty() || !came) {
      refuse(ref.name, "not a name of something that came with the result");
    } else if (!context.repository && ref.name.starts_with(kDrifts)) {
      auto kept = context.store.set_ref(std::string(kKeptRefs) + ref.oid, ref.oid);
      if (!kept) return kept;
      report.drift.push_back({ref.oid, context.store.directory()});
    } else if (!context.repository) {
      refuse(ref.name, "commits were made in the sandbox, and there is no git repository here");
    } else {
      wanted.push_back({std::move(name), ref.oid, ref.name.starts_with(kTags) ? ref.name : ""});
    }
  }
  if (wanted.empty()) return {};

  Git git =
      context.repository->with_config("core.fsync=all").with_config("core.hooksPath=/dev/null");
  std::vector<std::string> tips;
  for (const auto& [name, oid, tag] : wanted) {
    if (!repository_has(git, oid)) tips.push_back(oid);
  }
  if (!tips.empty()) {
    std::vector<std::string> haves;
    auto base = context.store.read_commit(result.base);
    for (const std::string& parent : base ? base->parents : std::vector<std::string>())
      if (repository_has(git, parent)) haves.push_back(parent);
    auto sent = transfer(context, git, tips, haves);
    if (!sent && sent.error().code == Errc::no_space) return sent;
    if (!sent) {
      for (const auto& [name, oid, tag] : wanted)
        refuse(name, "its commits could not be written: " + sent.error().what);
      return {};
    }
  }
  for (const auto& [name, oid, tag] : wanted) {
    if (points_at(git, name, oid)) continue;  // brought over before
    if (tag.empty() ? is_known_history(git, oid) : points_at(git, tag, oid)) continue;
    auto set =
        git.out({"update-ref", "--create-reflog", "-m", "sandbox: " + result.result, name, oid});
    if (!set && set.error().code == Errc::no_space) return set.error();
    if (set) {
      report.commits.push_back(name);
    } else {
      refuse(name, "the ref could not be written: " + set.error().what);
    }
  }
  return {};
}

}  // namespace protocol::sync
