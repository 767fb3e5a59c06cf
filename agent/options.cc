#include "agent/options.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>

#include "protocol/wire/limits.h"

namespace agent {
namespace {

using protocol::wire::Errc;
using protocol::wire::Failure;
using protocol::wire::result;

Failure misuse(std::string text) { return Failure(Errc::bad_input, std::move(text)); }

std::optional<std::uint32_t> number(std::string_view text, std::uint32_t most) {
  std::uint32_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value > most) {
    return std::nullopt;
  }
  return value;
}

// HOST:PORT, [IPV6]:PORT, :PORT or PORT; without a host it is the loopback.
result<void> set_listen(ServeOptions& options, const std::string& text) {
  auto colon = text.rfind(':');
  std::string host = colon == std::string::npos ? "" : text.substr(0, colon);
  std::string port = colon == std::string::npos ? text : text.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return misuse("--listen: write an IPv6 address as [ADDRESS]:PORT, not " + text);
  }
  auto value = number(port, 65535);
  if (!value) {
    return misuse("--listen takes HOST:PORT with a port from 0 to 65535, not " + text);
  }
  if (!host.empty()) {
    options.host = host;
  }
  options.port = static_cast<std::uint16_t>(*value);
  return {};
}

result<void> set_name(std::string& name, const std::string& option, const std::string& text) {
  if (text.empty() || text.size() > protocol::wire::kMaxNameBytes) {
    return misuse(option + " takes 1 to 255 bytes");
  }
  for (unsigned char c : text) {
    if (c < 0x20 || c == 0x7f || c == '"') {
      return misuse(option + " takes no control characters and no quotes");
    }
  }
  name = text;
  return {};
}

// One command's options: those with a value, flags, and positional words.
struct Grammar {
  std::map<std::string, std::function<result<void>(const std::string&)>> values;
  std::map<std::string, std::function<void()>> flags;
  std::function<result<void>(const std::string&)> word;
};

result<void> read(std::span<const std::string> arguments, const Grammar& grammar) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string name = arguments[i];
    std::optional<std::string> value;
    if (name.rfind("--", 0) != 0) {
      if (!grammar.word) {
        return misuse("unexpected argument: " + name);
      }
      auto taken = grammar.word(name);
      if (!taken) {
        return taken;
      }
      continue;
    }
    if (auto equals = name.find('='); equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
    }
    if (auto flag = grammar.flags.find(name); flag != grammar.flags.end()) {
      if (value) {
        return misuse(name + " takes no value");
      }
      flag->second();
      continue;
    }
    auto option = grammar.values.find(name);
    if (option == grammar.values.end()) {
      return misuse("unknown option: " + name);
    }
    if (!value) {
      if (++i == arguments.size()) {
        return misuse(name + " needs a value");
      }
      value = arguments[i];
    }
    auto taken = option->second(*value);
    if (!taken) {
      return taken;
    }
  }
  return {};
}

auto set_path(std::filesystem::path& path, const char* option) {
  return [&path, option](const std::string& text) -> result<void> {
    if (text.empty() || text.find('\0') != std::string::npos) {
      return misuse(std::string(option) + " takes a directory");
    }
    path = text;
    return {};
  };
}

auto set_amount(std::int64_t& amount, const char* option) {
  return [&amount, option](const std::string& text) -> result<void> {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), amount);
    if (error != std::errc{} || end != text.data() + text.size() || amount < 1) {
      return misuse(std::string(option) + " takes a number from 1, not " + text);
    }
    return {};
  };
}

void add_limits(Grammar& grammar, protocol::os::ProcessLimits& limits) {
  grammar.values["--cgroup"] = set_path(limits.cgroup, "--cgroup");
  grammar.values["--memory"] = set_amount(limits.memory, "--memory");
  grammar.values["--pids"] = set_amount(limits.pids, "--pids");
  grammar.values["--cpu"] = [&limits](const std::string& text) -> result<void> {
    auto cpu = number(text, 1023);
    if (!cpu) {
      return misuse("--cpu takes the number of a processor, not " + text);
    }
    limits.cpus.push_back(static_cast<int>(*cpu));
    return {};
  };
}

