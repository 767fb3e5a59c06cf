#include "cli/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>

#include "cli/digest.h"
#include "cli/duration.h"
#include "cli/error.h"
#include "protocol/os/paths.h"
#include "protocol/sync/object_id.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace fs = std::filesystem;
using protocol::wire::Errc;
using protocol::wire::printable;

namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 50;
constexpr std::size_t kMostBytes = 1024 * 1024;  // of a file

std::optional<std::int64_t> parse_whole(std::string_view text) {
  std::int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > kMost) {
    return std::nullopt;
  }
  return value;
}

// "1048576", "512M", "2G": with K, M, G or T of 1024 each.
std::optional<std::int64_t> parse_bytes(std::string_view text) {
  std::int64_t unit = 1;
  if (!text.empty()) {
    constexpr std::string_view kUnits = "KMGT";
    auto found = kUnits.find(text.back());
    if (found != std::string_view::npos) {
      unit = std::int64_t{1} << (10 * (found + 1));
      text.remove_suffix(1);
    }
  }
  auto value = parse_whole(text);
  if (!value || *value > kMost / unit) {
    return std::nullopt;
  }
  return *value * unit;
}

// "2", "0.5", "1.25": three decimals at most.
std::optional<std::int64_t> parse_thousandths(std::string_view text) {
  auto dot = std::min(text.find('.'), text.size());
  std::string decimals(text.substr(std::min(dot + 1, text.size())));
  if (decimals.size() > 3 || (dot < text.size() && decimals.empty())) {
    return std::nullopt;
  }
  decimals.resize(3, '0');
  auto whole = parse_whole(text.substr(0, dot));
  auto rest = parse_whole(decimals);
  if (!whole || !rest || *whole > 10'000) {
    return std::nullopt;
  }
  return *whole * 1000 + *rest;
}

