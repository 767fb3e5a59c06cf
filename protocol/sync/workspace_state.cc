#include "protocol/sync/workspace_state.h"

#include <optional>
#include <string_view>
#include <utility>
#include <variant>

#include "protocol/os/beneath.h"
#include "protocol/os/set_aside.h"

namespace protocol::sync {

namespace {

constexpr std::size_t kMaxState = 256 * 1024 * 1024;

// The next line, without its end; false when there is none.
bool take_line(std::string_view& text, std::string_view& line) {
  if (text.empty()) return false;
  std::size_t end = text.find('\n');
  line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return true;
}

std::string_view take_word(std::string_view& line) {
  std::size_t end = line.find(' ');
  std::string_view word = line.substr(0, end);
  line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
  return word;
}

// std::nullopt: damaged.
std::optional<WorkspaceState> parse(std::string_view rest) {
  WorkspaceState state;
  bool complete = false;
  std::string_view line;
  while (take_line(rest, line)) {
    std::string_view key = take_word(line);
    if (key == "origin") {
      state.origin = line;
    } else if (key == "generation") {
      state.generation = line;
    } else if (key == "tree") {
      state.tree = line;
    } else if (key == "place") {
      state.place = line;
    } else if (key == "applying") {
      state.applying = line;
    } else if (key == "branch") {
      state.seen.branch = line;
    } else if (key == "detached") {
      state.seen.detached = line;
    } else if (key == "ref") {
      std::string_view oid = take_word(line);
      state.seen.refs[std::string(line)] = oid;
    } else if (key == "index") {
      state.index = line;
    } else if (key == "merged") {
      std::string_view origin = take_word(line);
      state.merged[std::string(origin)] = line;
    } else if (key == "sync") {
      auto message = wire::decode(line);
      if (!message || !std::holds_alternative<wire::SyncStart>(*message)) return std::nullopt;
      state.sync = std::get<wire::SyncStart>(*std::move(message));
    } else if (key == "end") {
      complete = true;
    }
  }
  if (!complete) return std::nullopt;
  return state;
}

}  // namespace

LoadedState load_state(const std::filesystem::path& file) {
  LoadedState loaded;
  auto directory = os::Beneath::open(file.parent_path());
  if (!directory) return loaded;
  auto text = directory->read_file(file.filename().native(), kMaxState);
  if (!text && text.error().code != wire::Errc::too_large) return loaded;  // it may be whole
  std::optional<WorkspaceState> state;
  if (text) state = parse(*text);
  if (state) {
    loaded.state = std::move(*state);
  } else if (auto aside = os::set_aside(file)) {
    loaded.damaged = std::move(*aside);
  }
  return loaded;
}

result<void> save_state(const std::filesystem::path& file, const WorkspaceState& state) {
  std::string text;
  auto add = [&](std::string_view key, std::string_view value) {
    if (!value.empty()) text.append(key).append(" ").append(value).append("\n");
  };
  add("origin", state.origin);
  add("generation", state.generation);
  add("tree", state.tree);
  add("place", state.place);
  add("applying", state.applying);
  add("branch", state.seen.branch);
  add("detached", state.seen.detached);
  for (const auto& [name, oid] : state.seen.refs) add("ref", oid + " " + name);
  add("index", state.index);
  for (const auto& [origin, oid] : state.merged) add("merged", origin + " " + oid);
  add("sync", wire::encode(state.sync));  // one line: JSON escapes line ends
  text += "end\n";

  auto directory = os::Beneath::open(file.parent_path());
  if (!directory) return directory.error();
  std::string name = file.filename().native();
  auto temporary = directory->create(name);
  if (!temporary) return temporary.error();
  auto written = temporary->write(text);
  if (!written) return written;
  auto synced = temporary->sync();
  if (!synced) return synced;
  temporary->close();
  auto placed = directory->place(std::move(*temporary), name);
  if (!placed) return placed;
  return directory->sync_directory("");
}

}  // namespace protocol::sync
