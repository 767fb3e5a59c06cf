#include "protocol/sync/snapshot_builder.h"

#include <algorithm>
#include <set>
#include <unordered_set>

#include "protocol/os/paths.h"
#include "protocol/sync/object_id.h"
#include "protocol/sync/record.h"
#include "protocol/sync/workspace_git.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;
namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMaxRecord = 64 << 20;
constexpr std::size_t kKept = 20;  // snapshots besides those in use
constexpr std::size_t kTooMany = 40;

// A record that begins with `key`; std::nullopt: there is none, or it is damaged.
std::optional<std::string> recall(const fs::path& file, const std::string& key) {
  auto bytes = os::read_file(file, kMaxRecord);
  if (!bytes || bytes->size() < 8) return std::nullopt;
  std::string_view body = std::string_view(*bytes).substr(0, bytes->size() - 8);
  if (RecordReader(std::string_view(*bytes).substr(body.size())).number() != record_checksum(body))
    return std::nullopt;
  RecordReader in(body);
  if (in.text() != key || in.failed()) return std::nullopt;
  return std::string(in.rest());
}

void remember(const fs::path& file, const std::string& key, const RecordWriter& what) {
  RecordWriter out;
  out.text(key);
  out.out() += what.out();
  out.number(record_checksum(out.out()));
  (void)write_record(file, out.out());
}

void put_texts(RecordWriter& out, const std::vector<std::string>& texts) {
  out.number(texts.size());
  for (const std::string& text : texts) out.text(text);
}

std::vector<std::string> take_texts(RecordReader& in) {
  std::vector<std::string> texts;
  for (std::size_t count = in.count(); count > 0 && !in.failed(); --count)
    texts.push_back(in.text());
  return texts;
}

void put_record(const fs::path& file, const SnapshotRecord& record) {
  RecordWriter out;
  out.text(record.commit);
  put_texts(out, record.tips);
  put_texts(out, record.shallow);
  remember(file, "snapshot", out);
}

SnapshotRecord take_record(const fs::path& file) {
  SnapshotRecord record;
  if (auto known = recall(file, "snapshot")) {
    RecordReader in(*known);
    record.commit = in.text();
    record.tips = take_texts(in);
    record.shallow = take_texts(in);
    if (!in.ended_well()) record = {};
  }
  return record;
}

std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) all += text + "\n";
  return all;
}

}  // namespace

result<History> SnapshotBuilder::history(const HistoryRequest& request) {
  std::string key = request.head + "\n" + joined(request.others) + std::to_string(request.depth) +
                    (request.partial ? " partial\n" : "\n") + joined(store_.shallow());
  fs::path file = directory_ / "history";
  if (auto known = recall(file, key)) {
    RecordReader in(*known);
    History history;
    history.shallow = take_texts(in);
    history.impossible = in.number() != 0;
    history.head_only = in.number() != 0;
    if (in.ended_well()) return history;
  }
  auto planned = plan_history(store_, request);
  if (!planned) return planned;
  RecordWriter out;
  put_texts(out, planned->shallow);
  out.number(planned->impossible);
  out.number(planned->head_only);
  remember(file, key, out);
  return planned;
}

// A partial clone may have an index that names what it does not have.
result<std::vector<TreeChange>> SnapshotBuilder::storable(
    const std::vector<TreeChange>& staged, std::vector<wire::LeftOut>& left_out) const {
  std::vector<std::string> oids;
  for (const TreeChange& change : staged)
    if (change.mode != 0 && change.mode != 0160000) oids.push_back(change.oid);
  auto known = store_.known(oids);
  if (!known) return known.error();
  std::unordered_set<std::string> here(known->begin(), known->end());
  std::vector<TreeChange> kept;
  for (const TreeChange& change : staged) {
    std::string why = refuse_to_carry(change.path);
    if (why.empty() && change.mode != 0 && change.mode != 0160000 && !here.contains(change.oid))
      why = "staged, but its content is not in the repository";
    if (why.empty())
      kept.push_back(change);
    else
      left_out.push_back({change.path, why});
  }
  return kept;
}