void add_exposed(Grammar& grammar, std::vector<std::filesystem::path>& exposed) {
  grammar.values["--expose"] = [&exposed](const std::string& v) -> result<void> {
    if (v.empty() || v[0] != '/' || v.find('\0') != std::string::npos) {
      return misuse("--expose takes an absolute path, not " + v);
    }
    exposed.emplace_back(v);
    return {};
  };
}

result<Command> parse_serve(std::span<const std::string> arguments) {
  ServeOptions options;
  Grammar grammar;
  grammar.values["--listen"] = [&](const std::string& v) { return set_listen(options, v); };
  grammar.values["--state"] = set_path(options.state, "--state");
  grammar.values["--name"] = [&](const std::string& v) {
    return set_name(options.name, "--name", v);
  };
  grammar.values["--slots"] = [&](const std::string& v) -> result<void> {
    auto slots = number(v, 65535);
    if (!slots) {
      return misuse("--slots takes a number from 0 (no limit) to 65535, not " + v);
    }
    options.slots = *slots;
    return {};
  };
  grammar.values["--idle-exit"] = [&](const std::string& v) -> result<void> {
    auto seconds = number(v, 1'000'000'000);
    if (!seconds || *seconds == 0) {
      return misuse("--idle-exit takes seconds, 1 or more, not " + v);
    }
    options.idle_exit = std::chrono::seconds(*seconds);
    return {};
  };
  grammar.flags["--trust-claimed-users"] = [&] { options.trust_claimed_users = true; };
  grammar.values["--isolation"] = [&](const std::string& v) -> result<void> {
    auto mode = isolation_mode(v);
    if (!mode) {
      return misuse("--isolation takes auto, bwrap or none, not " + v);
    }
    options.isolation = *mode;
    return {};
  };
  grammar.flags["--trust-commands"] = [&] { options.trust_commands = true; };
  add_exposed(grammar, options.exposed);
  if (auto done = read(arguments, grammar); !done) {
    return done.error();
  }
  if (options.state.empty()) {
    return misuse("serve needs --state DIR");
  }
  if (options.name.empty()) {
    return misuse("serve needs --name NAME, the box's name as users know it");
  }
  return Command(options);
}

result<Command> parse_authorize(std::span<const std::string> arguments) {
  AuthorizeOptions options;
  Grammar grammar;
  grammar.values["--state"] = set_path(options.state, "--state");
  grammar.values["--user"] = [&](const std::string& v) {
    return set_name(options.user, "--user", v);
  };
  grammar.word = [&](const std::string& word) -> result<void> {
    if (!options.key.empty()) {
      return misuse("authorize takes one key, in quotes: 'ssh-ed25519 AAAA... comment'");
    }
    options.key = word;
    return {};
  };
  if (auto done = read(arguments, grammar); !done) {
    return done.error();
  }
  if (options.state.empty() || options.key.empty()) {
    return misuse("authorize needs --state DIR and a key: 'ssh-ed25519 AAAA... comment'");
  }
  return Command(options);
}

result<Command> parse_bridge(std::span<const std::string> arguments) {
  BridgeOptions options;
  Grammar grammar;
  grammar.values["--state"] = set_path(options.state, "--state");
  if (auto done = read(arguments, grammar); !done) {
    return done.error();
  }
  if (options.state.empty()) {
    return misuse("bridge needs --state DIR, the agent's");
  }
  return Command(options);
}

result<Command> parse_probe(std::span<const std::string> arguments) {
  ProbeOptions options;
  Grammar grammar;
  add_exposed(grammar, options.exposed);
  if (auto done = read(arguments, grammar); !done) {
    return done.error();
  }
  return Command(options);
}

result<Command> parse_supervise(std::span<const std::string> arguments) {
  SuperviseOptions options;
  Grammar grammar;
  grammar.values["--directory"] = set_path(options.directory, "--directory");
  grammar.values["--workspace"] = set_path(options.workspace, "--workspace");
  grammar.values["--home"] = set_path(options.home, "--home");
  grammar.flags["--isolated"] = [&] { options.isolated = true; };
  grammar.flags["--try"] = [&] { options.try_only = true; };
  add_limits(grammar, options.jobs);
  grammar.values["--seconds"] = set_amount(options.seconds, "--seconds");
  grammar.values["--events"] = set_path(options.cgroup, "--events");
  grammar.values["--info-fd"] = [&](const std::string& v) -> result<void> {
    auto fd = number(v, 1023);
    if (!fd) {
      return misuse("--info-fd takes the number of a descriptor, not " + v);
    }
    options.info_fd = static_cast<int>(*fd);
    return {};
  };
  if (auto done = read(arguments, grammar); !done) {
    return done.error();
  }
  if (options.directory.empty()) {
    return misuse("supervise needs --directory DIR");
  }
  return Command(options);
}

// Everything after `--` is the command, whatever it looks like.
result<Command> parse_limited(std::span<const std::string> arguments) {
  LimitedOptions options;
  Grammar grammar;
  add_limits(grammar, options.limits);
  auto end = std::find(arguments.begin(), arguments.end(), "--");
  if (auto done = read({arguments.begin(), end}, grammar); !done) {
    return done.error();
  }
  if (arguments.end() - end < 3) {
    return misuse("limited needs -- PROGRAM NAME [ARGUMENT...]");
  }
  options.command.assign(end + 1, arguments.end());
  return Command(options);
}

}  // namespace