// Reads one document, and says where what is wrong is.
class Reader {
 public:
  explicit Reader(const fs::path& file) : file_(file.string()) {}

  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& what,
                         const std::string& next = {}) const {
    int line = mark.line < 0 ? 1 : mark.line + 1;
    throw UserError("config", file_ + ":" + std::to_string(line) + ": " + what, next, kMisuse);
  }

  std::string text(const YAML::Node& node, const std::string& key) const {
    if (!node.IsScalar()) {
      fail(node.Mark(), "`" + key + "` must be a text");
    }
    std::string value = node.Scalar();
    if (value.find('\0') != std::string::npos) {
      fail(node.Mark(), "`" + key + "` contains a zero byte");
    }
    return value;
  }

  std::vector<std::string> list(const YAML::Node& node, const std::string& key, bool single) const {
    std::vector<std::string> values;
    if (node.IsNull()) {
      return values;
    }
    if (single && node.IsScalar()) {
      return {text(node, key)};
    }
    if (!node.IsSequence()) {
      fail(node.Mark(), "`" + key + "` must be a list");
    }
    for (const auto& item : node) {
      values.push_back(text(item, key));
      if (values.back().empty()) {
        fail(item.Mark(), "`" + key + "` has an empty entry");
      }
    }
    return values;
  }

  void env(const YAML::Node& node, std::map<std::string, std::string>& out) const {
    if (node.IsNull()) {
      return;
    }
    if (!node.IsMap()) {
      fail(node.Mark(), "`env` must be a map of names to values");
    }
    for (const auto& item : node) {
      std::string name = text(item.first, "env");
      if (name.empty() || name.find('=') != std::string::npos) {
        fail(item.first.Mark(), "`" + printable(name, 80) + "` is no name for a variable");
      }
      if (out.count(name) != 0) {
        fail(item.first.Mark(), "`env." + printable(name, 80) + "` is there twice");
      }
      out[name] = item.second.IsNull() ? "" : text(item.second, "env." + name);
    }
  }

  void sync(const YAML::Node& node, Config& config) const {
    if (node.IsNull()) {
      return;
    }
    if (!node.IsMap()) {
      fail(node.Mark(), "`sync` must be a map with `include` and `depth`");
    }
    for (const auto& item : node) {
      std::string key = text(item.first, "sync");
      if (key == "include") {
        config.includes = list(item.second, "sync.include", false);
        config.includes_line = item.first.Mark().line + 1;
      } else if (key == "depth") {
        std::string value = text(item.second, "sync.depth");
        auto parsed = std::from_chars(value.data(), value.data() + value.size(), config.depth);
        if (value.empty() || parsed.ec != std::errc() ||
            parsed.ptr != value.data() + value.size()) {
          fail(item.second.Mark(),
               "`sync.depth` must be a number of commits, 0 for all: " + printable(value, 80));
        }
      } else {
        fail(item.first.Mark(), "there is no key `sync." + printable(key, 80) + "`",
             "Known: sync.include, sync.depth.");
      }
    }
  }

  void limits(const YAML::Node& node, protocol::wire::Limits& limits) const {
    if (node.IsNull()) {
      return;
    }
    if (!node.IsMap()) {
      fail(node.Mark(), "`limits` must be a map with `memory`, `cpus`, `pids` and `time`");
    }
    for (const auto& item : node) {
      std::string key = text(item.first, "limits");
      std::string value = text(item.second, "limits." + key);
      auto take = [&](std::int64_t& into, std::optional<std::int64_t> amount, const char* what) {
        if (!amount || *amount < 1) {
          fail(item.second.Mark(),
               "`limits." + key + "` must be " + what + ": " + printable(value, 80));
        }
        into = *amount;
      };
      if (key == "memory") {
        take(limits.memory, parse_bytes(value), "a size, as 512M or 2G");
      } else if (key == "cpus") {
        take(limits.millicpus, parse_thousandths(value), "a number of processors, as 2 or 0.5");
      } else if (key == "pids") {
        take(limits.pids, parse_whole(value), "a number of processes");
      } else if (key == "time") {
        auto time = parse_duration(value);
        take(limits.seconds, time ? std::optional(time->count()) : std::nullopt,
             "a duration, as 90s or 10m");
      } else {
        fail(item.first.Mark(), "there is no key `limits." + printable(key, 80) + "`",
             "Known: limits.memory, limits.cpus, limits.pids, limits.time.");
      }
    }
  }

  void key(const std::string& name, const YAML::Node& at, const YAML::Node& value,
           Config& config) const {
    if (name == "box") {
      config.box = text(value, name);
      config.box_line = at.Mark().line + 1;
    } else if (name == "setup") {
      config.setup = list(value, name, true);
    } else if (name == "env") {
      env(value, config.env);
    } else if (name == "shell") {
      config.shell = text(value, name);
      if (config.shell.empty() || config.shell.front() != '/') {
        fail(value.Mark(), "`shell` must be an absolute path: " + printable(config.shell, 80));
      }
    } else if (name == "sync") {
      sync(value, config);
    } else if (name == "isolation") {
      config.isolation = text(value, name);
      config.isolation_line = at.Mark().line + 1;
      if (config.isolation != "auto" && config.isolation != "bwrap" && config.isolation != "none") {
        fail(value.Mark(),
             "`isolation` must be auto, bwrap or none: " + printable(config.isolation, 80));
      }
    } else if (name == "network") {
      config.network = text(value, name);
      if (config.network != "host" && config.network != "none") {
        fail(value.Mark(), "`network` must be host or none: " + printable(config.network, 80));
      }
    } else if (name == "limits") {
      limits(value, config.limits);
    } else {
      fail(at.Mark(), "there is no key `" + printable(name, 80) + "`",
           "Known: box, setup, env, shell, sync.include, sync.depth, isolation, network, limits.");
    }
  }

 private:
  std::string file_;
};

}  // namespace

Config parse_config(std::string_view text, const fs::path& file) {
  Reader reader(file);
  Config config;
  config.file = file;
  config.digest = digest(text);
  protocol::sync::Sha256 sha;
  sha.update(text);
  config.sha256 = protocol::sync::to_hex(sha.finish().data(), 32);
  if (!protocol::wire::is_utf8(text)) {
    throw UserError("config", file.string() + ":1: the file is not UTF-8 text", "Save it as UTF-8.",
                    kMisuse);
  }
  try {
    std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() > 1) {
      reader.fail(documents[1].Mark(), "a second document begins here, after `---`",
                  "One file is one configuration: put the keys together, or leave the rest away.");
    }
    if (documents.empty() || documents.front().IsNull()) {
      return config;
    }
    const YAML::Node& root = documents.front();
    if (!root.IsMap()) {
      reader.fail(root.Mark(), "the file must be a map of keys to values");
    }
    std::vector<std::string> seen;
    for (const auto& item : root) {
      std::string name = reader.text(item.first, "key");
      if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
        reader.fail(item.first.Mark(), "`" + printable(name, 80) + "` is there twice");
      }
      seen.push_back(name);
      reader.key(name, item.first, item.second, config);
    }
  } catch (const YAML::Exception& error) {
    reader.fail(error.mark, error.msg);
  }
  return config;
}

namespace {

UserError unreadable(const protocol::wire::Failure& failure) {
  std::string next;
  int status = kMisuse;
  switch (failure.code) {
    case Errc::not_found:
      next = "`sandbox init` writes one.";
      break;
    case Errc::denied:
      next = "Make it readable for you, and the directories above it.";
      status = kFailed;
      break;
    case Errc::refused:
      next = "Move it away and let `sandbox init` write one, or name another before `--`.";
      break;
    case Errc::too_large:
      next = "A configuration has 1 MiB at most: is it one?";
      break;
    default:
      next = "Try again, or name another file before `--`.";
      status = kFailed;
  }
  return UserError("config", "cannot read the configuration file " + failure.what, next, status);
}

}  // namespace

