#include "cli/storage.h"

#include <algorithm>
#include <boost/json.hpp>

#include "cli/digest.h"
#include "cli/error.h"
#include "cli/json_bytes.h"
#include "protocol/os/clock.h"
#include "protocol/os/paths.h"
#include "protocol/os/set_aside.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace fs = std::filesystem;
namespace json = boost::json;
namespace os = protocol::os;
using protocol::wire::Errc;
using protocol::wire::Failure;
using protocol::wire::result;

namespace {

constexpr std::size_t kMostBytes = 64 * 1024 * 1024;

const char* text(EntryState state) {
  switch (state) {
    case EntryState::starting:
      return "starting";
    case EntryState::ready:
      return "ready";
    case EntryState::failed:
      return "failed";
  }
  return "failed";
}

struct Damaged {
  std::string what;
};

std::string read_bytes(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr) {
    return {};
  }
  if (auto bytes = bytes_of(*value)) {
    return *bytes;
  }
  throw Damaged{std::string("`") + name + "` is not a text"};
}

std::uint64_t read_number(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr) {
    return 0;
  }
  boost::system::error_code error;
  auto number = value->is_number() ? value->to_number<std::uint64_t>(error) : 0;
  if (!value->is_number() || error) {
    throw Damaged{std::string("`") + name + "` is not a number"};
  }
  return number;
}

json::object encode(const Entry& entry) {
  json::object out;
  out["id"] = entry.id;
  out["box"] = bytes_value(entry.key.box);
  if (!entry.key.machine.empty()) {
    out["machine"] = bytes_value(entry.key.machine);
  }
  out["project"] = bytes_value(entry.key.project);
  out["device"] = entry.key.device;
  out["inode"] = entry.key.inode;
  out["branch"] = bytes_value(entry.key.branch);
  out["config"] = bytes_value(entry.key.config);
  out["state"] = text(entry.state);
  out["agent"] = bytes_value(entry.agent);
  if (!entry.failure.empty()) {
    out["failure"] = bytes_value(entry.failure);
  }
  out["configDigest"] = entry.config_digest;
  out["createdAt"] = entry.created_at;
  out["usedAt"] = entry.used_at;
  if (!entry.ending.empty()) {
    json::array ending;
    for (const auto& id : entry.ending) {
      ending.emplace_back(id);
    }
    out["ending"] = std::move(ending);
  }
  return out;
}

Entry decode(const json::object& object) {
  Entry entry;
  entry.id = read_bytes(object, "id");
  entry.key.box = read_bytes(object, "box");
  entry.key.machine = read_bytes(object, "machine");
  entry.key.project = read_bytes(object, "project");
  entry.key.device = read_number(object, "device");
  entry.key.inode = read_number(object, "inode");
  entry.key.branch = read_bytes(object, "branch");
  entry.key.config = read_bytes(object, "config");
  entry.agent = read_bytes(object, "agent");
  entry.failure = read_bytes(object, "failure");
  entry.config_digest = read_bytes(object, "configDigest");
  entry.created_at = read_bytes(object, "createdAt");
  entry.used_at = read_bytes(object, "usedAt");
  if (entry.id.empty() || entry.key.box.empty()) {
    throw Damaged{"an entry has no `id` or `box`"};
  }
  std::string state = read_bytes(object, "state");
  if (state == "ready") {
    entry.state = EntryState::ready;
  } else if (state == "failed") {
    entry.state = EntryState::failed;
  } else if (state == "starting") {
    entry.state = EntryState::starting;
  } else {
    throw Damaged{"there is no `state` " + protocol::wire::printable(state, 40)};
  }
  if (const json::value* ending = object.if_contains("ending")) {
    if (!ending->is_array()) {
      throw Damaged{"`ending` is not a list"};
    }
    for (const auto& id : ending->get_array()) {
      if (!id.is_string()) {
        throw Damaged{"`ending` is not a list of texts"};
      }
      entry.ending.emplace_back(id.get_string());
    }
  }
  return entry;
}

UserError unusable(const fs::path& file, const Failure& failure) {
  std::string next;
  switch (failure.code) {
    case Errc::no_space:
      next = "Free some space on that disk.";
      break;
    case Errc::denied:
    case Errc::not_found:
      next = "Make that directory writable, or set SANDBOX_STATE_DIR to one that is.";
      break;
    default:
      next = "Move it away to begin a fresh one, or set SANDBOX_STATE_DIR to another directory.";
  }
  bool named = failure.what.rfind(file.string(), 0) == 0;
  return UserError("storage",
                   "cannot use the storage " + (named ? "" : file.string() + ": ") + failure.what,
                   next);
}

std::string number_text(std::uint64_t number) { return std::to_string(number); }

}  // namespace

bool Key::same_project(const Key& other) const {
  return box == other.box && machine == other.machine && project == other.project &&
         device == other.device && inode == other.inode;
}

std::string Key::file_name() const {
  std::string joined;
  for (const std::string& part :
       {box, machine, project, number_text(device), number_text(inode), branch, config}) {
    joined += part + '\0';
  }
  return digest(joined);
}

