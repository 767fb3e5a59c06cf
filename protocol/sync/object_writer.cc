#include "protocol/sync/object_writer.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>

#include "protocol/sync/object_id.h"
#include "protocol/sync/workspace_git.h"

namespace protocol::sync {

using wire::Errc;
using wire::Failure;

namespace {

constexpr std::size_t kWholeFile = 8 << 20;  // up to this, a file is read before it is sent
constexpr std::size_t kChunk = 256 << 10;

std::string committer() { return "committer " + std::string(kCommitIdentity) + "\n"; }

// As fast-import reads a path. Without quotes it would end at a line break.
std::string quoted(const std::string& path) {
  std::string out = "\"";
  for (char c : path) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out + '"';
}

std::string octal(std::uint32_t mode) {
  char text[16];
  std::snprintf(text, sizeof text, "%06o", mode);
  return text;
}

}  // namespace

struct ObjectWriter::State {
  const ObjectStore& store;
  std::optional<os::Process> process;
  os::Fd to, from, words;
  std::string out;  // not sent yet
  std::string in;
  std::string scratch;
  // Commits of this process: until it ends, it knows them by their marks alone.
  std::map<std::string, std::string> commits;
  std::optional<Failure> failed;

  explicit State(const ObjectStore& s) : store(s) {}
  ~State() {
    if (!process) return;
    to.reset();
    (void)process->kill(SIGKILL);
    process->wait_blocking();
  }

  result<void> start() {
    if (failed) return *failed;
    if (process) return {};
    auto input = os::make_pipe();
    if (!input) return input.error();
    auto answers = os::make_pipe();
    if (!answers) return answers.error();
    auto errors = os::make_pipe();
    if (!errors) return errors.error();
    os::Spawn spawn =
        store.git().spawn({"fast-import", "--quiet", "--done", "--force", "--date-format=raw"});
    spawn.stdin_fd = input->read.get();
    spawn.stdout_fd = answers->write.get();
    spawn.stderr_fd = errors->write.get();
    auto started = os::Process::start(spawn);
    if (!started) return started.error();
    process.emplace(std::move(*started));
    to = std::move(input->write);
    from = std::move(answers->read);
    words = std::move(errors->read);
    scratch.resize(kChunk);
    return {};
  }

  // Sends what has gathered, or `bytes` as well once they are many.
  result<void> send(std::string_view bytes, bool now = false) {
    out.append(bytes);
    if (out.size() < kChunk && !now) return {};
    NoSigpipe guard;
    auto written = os::write_all(to.get(), out);
    out.clear();
    if (!written) return broken();
    return {};
  }

  // It has died: what it said is the reason.
  Failure broken() {
    to.reset();
    from.reset();
    std::string said;
    std::array<char, 4096> chunk;
    for (ssize_t count; (count = ::read(words.get(), chunk.data(), chunk.size())) > 0;)
      if (said.size() < 64 * 1024) said.append(chunk.data(), static_cast<std::size_t>(count));
    os::ExitStatus exit = process->wait_blocking();
    std::error_code error;
    std::filesystem::remove(
        store.directory() / ("fast_import_crash_" + std::to_string(process->pid())), error);
    process.reset();
    failed = git_failure(exit, said, "fast-import");
    return *failed;
  }

  result<std::string> answer() {
    auto sent = send({}, true);
    if (!sent) return sent.error();
    for (;;) {
      if (std::size_t end = in.find('\n'); end != std::string::npos) {
        std::string line = in.substr(0, end);
        in.erase(0, end + 1);
        return line;
      }
      std::array<char, 4096> chunk;
      ssize_t count = ::read(from.get(), chunk.data(), chunk.size());
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return broken();
      in.append(chunk.data(), static_cast<std::size_t>(count));
    }
  }

  result<void> data(std::string_view bytes) {
    auto sent = send("data " + std::to_string(bytes.size()) + "\n");
    if (sent) sent = send(bytes);
    if (sent) sent = send("\n");
    return sent;
  }

