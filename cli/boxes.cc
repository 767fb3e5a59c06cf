#include "cli/boxes.h"

#include <boost/json.hpp>
#include <charconv>

#include "cli/error.h"
#include "protocol/os/flock.h"
#include "protocol/os/paths.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
using protocol::wire::Errc;

namespace {

constexpr std::size_t kMostBytes = 4 * 1024 * 1024;

UserError damaged(const Paths& paths, const std::string& what) {
  return UserError("box", paths.boxes().string() + " cannot be used: " + what,
                   "Mend that file, or move it away and begin anew.");
}

// {"version":1,"boxes":{NAME:{"address":"HOST:PORT","hostKey":"ssh-ed25519 …"}}}
json::object read_boxes(const Paths& paths) {
  auto text = protocol::os::read_file(paths.boxes(), kMostBytes);
  if (!text) {
    if (text.error().code == Errc::not_found) {
      return {{"version", 1}, {"boxes", json::object()}};
    }
    throw damaged(paths, text.error().what);
  }
  boost::system::error_code error;
  json::value root = json::parse(*text, error);
  if (error || !root.is_object()) {
    throw damaged(paths, error ? "not JSON: " + error.message() : "not a JSON object");
  }
  const json::value* version = root.get_object().if_contains("version");
  if (version == nullptr || !version->is_int64() || version->get_int64() != 1) {
    throw damaged(paths, "its version is not 1");
  }
  const json::value* boxes = root.get_object().if_contains("boxes");
  if (boxes == nullptr || !boxes->is_object()) {
    throw damaged(paths, "`boxes` is not an object");
  }
  return root.get_object();
}

std::string member(const Paths& paths, const json::object& box, const std::string& name,
                   const char* key) {
  const json::value* value = box.if_contains(key);
  if (value == nullptr) {
    return {};
  }
  if (!value->is_string()) {
    throw damaged(paths, "`boxes." + name + "." + key + "` is not a text");
  }
  return std::string(value->get_string());
}

}  // namespace

std::string Address::text() const {
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" +
         std::to_string(port);
}

std::optional<Address> parse_address(std::string_view text) {
  auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) {
    return std::nullopt;
  }
  std::string_view host = text.substr(0, colon);
  std::string_view port = text.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return std::nullopt;
  }
  if (host.front() == '-' || host.find_first_of(" \t\n\r/@\\\"'") != std::string_view::npos) {
    return std::nullopt;
  }
  Address address;
  address.host = host;
  auto parsed = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (parsed.ec != std::errc() || parsed.ptr != port.data() + port.size() || address.port == 0) {
    return std::nullopt;
  }
  return address;
}

Box find_box(const Paths& paths, const std::string& name) {
  json::object root = read_boxes(paths);
  const json::object& boxes = root["boxes"].get_object();
  Box box;
  box.name = name;
  std::string address = name;
  if (const json::value* entry = boxes.if_contains(name)) {
    if (!entry->is_object()) {
      throw damaged(paths, "`boxes." + name + "` is not an object");
    }
    box.host_key = member(paths, entry->get_object(), name, "hostKey");
    address = member(paths, entry->get_object(), name, "address");
    if (!parse_address(address)) {
      throw damaged(paths, "`boxes." + name + ".address` is not HOST:PORT");
    }
  }
  auto parsed = parse_address(address);
  if (!parsed) {
    throw UserError("box", "there is no box `" + protocol::wire::printable(name, 80) + "`",
                    "Name one of " + paths.boxes().string() + ", or give HOST:PORT.", kMisuse);
  }
  box.address = *parsed;
  return box;
}

std::string pin_host_key(const Paths& paths, const Box& box, const std::string& host_key) {
  if (auto made = protocol::os::make_private_directory(paths.config); !made) {
    throw damaged(paths, made.error().what);
  }
  auto lock = protocol::os::FileLock::lock(paths.boxes().string() + ".lock",
                                           protocol::os::FileLock::Kind::exclusive);
  if (!lock) {
    throw damaged(paths, lock.error().what);
  }
  json::object root = read_boxes(paths);
  json::object& boxes = root["boxes"].get_object();
  json::object& entry =
      boxes.contains(box.name) ? boxes[box.name].get_object() : boxes[box.name].emplace_object();
  std::string known = member(paths, entry, box.name, "hostKey");
  if (!known.empty()) {
    return known;
  }
  entry["address"] = box.address.text();
  entry["hostKey"] = host_key;
  if (auto written = protocol::os::write_file(paths.boxes(), json::serialize(root) + "\n");
      !written) {
    throw damaged(paths, written.error().what);
  }
  return host_key;
}

}  // namespace cli
