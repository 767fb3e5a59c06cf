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
#include <vector>

#include "agent/isolation.h"
#include "protocol/os/limits.h"
#include "protocol/wire/result.h"

namespace agent {

struct ServeOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;  // 0: a free one, told in agent.json and in the first log line
  std::filesystem::path state;
  std::string name;
  std::uint32_t slots = 1;  // 0: no limit
  std::optional<std::chrono::seconds> idle_exit;
  bool trust_claimed_users = false;        // for the box that one person's CLI started for itself
  std::optional<IsolationMode> isolation;  // std::nullopt: not said, which is automatic
  bool trust_commands = false;
  std::vector<std::filesystem::path> exposed;
};

struct AuthorizeOptions {
  std::filesystem::path state;
  std::string key;   // one authorized_keys line
  std::string user;  // empty: the line says
};

struct BridgeOptions {
  std::filesystem::path state;
};

// Says what commands can be isolated with here: what an agent would find at its start.
struct ProbeOptions {
  std::vector<std::filesystem::path> exposed;
};

struct SuperviseOptions {
  std::filesystem::path directory;
  std::filesystem::path workspace, home;  // where jobs find them; empty: in there
  bool isolated = false;
  bool try_only = false;  // isolates, runs one small program as a job would be, and ends
  int info_fd = -1;
  protocol::os::ProcessLimits jobs;  // what each of them is held to
  std::int64_t seconds = 0;          // how long each may take; 0: no limit
  std::filesystem::path cgroup;      // whose memory.events tell of processes killed for memory
};

// Takes limits on and becomes another program.
struct LimitedOptions {
  protocol::os::ProcessLimits limits;
  std::vector<std::string> command;  // the program's path, then argv from argv[0] on
};

struct HelpOptions {};
struct VersionOptions {};

using Command = std::variant<ServeOptions, AuthorizeOptions, BridgeOptions, ProbeOptions,
                             SuperviseOptions, LimitedOptions, HelpOptions, VersionOptions>;

// The arguments after the program's name. Errc::bad_input with a sentence for stderr.
protocol::wire::result<Command> parse_options(std::span<const std::string> arguments);

// Fits a screen.
std::string_view help_text();

}  // namespace agent
