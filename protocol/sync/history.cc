#include "protocol/sync/history.h"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "protocol/os/paths.h"
#include "protocol/sync/record.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;

namespace {

using Parents = std::map<std::string, std::vector<std::string>>;

// Lines of `rev-list --parents`: a commit and its parents.
Parents parse(const std::string& text) {
  Parents parents;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream ids(line);
    std::string commit, parent;
    ids >> commit;
    std::vector<std::string>& of = parents[commit];
    while (ids >> parent) of.push_back(parent);
  }
  return parents;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

result<Parents> list(const ObjectStore& store, const std::vector<std::string>& tips,
                     const std::vector<std::string>& without, std::uint32_t count) {
  std::string input;
  for (const std::string& tip : tips) input += tip + "\n";
  for (const std::string& commit : without) input += "^" + commit + "\n";
  std::vector<std::string> args{"rev-list", "--parents", "--stdin"};
  if (count > 0) args.push_back("--max-count=" + std::to_string(count));
  auto listed = store.git().out(std::move(args), input);
  if (!listed) return listed.error();
  return parse(*listed);
}

// Where all tips meet. None: their histories have nothing in common.
result<std::vector<std::string>> meeting(const ObjectStore& store,
                                         const std::vector<std::string>& tips) {
  if (tips.size() == 1) return tips;
  std::vector<std::string> args{"merge-base", "--octopus", "--all"};
  args.insert(args.end(), tips.begin(), tips.end());
  auto met = store.git().run(std::move(args));
  if (!met) return met.error();
  if (met->exit.signal != 0 || met->exit.status > 1)
    return git_failure(met->exit, met->err, "merge-base");
  return lines_of(met->out);
}

// Everything that these commits need is here when history ends at `shallow`.
result<bool> is_whole(const ObjectStore& store, const std::vector<std::string>& tips,
                      const std::vector<std::string>& shallow) {
  std::string list;
  for (const std::string& commit : shallow) list += commit + "\n";
  auto file = store.directory() / "tmp" / ("shallow-" + os::random_hex(16));
  auto written = write_record(file, list);
  if (!written) return written.error();
  std::string input;
  for (const std::string& tip : tips) input += tip + "\n";
  auto walked = store.git().run({"--shallow-file", file.string(), "rev-list", "--objects",
                                 "--missing=print", "--quiet", "--stdin"},
                                input);
  std::error_code ignored;
  std::filesystem::remove(file, ignored);
  if (!walked) return walked.error();
  return walked->exit.ok() && walked->out.empty();
}

result<History> plan_whole(const ObjectStore& store, const HistoryRequest& request) {
  History history;
  std::vector<std::string> own = store.shallow();
  if (request.depth == 0) {
    history.shallow = std::move(own);
    return history;
  }
  std::vector<std::string> tips{request.head};
  for (const std::string& other : request.others)
    if (std::find(tips.begin(), tips.end(), other) == tips.end()) tips.push_back(other);
  auto met = meeting(store, tips);
  if (!met) return met.error();
  std::vector<std::string> from = met->empty() ? tips : *met;
  Parents sent;
  if (from != tips) {
    auto above = list(store, tips, from, 0);
    if (!above) return above.error();
    sent = std::move(*above);
  }
  Parents above = sent;
  auto beyond = list(store, from, {}, request.depth);
  if (!beyond) return beyond.error();
  sent.merge(*beyond);
  // A merge of something older than all that: it goes too, without its own past.
  std::set<std::string> ends;
  for (const auto& [commit, parents] : above)
    for (const std::string& parent : parents)
      if (!sent.contains(parent)) ends.insert(parent);
  for (const auto& [commit, parents] : sent) {
    bool cut = !above.contains(commit) &&
               std::any_of(parents.begin(), parents.end(),
                           [&](const std::string& parent) { return !sent.contains(parent); });
    bool was_cut = std::binary_search(own.begin(), own.end(), commit);
    if (cut || was_cut) ends.insert(commit);
  }
  history.shallow.assign(ends.begin(), ends.end());
  return history;
}

}  // namespace

result<History> plan_history(const ObjectStore& store, const HistoryRequest& request) {
  if (request.head.empty()) return History();
  auto planned = plan_whole(store, request);
  if (!request.partial) return planned;
  std::vector<std::string> tips{request.head};
  tips.insert(tips.end(), request.others.begin(), request.others.end());
  if (planned) {
    auto whole = is_whole(store, tips, planned->shallow);
    if (!whole) return whole.error();
    if (*whole) return planned;
  }
  History history;
  history.head_only = true;
  history.shallow = {request.head};
  auto whole = is_whole(store, {request.head}, history.shallow);
  if (!whole) return whole.error();
  history.impossible = !*whole;
  if (history.impossible) history.shallow.clear();
  return history;
}

}  // namespace protocol::sync