Config load_config(const std::string& named, const fs::path& directory, const fs::path& root) {
  auto read = [](const fs::path& file) {
    auto text = protocol::os::read_file(file, kMostBytes);
    if (!text) {
      throw unreadable(text.error());
    }
    return parse_config(*text, file);
  };
  if (!named.empty()) {
    std::error_code error;
    fs::path file = fs::canonical(directory / named, error);
    if (error) {
      throw UserError(
          "config", "there is no configuration file " + (directory / named).string(),
          "`sandbox init " + named + "` writes one; the command to run stands after `--`.",
          kMisuse);
    }
    if (!fs::is_regular_file(file, error)) {
      throw UserError("config", file.string() + " is not a file", "Name a .yml file.", kMisuse);
    }
    return read(file);
  }
  for (fs::path at = directory;; at = at.parent_path()) {
    std::error_code error;
    if (fs::exists(at / kConfigName, error)) {
      return read(at / kConfigName);
    }
    if (at == root || at == at.root_path()) {
      return {};
    }
  }
}

std::vector<Reach> reaching(const Config& config, const Consent& consent) {
  std::vector<Reach> all;
  if (config.box_line != 0 && consent.box.empty()) {
    std::string box = printable(config.box, 200);
    all.push_back({config.box_line, "`box` (" + box + ")", "--box " + box});
  }
  if (config.isolation == "none" && consent.isolation.empty()) {
    all.push_back({config.isolation_line, "`isolation: none`", "--isolation none"});
  }
  for (const auto& path : config.includes) {
    if (std::find(consent.includes.begin(), consent.includes.end(), path) ==
        consent.includes.end()) {
      std::string shown = printable(path, 200);
      all.push_back({config.includes_line, "`sync.include` (" + shown + ")",
                     "--include " + protocol::wire::shell_quote(shown)});
    }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Reach& one, const Reach& other) { return one.line < other.line; });
  return all;
}

namespace {

std::string describe(const Config& config, const std::vector<Reach>& reaches) {
  return config.file.string() + ":" + std::to_string(reaches.front().line) + ": " +
         reaches.front().what + " reaches beyond the sandbox, so the file alone may not say it";
}

std::string next_step(const Config& config, const std::vector<Reach>& reaches) {
  std::string options;
  for (const auto& reach : reaches) {
    options += (options.empty() ? "" : " ") + reach.option;
  }
  return "If you want it, say it too: " + options +
         "\nOr read the file, and trust it as it is now: sandbox trust " +
         protocol::wire::shell_quote(printable(config.file.string(), 4096));
}

}  // namespace

Untrusted::Untrusted(const Config& of, std::vector<Reach> what)
    : UserError("config", describe(of, what), next_step(of, what), kMisuse),
      config(of),
      reaches(std::move(what)) {}

void apply_consent(Config& config, const Consent& consent, bool trusted) {
  auto reaches = reaching(config, consent);
  if (!reaches.empty() && !trusted) {
    throw Untrusted(config, std::move(reaches));
  }
  if (!consent.box.empty()) {
    config.box = consent.box;
  }
  if (!consent.isolation.empty()) {
    config.isolation = consent.isolation;
  }
  for (const auto& path : consent.includes) {
    if (std::find(config.includes.begin(), config.includes.end(), path) == config.includes.end()) {
      config.includes.push_back(path);
    }
  }
}

std::string config_template() {
  return R"(# What this project asks of its sandbox. Every key may be left out.

# Commands that run once, when the sandbox is made. One that fails ends the start.
#setup:
#  - ./configure
#  - npm ci

# Variables of every command.
#env:
#  CI: "1"

# The shell for setup commands (default: /bin/sh).
#shell: /bin/bash

#sync:
#  # How many commits of history to send (default: 50; 0: all).
#  depth: 50
#  # Ignored paths to carry all the same. Needs --include on the command line, too,
#  # or `sandbox trust`.
#  include:
#    - .env.test

# The box to run on. Needs --box on the command line, too, or `sandbox trust`.
#box: rig1

# auto, bwrap or none. `none` needs --isolation on the command line, too, or `sandbox trust`.
#isolation: auto

# host or none: whether commands reach the network. `none` needs isolation.
#network: none

# What commands may use. A box that cannot enforce one of them refuses it.
#limits:
#  memory: 2G
#  cpus: 2
#  pids: 500
#  time: 30m
)";
}

}  // namespace cli