std::string Key::origin_name() const {
  return digest(project + '\0' + number_text(device) + '\0' + number_text(inode));
}

std::string encode_storage(const std::vector<Entry>& entries) {
  // One entry per line: people do look.
  std::string out = "{\"version\":" + std::to_string(kStorageVersion) + ",\"sandboxes\":[";
  for (std::size_t i = 0; i < entries.size(); ++i) {
    out += (i == 0 ? "\n" : ",\n") + json::serialize(encode(entries[i]));
  }
  return out + "\n]}\n";
}

result<std::vector<Entry>> decode_storage(std::string_view text) {
  boost::system::error_code error;
  json::value root = json::parse(json::string_view(text.data(), text.size()), error);
  if (error) {
    return Failure(Errc::bad_input, "not JSON: " + error.message());
  }
  try {
    if (!root.is_object()) {
      throw Damaged{"not a JSON object"};
    }
    const json::object& object = root.get_object();
    std::uint64_t version = read_number(object, "version");
    if (version > static_cast<std::uint64_t>(kStorageVersion)) {
      return Failure(Errc::unsupported, "version " + std::to_string(version));
    }
    const json::value* list = object.if_contains("sandboxes");
    if (version == 0 || list == nullptr || !list->is_array()) {
      throw Damaged{"`version` or `sandboxes` is missing"};
    }
    std::vector<Entry> entries;
    for (const auto& value : list->get_array()) {
      if (!value.is_object()) {
        throw Damaged{"an entry is not an object"};
      }
      entries.push_back(decode(value.get_object()));
    }
    return entries;
  } catch (const Damaged& damaged) {
    return Failure(Errc::bad_input, damaged.what);
  }
}

Entry* LockedStorage::find(const Key& key) {
  auto found = std::find_if(entries_.begin(), entries_.end(),
                            [&key](const Entry& entry) { return entry.key == key; });
  return found == entries_.end() ? nullptr : &*found;
}

Entry* LockedStorage::find_id(const std::string& id) {
  auto found = std::find_if(entries_.begin(), entries_.end(),
                            [&id](const Entry& entry) { return entry.id == id; });
  return found == entries_.end() ? nullptr : &*found;
}

void LockedStorage::erase(const std::string& id) {
  entries_.erase(std::remove_if(entries_.begin(), entries_.end(),
                                [&id](const Entry& entry) { return entry.id == id; }),
                 entries_.end());
}

void LockedStorage::note_use(Entry& entry) {
  constexpr std::size_t kToTheMinute = 16;  // 2026-01-31T23:59
  std::string now = timestamp();
  if (entry.used_at.compare(0, kToTheMinute, now, 0, kToTheMinute) == 0) {
    return;
  }
  entry.used_at = now;
  try {
    save();
  } catch (const UserError&) {
    return;  // what the user asked for goes on all the same
  }
}

void LockedStorage::save() {
  if (auto saved = os::write_file(file_, encode_storage(entries_)); !saved) {
    throw unusable(file_, saved.error());
  }
}

os::awaitable<std::unique_ptr<LockedStorage>> Storage::lock(os::executor executor) const {
  Storage self = *this;
  self.make_directory();
  auto lock =
      co_await os::FileLock::lock_async(executor, self.lock_file(), os::FileLock::Kind::exclusive);
  if (!lock) {
    throw unusable(self.file_, lock.error());
  }
  co_return self.read(std::move(*lock));
}

std::unique_ptr<LockedStorage> Storage::try_lock() const {
  make_directory();
  auto lock = os::FileLock::try_lock(lock_file(), os::FileLock::Kind::exclusive);
  if (!lock && lock.error().code == Errc::busy) {
    return nullptr;
  }
  if (!lock) {
    throw unusable(file_, lock.error());
  }
  return read(std::move(*lock));
}

void Storage::make_directory() const {
  if (auto made = os::make_private_directory(file_.parent_path()); !made) {
    throw unusable(file_, made.error());
  }
}

std::unique_ptr<LockedStorage> Storage::read(os::FileLock lock) const {
  std::unique_ptr<LockedStorage> storage(new LockedStorage(std::move(lock), file_));
  auto text = os::read_file(file_, kMostBytes);
  if (!text && text.error().code == Errc::not_found) {
    return storage;
  }
  if (!text) {
    throw unusable(file_, text.error());
  }
  auto entries = decode_storage(*text);
  if (entries) {
    storage->entries_ = std::move(*entries);
    return storage;
  }
  if (entries.error().code == Errc::unsupported) {
    throw UserError("storage",
                    "the storage " + file_.string() + " was written by a newer sandbox (" +
                        entries.error().what + ")",
                    "Update this one, or set SANDBOX_STATE_DIR to another directory.");
  }
  auto aside = os::set_aside(file_);
  if (!aside) {
    throw unusable(file_, aside.error());
  }
  storage->damaged_ = *aside;
  try {
    storage->save();
  } catch (const UserError& error) {
    throw UserError(
        error.origin,
        std::string(error.what()) + "; it was damaged, and is kept as " + aside->string(),
        error.next, error.status);
  }
  return storage;
}

std::string timestamp() { return os::format_utc(os::SystemClock().date()); }

}  // namespace cli