result<Command> parse_options(std::span<const std::string> arguments) {
  if (arguments.empty()) {
    return misuse("a command is needed: serve, authorize, bridge, probe, supervise or version");
  }
  const std::string& command = arguments.front();
  auto rest = arguments.subspan(1);
  for (const std::string& argument : arguments) {
    if (argument == "--") {
      break;
    }
    if (argument == "--help" || argument == "-h" || argument == "help") {
      return Command(HelpOptions{});
    }
  }
  if (command == "serve") {
    return parse_serve(rest);
  }
  if (command == "authorize") {
    return parse_authorize(rest);
  }
  if (command == "bridge") {
    return parse_bridge(rest);
  }
  if (command == "probe") {
    return parse_probe(rest);
  }
  if (command == "supervise") {
    return parse_supervise(rest);
  }
  if (command == "limited") {
    return parse_limited(rest);
  }
  if (command == "version" || command == "--version") {
    if (!rest.empty()) {
      return misuse("version takes no arguments");
    }
    return Command(VersionOptions{});
  }
  return misuse("unknown command: " + command);
}

std::string_view help_text() {
  return R"(sandbox-agent: gives this box's sandboxes to clients, one command at a time

usage:
  sandbox-agent serve --state DIR --name NAME [options]
  sandbox-agent authorize --state DIR [--user NAME] 'ssh-ed25519 AAAA... NAME'
  sandbox-agent bridge --state DIR        (joins stdin and stdout to that agent)
  sandbox-agent probe [--expose PATH...]  (says what isolates commands here)
  sandbox-agent version
(serve starts two more for its own use: supervise, one per sandbox, and limited)

serve:
  --state DIR            where it keeps everything; one agent per directory
  --name NAME            the box's name, as users know it
  --listen HOST:PORT     where it listens (default 127.0.0.1:0, a free port)
  --slots N              how many commands run at once (1); 0 is no limit
  --idle-exit SECONDS    ends when nobody used it for so long (default: never)
  --trust-claimed-users  takes a client's word for who its user is
  --isolation MODE       auto (the default: bwrap where it works), bwrap, none
  --trust-commands       lets several users' commands run without isolation:
                         each may then do what this account can
  --expose PATH          shows this to every sandbox, read-only, a device as it
                         is; repeatable

authorize:
  --user NAME            whose key this is (default: the key's comment)

environment:
  SANDBOX_ISOLATION      what --isolation says, where it is not given
  SANDBOX_LOCK_TTL       seconds until a silent client loses its lock (1800)
  NOTIFY_SOCKET          told READY=1 when it listens (systemd)

The address it listens on is in DIR/agent.json, and in the line `listening` of
its log, which goes to stderr.
Exit status: 0 stopped, 1 cannot run, 2 misuse, 75 another agent has the state
directory.
)";
}

}  // namespace agent
