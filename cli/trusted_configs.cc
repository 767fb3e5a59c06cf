#include "cli/trusted_configs.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>

#include "cli/error.h"
#include "cli/storage.h"
#include "protocol/os/flock.h"
#include "protocol/os/paths.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace fs = std::filesystem;
namespace json = boost::json;
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr std::size_t kMostBytes = 16 * 1024 * 1024;

UserError unusable(const fs::path& file, const std::string& what) {
  return UserError("config", file.string() + " cannot be used: " + what,
                   "Mend that file, or move it away; nothing is trusted then.");
}

json::value path_value(const fs::path& path) {
  const std::string& bytes = path.native();
  if (wire::is_utf8(bytes)) {
    return json::value(bytes);
  }
  json::object object;
  object["base64"] = wire::base64_encode(bytes);
  return object;
}

// Its text; empty when it is something else.
std::string text_of(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  if (value != nullptr && value->is_object()) {
    const json::value* encoded = value->get_object().if_contains("base64");
    std::string bytes;
    if (encoded != nullptr && encoded->is_string() &&
        wire::base64_decode(std::string(encoded->get_string()), bytes)) {
      return bytes;
    }
  }
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

}  // namespace

std::vector<TrustedConfig> TrustedConfigs::all() const {
  struct stat status {};
  if (::lstat(file_.c_str(), &status) != 0) {
    return {};
  }
  if (status.st_uid != ::geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    throw unusable(file_, "others than this user can write to it");
  }
  auto text = os::read_file(file_, kMostBytes);
  if (!text) {
    throw unusable(file_, text.error().what);
  }
  boost::system::error_code error;
  json::value root = json::parse(*text, error);
  const json::value* list =
      !error && root.is_object() ? root.get_object().if_contains("trusted") : nullptr;
  if (list == nullptr || !list->is_array() || text_of(root.get_object(), "format") != "1") {
    throw unusable(file_, "it is not what this version writes");
  }
  std::vector<TrustedConfig> trusted;
  for (const auto& value : list->get_array()) {
    if (value.is_object()) {
      const json::object& one = value.get_object();
      trusted.push_back({text_of(one, "file"), text_of(one, "sha256"), text_of(one, "since")});
    }
  }
  return trusted;
}

bool TrustedConfigs::trusts(const Config& config) const {
  if (config.file.empty()) {
    return false;
  }
  auto trusted = all();
  return std::any_of(trusted.begin(), trusted.end(), [&config](const TrustedConfig& one) {
    return one.file == config.file && one.sha256 == config.sha256;
  });
}

template <class Change>
void TrustedConfigs::change(const Change& change) {
  if (auto made = os::make_private_directory(file_.parent_path()); !made) {
    throw unusable(file_, made.error().what);
  }
  auto lock = os::FileLock::lock(file_.string() + ".lock", os::FileLock::Kind::exclusive);
  if (!lock) {
    throw unusable(file_, lock.error().what);
  }
  std::vector<TrustedConfig> trusted = all();
  change(trusted);
  json::array list;
  for (const auto& one : trusted) {
    json::object object;
    object["file"] = path_value(one.file);
    object["sha256"] = one.sha256;
    object["since"] = one.since;
    list.push_back(std::move(object));
  }
  json::object root;
  root["format"] = "1";
  root["trusted"] = std::move(list);
  if (auto written = os::write_file(file_, json::serialize(root) + "\n"); !written) {
    throw unusable(file_, written.error().what);
  }
}

void TrustedConfigs::add(const Config& config) {
  change([&config](std::vector<TrustedConfig>& trusted) {
    std::erase_if(trusted, [&config](const auto& one) { return one.file == config.file; });
    trusted.push_back({config.file, config.sha256, timestamp()});
  });
}

bool TrustedConfigs::remove(const fs::path& file) {
  std::size_t removed = 0;
  change([&](std::vector<TrustedConfig>& trusted) {
    removed = std::erase_if(trusted, [&file](const auto& one) { return one.file == file; });
  });
  return removed != 0;
}

}  // namespace cli
