#include "cli/boxes.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cctype>
#include <charconv>
#include <chrono>

#include "cli/error.h"
#include "protocol/os/flock.h"
#include "protocol/os/paths.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace json = boost::json;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

constexpr int kVersion = 1;
constexpr std::size_t kMostBytes = 4 * 1024 * 1024;
constexpr std::size_t kMostNameBytes = 64;
constexpr std::size_t kMostNamed = 20;  // in an error
constexpr std::chrono::seconds kLockTime{20};

UserError damaged(const Paths& paths, const std::string& what) {
  return UserError("box", paths.boxes().string() + " cannot be used: " + what,
                   "Mend that file, or move it away and begin anew. It was left as it is.");
}

bool is_host(std::string_view host) {
  return !host.empty() && host.front() != '-' &&
         host.find_first_of(" \t\n\r/@\\\"'") == std::string_view::npos;
}

Failure wrong(const std::string& name, const std::string& what) {
  return Failure(Errc::bad_input, "`boxes." + wire::printable(name, 80) + what);
}

// Takes a text member out of the object.
wire::result<std::string> take_text(json::object& object, const std::string& box,
                                    const char* member) {
  json::value* value = object.if_contains(member);
  if (value == nullptr) {
    return std::string();
  }
  if (!value->is_string()) {
    return wrong(box, "." + std::string(member) + "` is not a text");
  }
  std::string text(value->get_string());
  object.erase(member);
  return text;
}

wire::result<Box> decode_box(const std::string& name, const json::value& value) {
  if (name.empty() || name == kLocalBox) {
    return wrong(name, name.empty() ? "` has no name" : "`: that name is the built-in box's");
  }
  if (!value.is_object()) {
    return wrong(name, "` is not an object");
  }
  Box box;
  box.name = name;
  box.more = value.get_object();
  auto address = take_text(box.more, name, "address");
  auto host_key = take_text(box.more, name, "hostKey");
  auto via_ssh = take_text(box.more, name, "viaSsh");
  auto agent = take_text(box.more, name, "agent");
  auto state = take_text(box.more, name, "state");
  for (const auto* read : {&address, &host_key, &via_ssh, &agent, &state}) {
    if (!*read) {
      return read->error();
    }
  }
  box.host_key = *host_key;
  box.via_ssh = *via_ssh;
  box.agent = *agent;
  box.state = *state;
  if (!via_ssh->empty()) {
    if (!is_host(*via_ssh)) {
      return wrong(name, ".viaSsh` is no host");
    }
    return box;
  }
  auto parsed = parse_address(*address);
  if (!parsed) {
    return wrong(name, ".address` is not HOST:PORT");
  }
  box.address = *parsed;
  return box;
}

std::vector<Box> read_file(const Paths& paths) {
  auto text = protocol::os::read_file(paths.boxes(), kMostBytes);
  if (!text) {
    if (text.error().code == Errc::not_found) {
      return {};
    }
    throw damaged(paths, text.error().what);
  }
  auto boxes = decode_boxes(*text);
  if (!boxes && boxes.error().code == Errc::unsupported) {
    throw UserError(
        "box",
        paths.boxes().string() + " was written by a newer sandbox (" + boxes.error().what + ")",
        "Update this one. The file was left as it is.");
  }
  if (!boxes) {
    throw damaged(paths, boxes.error().what);
  }
  return std::move(*boxes);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The run of digits at `at`, without leading zeros; moves behind it.
std::string_view take_number(std::string_view text, std::size_t& at) {
  std::size_t begin = at;
  while (at < text.size() && is_digit(text[at])) {
    ++at;
  }
  while (begin + 1 < at && text[begin] == '0') {
    ++begin;
  }
  return text.substr(begin, at - begin);
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
  if (!is_host(host)) {
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

std::optional<Address> parse_host(std::string_view text) {
  bool bracketed = !text.empty() && text.front() == '[' && text.back() == ']';
  if (bracketed || text.find(':') == std::string_view::npos) {
    return parse_address(std::string(text) + ":" + std::to_string(kDefaultPort));
  }
  return parse_address(text);
}

std::string Box::place() const { return via_ssh.empty() ? address.text() : "ssh " + via_ssh; }

void check_box_name(const std::string& name) {
  auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == '-';
  };
  if (name == kLocalBox) {
    throw UserError("arguments",
                    "the name `local` is the built-in box's: the agent on this machine",
                    "Choose another name.", kMisuse);
  }
  if (name.empty() || name.size() > kMostNameBytes ||
      !std::all_of(name.begin(), name.end(), plain) ||
      std::isalnum(static_cast<unsigned char>(name.front())) == 0) {
    throw UserError(
        "arguments", "`" + wire::printable(name, 80) + "` cannot be the name of a box",
        "A name has letters, digits and . _ - , begins with a letter or digit and has at "
        "most 64 characters.",
        kMisuse);
  }
}

bool natural_less(std::string_view a, std::string_view b) {
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      std::string_view x = take_number(a, i);
      std::string_view y = take_number(b, j);
      if (x != y) {
        return x.size() != y.size() ? x.size() < y.size() : x < y;
      }
      continue;
    }
    if (a[i] != b[j]) {
      return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
    }
    ++i;
    ++j;
  }
  if (i < a.size() || j < b.size()) {
    return i == a.size();
  }
  return a < b;  // "rig01" and "rig1" are two names
}