  // `M 040000 OID ""` makes a tree the root.
  result<void> root(const std::string& tree) {
    if (tree.empty() || tree == store.empty_tree()) return send("deleteall\n");
    return send("M 040000 " + tree + " \"\"\n");
  }
};

ObjectWriter::ObjectWriter(const ObjectStore& store) : state_(std::make_unique<State>(store)) {}

ObjectWriter::~ObjectWriter() = default;

bool ObjectWriter::used() const { return state_->process.has_value(); }
bool ObjectWriter::failed() const { return state_->failed.has_value(); }
void ObjectWriter::restart() { state_ = std::make_unique<State>(state_->store); }

result<std::string> ObjectWriter::blob(std::string_view bytes) {
  auto started = state_->start();
  if (started) started = state_->send("blob\n");
  if (started) started = state_->data(bytes);
  if (!started) return started.error();
  return blob_id(state_->store.object_format(), bytes);
}

result<ObjectWriter::FileBlob> ObjectWriter::blob(const os::Fd& file) {
  State& state = *state_;
  struct stat status;
  if (::fstat(file.get(), &status) != 0) return os::errno_failure(errno, "fstat");
  FileBlob blob;
  blob.info = os::file_info(status);
  auto started = state.start();
  if (!started) return started.error();
  if (::lseek(file.get(), 0, SEEK_SET) != 0) return os::errno_failure(errno, "lseek");
  // 0 at the end, and when the system fails.
  auto read_some = [&](char* buffer, std::size_t want) -> std::size_t {
    for (;;) {
      ssize_t count = ::read(file.get(), buffer, want);
      if (count >= 0) return static_cast<std::size_t>(count);
      if (errno == EINTR) continue;
      blob.readable = false;
      return 0;
    }
  };
  std::uint64_t size = blob.info.size, have = 0;
  if (size <= kWholeFile) {
    std::string bytes;
    for (bytes.resize(size + 1);; bytes.resize(bytes.size() + kChunk)) {
      std::size_t count = 1;
      while (have < bytes.size() && (count = read_some(bytes.data() + have, bytes.size() - have)))
        have += count;
      if (have < bytes.size() || have > 2 * kWholeFile) break;
    }
    if (!blob.readable) return blob;
    bytes.resize(have);
    auto oid = this->blob(std::string_view(bytes));
    if (!oid) return oid.error();
    blob.oid = std::move(*oid);
  } else {
    // Its length goes first. If the file is shorter by the time we get there, zeros fill it up: it
    // is not what anybody has written, and the caller is told that it moved.
    ObjectHash hash(state.store.object_format(), "blob", size);
    auto sent = state.send("blob\ndata " + std::to_string(size) + "\n");
    while (sent && have < size) {
      std::size_t want = static_cast<std::size_t>(std::min<std::uint64_t>(kChunk, size - have));
      std::size_t got = blob.steady ? read_some(state.scratch.data(), want) : 0;
      if (got == 0) {
        blob.steady = false;
        std::fill_n(state.scratch.begin(), got = want, '\0');
      }
      std::string_view piece(state.scratch.data(), got);
      hash.update(piece);
      sent = state.send(piece);
      have += got;
    }
    if (sent) sent = state.send("\n");
    if (!sent) return sent.error();
    blob.oid = hash.finish();
  }
  if (::fstat(file.get(), &status) != 0) return os::errno_failure(errno, "fstat");
  os::FileInfo after = os::file_info(status);
  blob.steady = blob.steady && have == size && after.same_content(blob.info) &&
                after.changed_ns == blob.info.changed_ns;
  return blob;
}

result<std::string> ObjectWriter::tree(const std::string& base,
                                       const std::vector<TreeChange>& changes) {
  State& state = *state_;
  auto sent = state.start();
  // The commit around it is of no use; fast-import makes no tree without one.
  if (sent)
    sent = state.send("reset refs/scratch/tree\n\ncommit refs/scratch/tree\n" + committer());
  if (sent) sent = state.data({});
  if (sent) sent = state.root(base);
  for (const TreeChange& change : changes)
    if (sent && change.mode == 0) sent = state.send("D " + quoted(change.path) + "\n");
  for (const TreeChange& change : changes) {
    if (!sent || change.mode == 0) continue;
    if (!is_object_id(change.oid))
      return Failure(Errc::bad_input, "`" + change.oid + "` is not an object id");
    sent =
        state.send("M " + octal(change.mode) + " " + change.oid + " " + quoted(change.path) + "\n");
  }
  if (sent) sent = state.send("ls \"\"\n\n");
  if (!sent) return sent.error();
  auto line = state.answer();  // "040000 tree OID" TAB, or "missing "
  if (!line) return line.error();
  if (line->starts_with("missing")) return state.store.empty_tree();
  std::string oid = line->substr(0, line->find('\t'));
  oid.erase(0, oid.rfind(' ') + 1);
  if (!is_object_id(oid)) return Failure(Errc::io, "git fast-import answered `" + *line + "`");
  return oid;
}

result<std::string> ObjectWriter::commit(const std::string& tree,
                                         const std::vector<std::string>& parents,
                                         const std::string& message) {
  State& state = *state_;
  auto sent = state.start();
  std::string mark = ":" + std::to_string(state.commits.size() + 1);
  if (sent)
    sent = state.send("reset refs/scratch/commit\n\ncommit refs/scratch/commit\nmark " + mark +
                      "\n" + committer());
  if (sent) sent = state.data(message);
  for (std::size_t i = 0; sent && i < parents.size(); ++i) {
    auto own = state.commits.find(parents[i]);
    const std::string& parent = own == state.commits.end() ? parents[i] : own->second;
    sent = state.send((i == 0 ? "from " : "merge ") + parent + "\n");
  }
  if (sent) sent = state.root(tree);
  if (sent) sent = state.send("\nget-mark " + mark + "\n");
  if (!sent) return sent.error();
  auto oid = state.answer();
  if (!oid) return oid.error();
  if (!is_object_id(*oid)) return Failure(Errc::io, "git fast-import answered `" + *oid + "`");
  state.commits.emplace(*oid, mark);
  return oid;
}

result<void> ObjectWriter::finish() {
  State& state = *state_;
  if (state.failed) return *state.failed;
  if (!state.process) return {};
  auto sent = state.send("done\n", true);
  if (!sent) return sent;
  state.to.reset();
  std::array<char, 4096> chunk;
  while (::read(state.from.get(), chunk.data(), chunk.size()) > 0) {
  }
  std::string said;
  for (ssize_t count; (count = ::read(state.words.get(), chunk.data(), chunk.size())) > 0;)
    said.append(chunk.data(), static_cast<std::size_t>(count));
  os::ExitStatus exit = state.process->wait_blocking();
  state.process.reset();
  if (!exit.ok()) {
    state.failed = git_failure(exit, said, "fast-import");
    return *state.failed;
  }
  return {};
}

}  // namespace protocol::sync
