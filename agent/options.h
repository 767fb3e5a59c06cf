// The agent's command line, as values. Pure: main.cc does what they say.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "protocol/wire/result.h"

namespace agent {

struct ServeOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;  // 0: a free one, told in agent.json and in the first log line
  std::filesystem::path state;
  std::string name;
  std::uint32_t slots = 1;  // 0: no limit
  std::optional<std::chrono::seconds> idle_exit;
  bool trust_claimed_users = false;  // for the box that one person's CLI started for itself
};

struct AuthorizeOptions {
  std::filesystem::path state;
  std::string key;   // one authorized_keys line
  std::string user;  // empty: the line says
};

struct BridgeOptions {
  std::filesystem::path state;
};

struct SuperviseOptions {
  std::filesystem::path directory;
};

struct HelpOptions {};
struct VersionOptions {};

using Command = std::variant<ServeOptions, AuthorizeOptions, BridgeOptions, SuperviseOptions,
                             HelpOptions, VersionOptions>;

// The arguments after the program's name. Errc::bad_input with a sentence for stderr.
protocol::wire::result<Command> parse_options(std::span<const std::string> arguments);

// Fits a screen.
std::string_view help_text();

}  // namespace agent