std::string encode_boxes(const std::vector<Box>& boxes) {
  // One box per line: people do look.
  std::string out = "{\"version\":" + std::to_string(kVersion) + ",\"boxes\":{";
  const char* separator = "\n";
  for (const auto& box : boxes) {
    json::object entry;
    if (box.via_ssh.empty()) {
      entry["address"] = box.address.text();
    } else {
      entry["viaSsh"] = box.via_ssh;
    }
    if (!box.host_key.empty()) {
      entry["hostKey"] = box.host_key;
    }
    if (!box.agent.empty()) {
      entry["agent"] = box.agent;
    }
    if (!box.state.empty()) {
      entry["state"] = box.state;
    }
    for (const auto& member : box.more) {
      entry.insert(member);
    }
    out += separator + json::serialize(json::value(box.name)) + ":" + json::serialize(entry);
    separator = ",\n";
  }
  return out + "\n}}\n";
}

wire::result<std::vector<Box>> decode_boxes(std::string_view text) {
  boost::system::error_code error;
  json::value root = json::parse(json::string_view(text.data(), text.size()), error);
  if (error || !root.is_object()) {
    return Failure(Errc::bad_input, error ? "not JSON: " + error.message() : "not a JSON object");
  }
  const json::value* version = root.get_object().if_contains("version");
  if (version != nullptr && version->is_int64() && version->get_int64() > kVersion) {
    return Failure(Errc::unsupported, "version " + std::to_string(version->get_int64()));
  }
  if (version == nullptr || !version->is_int64() || version->get_int64() != kVersion) {
    return Failure(Errc::bad_input, "its `version` is not " + std::to_string(kVersion));
  }
  const json::value* entries = root.get_object().if_contains("boxes");
  if (entries == nullptr || !entries->is_object()) {
    return Failure(Errc::bad_input, "`boxes` is not an object");
  }
  std::vector<Box> boxes;
  for (const auto& entry : entries->get_object()) {
    auto box = decode_box(std::string(entry.key()), entry.value());
    if (!box) {
      return box.error();
    }
    boxes.push_back(std::move(*box));
  }
  std::sort(boxes.begin(), boxes.end(),
            [](const Box& a, const Box& b) { return natural_less(a.name, b.name); });
  return boxes;
}

std::vector<Box> read_boxes(const Paths& paths) { return read_file(paths); }

void change_boxes(const Paths& paths, const std::function<void(std::vector<Box>&)>& change) {
  auto unusable = [&paths](const Failure& failure) {
    return UserError("box", "cannot change " + paths.boxes().string() + ": " + failure.what,
                     failure.code == Errc::timed_out
                         ? "Another process holds it; try again."
                         : "Make that directory writable, or set XDG_CONFIG_HOME to one that is.");
  };
  if (auto made = protocol::os::make_private_directory(paths.config); !made) {
    throw unusable(made.error());
  }
  auto lock = protocol::os::FileLock::lock(paths.boxes().string() + ".lock",
                                           protocol::os::FileLock::Kind::exclusive,
                                           std::chrono::steady_clock::now() + kLockTime);
  if (!lock) {
    throw unusable(lock.error());
  }
  std::vector<Box> boxes = read_file(paths);
  change(boxes);
  std::sort(boxes.begin(), boxes.end(),
            [](const Box& a, const Box& b) { return natural_less(a.name, b.name); });
  if (auto written = protocol::os::write_file(paths.boxes(), encode_boxes(boxes)); !written) {
    throw unusable(written.error());
  }
}

Box* find_name(std::vector<Box>& boxes, const std::string& name) {
  auto found = std::find_if(boxes.begin(), boxes.end(),
                            [&name](const Box& box) { return box.name == name; });
  return found == boxes.end() ? nullptr : &*found;
}

Box find_box(const Paths& paths, const std::string& name) {
  std::vector<Box> boxes = read_boxes(paths);
  if (Box* known = find_name(boxes, name); known != nullptr) {
    return *known;
  }
  if (auto address = parse_address(name)) {
    Box box;
    box.name = name;
    box.address = *address;
    for (const auto& known : boxes) {
      if (known.address == *address && !known.host_key.empty()) {
        box.host_key = known.host_key;
      }
    }
    return box;
  }
  std::string names = kLocalBox;
  for (std::size_t i = 0; i < boxes.size() && i < kMostNamed; ++i) {
    names += ", " + wire::printable(boxes[i].name, 80);
  }
  if (boxes.size() > kMostNamed) {
    names += " and " + std::to_string(boxes.size() - kMostNamed) + " more";
  }
  throw UserError("box", "there is no box `" + wire::printable(name, 80) + "`",
                  "There is " + names +
                      ". `sandbox boxes add --name NAME --host HOST` adds one; HOST:PORT is a box, "
                      "too.",
                  kMisuse);
}

std::string pin_host_key(const Paths& paths, const Box& box, const std::string& host_key) {
  std::string pinned = host_key;
  change_boxes(paths, [&](std::vector<Box>& boxes) {
    Box* known = find_name(boxes, box.name);
    if (known == nullptr) {
      boxes.push_back(box);
      known = &boxes.back();
    }
    if (known->address != box.address) {
      return;  // edited meanwhile: that is another machine's key
    }
    if (known->host_key.empty()) {
      known->host_key = host_key;
    }
    pinned = known->host_key;
  });
  return pinned;
}

}  // namespace cli