result<Snapshot> SnapshotBuilder::build(const Scan& scan, const UserRepository* repository,
                                        std::uint32_t depth, ObjectWriter& writer) {
  Snapshot snapshot;
  snapshot.tree = scan.tree;
  snapshot.left_out = scan.left_out;
  for (wire::LeftOut& unread : name_unread(scan.unread, End::here))
    snapshot.left_out.push_back(std::move(unread));
  wire::SyncStart& sync = snapshot.sync;
  sync.object_format = store_.object_format();
  sync.git = repository != nullptr;

  std::string key = scan.tree + "\n";
  std::string head_tree;
  std::vector<TreeChange> staged;
  if (repository) {
    const RepositoryFacts& facts = repository->facts();
    snapshot.left_out.insert(snapshot.left_out.end(), facts.left_out.begin(), facts.left_out.end());
    sync.head = facts.head;
    sync.branch = facts.branch;
    sync.upstream = facts.upstream;
    sync.remote_head = facts.remote_head;
    sync.refs = facts.refs;
    sync.excludes = facts.excludes;
    head_tree = facts.head_tree;
    staged = facts.staged;
    bool doubtful = facts.partial || recall(directory_ / "doubt", "doubt").has_value();
    HistoryRequest request{facts.head, {}, depth, doubtful};
    for (const wire::Ref& ref : facts.refs)
      if (ref.name != facts.branch) request.others.push_back(ref.oid);
    auto planned = history(request);
    if (!planned) return planned.error();
    sync.shallow = planned->shallow;
    if (planned->head_only) {
      std::erase_if(sync.refs, [&](const wire::Ref& ref) { return ref.name != facts.branch; });
      sync.upstream.clear();
      sync.remote_head.clear();
      snapshot.left_out.push_back({".git", "history: the repository lacks objects of it"});
    }
    if (planned->impossible) {
      sync.head.clear();
      sync.refs.clear();
      head_tree.clear();
      staged.clear();
    }
    key += sync.head + "\n" + sync.branch + "\n";
    for (const TreeChange& change : staged)
      key += std::to_string(change.mode) + " " + change.oid + " " + change.path + '\0';
  }

  fs::path file = directory_ / "snapshot";
  if (auto known = recall(file, key)) {
    RecordReader in(*known);
    sync.snapshot = in.text();
    sync.staged = in.text();
    for (std::size_t count = in.count(); count > 0 && !in.failed(); --count) {
      std::string path = in.text();
      snapshot.left_out.push_back({std::move(path), in.text()});
    }
    if (in.ended_well() && !writer.used() &&
        store_.get_ref("refs/snapshots/" + sync.snapshot) == sync.snapshot)
      return snapshot;
    sync.snapshot.clear();
    sync.staged.clear();
  }

  std::vector<wire::LeftOut> left_out;
  std::vector<std::string> parents;
  if (!sync.head.empty()) parents.push_back(sync.head);
  if (!staged.empty()) {
    auto kept = storable(staged, left_out);
    if (!kept) return kept.error();
    auto tree = writer.tree(head_tree, *kept);
    if (!tree) return tree.error();
    if (*tree != head_tree) {
      auto commit = writer.commit(*tree, parents, "staged");
      if (!commit) return commit.error();
      sync.staged = *commit;
      parents.push_back(*commit);
    }
  }
  auto commit = writer.commit(scan.tree, parents, sync.branch);
  if (!commit) return commit.error();
  sync.snapshot = *commit;
  RecordWriter out;
  out.text(sync.snapshot);
  out.text(sync.staged);
  out.number(left_out.size());
  for (const wire::LeftOut& left : left_out) {
    out.text(left.path);
    out.text(left.why);
  }
  remember(file, key, out);
  snapshot.left_out.insert(snapshot.left_out.end(), left_out.begin(), left_out.end());
  return snapshot;
}

result<void> SnapshotBuilder::keep(const Snapshot& snapshot,
                                   const std::vector<std::string>& in_use) {
  const std::string& commit = snapshot.sync.snapshot;
  std::string ref = "refs/snapshots/" + commit;
  fs::path records = directory_ / "snapshots";
  SnapshotRecord with{commit, {}, snapshot.sync.shallow};
  for (const wire::Ref& known : snapshot.sync.refs) with.tips.push_back(known.oid);
  std::error_code error;
  if (record(commit) != with) {
    fs::create_directories(records, error);
    put_record(records / commit, with);
  }
  if (store_.get_ref(ref) == commit) return {};
  auto set = store_.set_ref(ref, commit);
  if (!set) return set;

  std::vector<std::pair<fs::file_time_type, std::string>> all;
  for (const auto& entry : fs::directory_iterator(records, error)) {
    std::error_code ignored;
    all.emplace_back(entry.last_write_time(ignored), entry.path().filename().string());
  }
  if (all.size() < kTooMany) return {};
  std::sort(all.rbegin(), all.rend());
  std::set<std::string> used(in_use.begin(), in_use.end());
  used.insert(commit);
  for (std::size_t i = kKept; i < all.size(); ++i) {
    if (used.contains(all[i].second)) continue;
    store_.delete_ref("refs/snapshots/" + all[i].second);
    fs::remove(records / all[i].second, error);
  }
  return {};
}

SnapshotRecord SnapshotBuilder::record(const std::string& commit) const {
  if (!is_object_id(commit)) return {};
  SnapshotRecord record = take_record(directory_ / "snapshots" / commit);
  return record.commit == commit ? record : SnapshotRecord();
}

void SnapshotBuilder::set_base(const std::string& name, const SnapshotRecord& record) {
  std::error_code error;
  fs::create_directories(directory_ / "bases", error);
  put_record(directory_ / "bases" / name, record);
}

void SnapshotBuilder::forget_base(const std::string& name) {
  std::error_code error;
  fs::remove(directory_ / "bases" / name, error);
}

std::vector<SnapshotRecord> SnapshotBuilder::bases() const {
  std::vector<SnapshotRecord> all;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_ / "bases", error))
    if (SnapshotRecord record = take_record(entry.path()); !record.commit.empty())
      all.push_back(std::move(record));
  return all;
}

void SnapshotBuilder::forget() {
  std::error_code error;
  fs::remove(directory_ / "snapshot", error);
  fs::remove(directory_ / "history", error);
}

void SnapshotBuilder::doubt_history() {
  RecordWriter nothing;
  remember(directory_ / "doubt", "doubt", nothing);
}

}  // namespace protocol::sync
