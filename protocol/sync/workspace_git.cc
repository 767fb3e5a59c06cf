#include "protocol/sync/workspace_git.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "protocol/sync/object_store.h"
#include "protocol/sync/tree_path.h"

namespace protocol::sync {

using os::FileInfo;
using wire::Errc;
using wire::Failure;

namespace {

constexpr std::size_t kMaxRefFile = 4096;
constexpr std::size_t kMaxPackedRefs = 64 * 1024 * 1024;
constexpr std::size_t kMaxRefs = 100'000;
constexpr int kMaxDepth = 32;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
    text.remove_suffix(1);
  return text;
}

// A value in a git config file.
std::string config_value(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace

bool is_object_id(std::string_view text) {
  return (text.size() == 40 || text.size() == 64) && is_hex(text);
}

bool is_ref_name(std::string_view name) {
  if (!name.starts_with("refs/") || name.size() > 1024 || name.back() == '.') return false;
  if (name.find("..") != name.npos || name.find("@{") != name.npos) return false;
  for (char c : name) {
    if (static_cast<unsigned char>(c) <= ' ' || c == 0x7F) return false;
    if (std::string_view("~^:?*[\\").find(c) != std::string_view::npos) return false;
  }
  for (std::size_t begin = 0; begin <= name.size();) {
    std::size_t end = std::min(name.find('/', begin), name.size());
    std::string_view part = name.substr(begin, end - begin);
    if (part.empty() || part.front() == '.' || part.ends_with(".lock")) return false;
    begin = end + 1;
  }
  return true;
}

RepositoryRefs wanted_refs(const wire::SyncStart& sync) {
  RepositoryRefs wanted;
  wanted.branch = sync.branch;
  if (sync.branch.empty()) wanted.detached = sync.head;
  for (const wire::Ref& ref : sync.refs) {
    if (is_ref_name(ref.name) && is_object_id(ref.oid)) wanted.refs[ref.name] = ref.oid;
  }
  if (!sync.branch.empty() && !sync.head.empty()) wanted.refs[sync.branch] = sync.head;
  return wanted;
}

// ---- writing ---------------------------------------------------------------------------------

result<void> WorkspaceGit::make_directory(const std::string& path) const {
  for (int attempt = 0; attempt < 8; ++attempt) {
    auto made = workspace_.make_directories(path);
    if (made || made.error().code != Errc::refused) return made;
    for (std::size_t end = 0; end != std::string::npos;) {
      end = path.find('/', end == 0 ? 0 : end + 1);
      std::string at = path.substr(0, end);
      auto info = workspace_.info(at);
      if (!info) return info.error();
      if (!*info || (*info)->kind == FileInfo::Kind::directory) continue;
      auto removed = workspace_.remove_file(at);
      if (!removed) return removed;
      break;
    }
  }
  return Failure(Errc::busy, path + " is being changed by something else");
}

result<void> WorkspaceGit::put(const std::string& path, std::string_view bytes) const {
  auto made = make_directory(std::string(parent_of(path)));
  if (!made) return made;
  auto info = workspace_.info(path);
  if (!info) return info.error();
  if (*info && (*info)->kind == FileInfo::Kind::directory) {
    auto removed = workspace_.remove_all(path);
    if (!removed) return removed;
  } else if (*info && (*info)->kind == FileInfo::Kind::file && (*info)->size == bytes.size()) {
    auto same = workspace_.read_file(path, bytes.size());
    if (same && *same == bytes) return {};
  }
  auto file = workspace_.create(path, 0666);
  if (!file) return file.error();
  auto written = file->write(bytes);
  if (!written) return written;
  return workspace_.place(std::move(*file), path);
}

std::string WorkspaceGit::tracking_config(const wire::SyncStart& sync) const {
  constexpr std::string_view kRemotes = "refs/remotes/", kHeads = "refs/heads/";
  std::string config = "# Rewritten at every sync.\n";
  std::string_view upstream = sync.upstream;
  if (!upstream.starts_with(kRemotes)) return config;
  upstream.remove_prefix(kRemotes.size());
  std::size_t slash = upstream.find('/');
  if (slash == std::string_view::npos) return config;
  std::string remote(upstream.substr(0, slash));
  config += "[remote " + config_value(remote) +
            "]\n\tfetch = " + config_value("+refs/heads/*:refs/remotes/" + remote + "/*") + "\n";
  if (sync.branch.starts_with(kHeads)) {
    config += "[branch " + config_value(sync.branch.substr(kHeads.size())) + "]\n";
    config += "\tremote = " + config_value(remote) + "\n";
    config +=
        "\tmerge = " + config_value(std::string(kHeads) + std::string(upstream.substr(slash + 1))) +
        "\n";
  }
  return config;
}

result<void> WorkspaceGit::drop_ref(const std::string& name, const std::string& oid) const {
  auto loose = workspace_.read_file(".git/" + name, kMaxRefFile);
  if (loose) {
    if (trimmed(*loose) != oid) return {};  // moved in the sandbox: it is theirs now
    auto removed = workspace_.remove_file(".git/" + name);
    if (!removed) return removed;
  }
  auto packed = workspace_.read_file(".git/packed-refs", kMaxPackedRefs);
  if (!packed) return {};
  std::string kept;
  bool skipping = false, changed = false;
  for (std::size_t begin = 0; begin < packed->size();) {
    std::size_t end = std::min(packed->find('\n', begin), packed->size());
    std::string_view line(packed->data() + begin, end - begin);
    begin = end + 1;
    if (line.starts_with('^')) {
      if (skipping) continue;
    } else {
      skipping = line.size() == oid.size() + 1 + name.size() && line.ends_with(" " + name);
      if (skipping) {
        changed = true;
        continue;
      }
    }
    kept.append(line).append("\n");
  }
  if (!changed) return {};
  return put(".git/packed-refs", kept);
}

result<void> WorkspaceGit::write(const wire::SyncStart& sync, const RepositoryRefs& before,
                                 const std::string& shallow) const {
  for (const char* directory :
       {".git", ".git/objects/info", ".git/objects/pack", ".git/refs/heads", ".git/refs/tags"}) {
    auto made = make_directory(directory);
    if (!made) return made;
  }
  auto config = workspace_.info(".git/config");
  if (!config) return config.error();
  bool sha256 = sync.object_format == "sha256";
  if (!*config || (*config)->kind != FileInfo::Kind::file) {
    std::string text = "[core]\n\trepositoryformatversion = " + std::string(sha256 ? "1" : "0") +
                       "\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n";
    if (sha256) text += "[extensions]\n\tobjectformat = sha256\n";
    text += "[include]\n\tpath = sandbox-config\n";
    auto written = put(".git/config", text);
    if (!written) return written;
  }
  auto written = put(".git/sandbox-config", tracking_config(sync));
  if (!written) return written;
  written = put(".git/objects/info/alternates", alternates_line(objects_));
  if (!written) return written;
  if (shallow.empty()) {
    written = workspace_.remove_file(".git/shallow");
  } else {
    written = put(".git/shallow", shallow);
  }
  if (!written) return written;

  RepositoryRefs wanted = wanted_refs(sync);
  for (const auto& [name, oid] : before.refs) {
    if (wanted.refs.contains(name)) continue;
    auto dropped = drop_ref(name, oid);
    if (!dropped) return dropped;
  }
  for (const auto& [name, oid] : wanted.refs) {
    written = put(".git/" + name, oid + "\n");
    if (!written) return written;
  }
  if (is_ref_name(sync.remote_head)) {
    std::size_t slash = sync.remote_head.find('/', std::string_view("refs/remotes/").size());
    if (sync.remote_head.starts_with("refs/remotes/") && slash != std::string::npos) {
      written = put(".git/" + sync.remote_head.substr(0, slash) + "/HEAD",
                    "ref: " + sync.remote_head + "\n");
      if (!written) return written;
    }
  }
  std::string head = !wanted.branch.empty()     ? "ref: " + wanted.branch + "\n"
                     : !wanted.detached.empty() ? wanted.detached + "\n"
                                                : "ref: refs/heads/main\n";
  if (wanted.branch.empty() && wanted.detached.empty()) {
    // No commit and no branch: nothing to point at but a branch that is to be born.
  } else if (!wanted.branch.empty() && sync.head.empty()) {
    // An unborn branch: a ref of that name, left by an earlier state, would make it born.
    written = workspace_.remove_file(".git/" + wanted.branch);
    if (!written) return written;
  }
  return put(".git/HEAD", head);
}

result<void> WorkspaceGit::write_index(std::string_view bytes) const {
  auto made = make_directory(".git");
  if (!made) return made;
  auto info = workspace_.info(".git/index");
  if (!info) return info.error();
  if (*info && (*info)->kind == FileInfo::Kind::directory) {
    auto removed = workspace_.remove_all(".git/index");
    if (!removed) return removed;
  }
  auto file = workspace_.create(".git/index", 0666);
  if (!file) return file.error();
  auto written = file->write(bytes);
  if (!written) return written;
  return workspace_.place(std::move(*file), ".git/index");
}

std::optional<FileInfo> WorkspaceGit::index_info() const {
  auto info = workspace_.info(".git/index");
  return info ? *info : std::nullopt;
}

// ---- reading back ----------------------------------------------------------------------------

RepositoryRefs WorkspaceGit::read() const {
  RepositoryRefs refs;
  read_packed(refs);
  read_loose("refs", 0, refs);
  read_stashes(refs);
  auto head = workspace_.read_file(".git/HEAD", kMaxRefFile);
  if (!head) return refs;
  std::string_view text = trimmed(*head);
  if (text.starts_with("ref: ")) {
    text.remove_prefix(5);
    if (is_ref_name(text)) refs.branch = text;
  } else if (is_object_id(text)) {
    refs.detached = text;
  }
  return refs;
}

void WorkspaceGit::read_loose(const std::string& directory, int depth, RepositoryRefs& refs) const {
  if (depth > kMaxDepth) return;
  auto names = workspace_.list(".git/" + directory);
  if (!names) return;
  for (const std::string& name : *names) {
    if (refs.refs.size() >= kMaxRefs) return;
    std::string full = directory + "/" + name;
    auto info = workspace_.info(".git/" + full);
    if (!info || !*info) continue;
    if ((*info)->kind == FileInfo::Kind::directory) {
      read_loose(full, depth + 1, refs);
    } else if ((*info)->kind == FileInfo::Kind::file && is_ref_name(full)) {
      auto text = workspace_.read_file(".git/" + full, kMaxRefFile);
      if (text && is_object_id(trimmed(*text))) refs.refs[full] = trimmed(*text);
    }
  }
}

void WorkspaceGit::read_packed(RepositoryRefs& refs) const {
  auto text = workspace_.read_file(".git/packed-refs", kMaxPackedRefs);
  if (!text) return;
  for (std::size_t begin = 0; begin < text->size() && refs.refs.size() < kMaxRefs;) {
    std::size_t end = std::min(text->find('\n', begin), text->size());
    std::string_view line(text->data() + begin, end - begin);
    begin = end + 1;
    std::size_t space = line.find(' ');
    if (space == std::string_view::npos) continue;
    std::string_view oid = line.substr(0, space), name = line.substr(space + 1);
    if (is_object_id(oid) && is_ref_name(name)) refs.refs[std::string(name)] = oid;
  }
}

// The ref is the newest; the others are only in its log: "OLD NEW who when\twhat", a line each.
void WorkspaceGit::read_stashes(RepositoryRefs& refs) const {
  auto newest = refs.refs.extract("refs/stash");
  if (newest.empty()) return;
  auto add = [&](std::string_view oid) {
    if (is_object_id(oid) && refs.refs.size() < kMaxRefs)
      refs.refs["refs/stash/" + std::string(oid)] = oid;
  };
  add(newest.mapped());
  auto log = workspace_.read_file(".git/logs/refs/stash", kMaxPackedRefs);
  if (!log) return;
  for (std::size_t begin = 0; begin < log->size();) {
    std::size_t end = std::min(log->find('\n', begin), log->size());
    std::string_view line(log->data() + begin, end - begin);
    begin = end + 1;
    std::size_t space = line.find(' ');
    if (space == std::string_view::npos) continue;
    line.remove_prefix(space + 1);
    add(line.substr(0, line.find(' ')));
  }
}

result<void> WorkspaceGit::copy_objects(const os::Beneath& quarantine,
                                        std::uint64_t max_bytes) const {
  std::uint64_t left = max_bytes;
  auto copy = [&](const std::string& name) -> result<void> {
    FileInfo info;
    auto from = workspace_.open_file(".git/objects/" + name, &info);
    if (!from) return {};  // a link, or gone by now: as if it were not there
    if (info.size > left) return Failure(Errc::too_large, "the objects made in the sandbox");
    left -= info.size;
    auto made = quarantine.make_directories(std::string(parent_of(name)));
    if (!made) return made;
    auto to = quarantine.create(name);
    if (!to) return to.error();
    // Bounded by what it was said to be, not by what it has grown to since.
    std::array<char, 64 * 1024> buffer;
    std::uint64_t rest = info.size;
    while (rest > 0) {
      ssize_t count =
          ::read(from->get(), buffer.data(), std::min<std::uint64_t>(buffer.size(), rest));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return os::errno_failure(errno, name);
      if (count == 0) break;
      auto written = to->write({buffer.data(), static_cast<std::size_t>(count)});
      if (!written) return written;
      rest -= static_cast<std::uint64_t>(count);
    }
    return quarantine.place(std::move(*to), name);
  };
  auto directories = workspace_.list(".git/objects");
  if (!directories) return {};
  for (const std::string& directory : *directories) {
    bool pack = directory == "pack";
    if (!pack && (directory.size() != 2 || !is_hex(directory))) continue;
    auto names = workspace_.list(".git/objects/" + directory);
    if (!names) continue;
    for (const std::string& name : *names) {
      bool wanted = pack ? name.starts_with("pack-") && name.ends_with(".pack") &&
                               is_hex(std::string_view(name).substr(5, name.size() - 10))
                         : (name.size() == 38 || name.size() == 62) && is_hex(name);
      if (!wanted) continue;
      auto copied = copy(directory + "/" + name);
      if (!copied) return copied;
    }
  }
  return {};
}

}  // namespace protocol::sync
