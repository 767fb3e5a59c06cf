// The local box's agent: finds out where it listens, and starts it when nobody does. Two processes
// may do so at once: the agent's own lock lets one live, and both find it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/boxes.h"
#include "cli/environment.h"
#include "cli/output.h"
#include "protocol/os/async.h"
#include "protocol/ssh/key.h"

namespace cli {

struct AgentAddress {
  Address address;
  std::string host_key;
  int pid = 0;
  std::string agent;
};

// What an agent writes into agent.json; std::nullopt for any other text.
std::optional<AgentAddress> parse_agent_address(std::string_view text);
// What agent.json in this state directory says; std::nullopt when there is none, it is damaged or
// its process has ended.
std::optional<AgentAddress> read_agent_address(const std::filesystem::path& state);

// `sandbox-agent`: beside this program, in ../libexec, on PATH. Throws UserError naming the places.
std::filesystem::path find_agent_program(const Environment& environment);

// What an agent that outlives us may know of our environment.
std::map<std::string, std::string> agent_environment(const Environment& environment);

// What of this user's files every sandbox of the local box is shown, read-only: what SANDBOX_EXPOSE
// names (absolute paths, with colons between), and the directories of PATH that are in the home, so
// that a program that is found here is found there. Never one that our own files are in. Pure.
std::vector<std::filesystem::path> exposed_paths(const Environment& environment,
                                                 const Paths& paths);

// The arguments with which it is started: for one user, on the loopback, without slots, and to end
// by itself when it was idle for long. `port` 0: any. Pure.
std::vector<std::string> serve_arguments(const std::filesystem::path& program,
                                         const std::filesystem::path& state,
                                         const std::vector<std::filesystem::path>& exposed,
                                         std::uint16_t port);

class LocalAgent {
 public:
  LocalAgent(const Environment& environment, const Paths& paths, protocol::os::executor executor)
      : environment_(environment), paths_(paths), executor_(executor) {}

  // The running agent's address, if one says that it runs.
  std::optional<AgentAddress> running() const { return read_agent_address(paths_.agent()); }
  // Lets our key in and starts an agent. Comes back at once: it will say its address when it
  // listens. Throws UserError.
  void start(const protocol::ssh::PublicKey& key);
  // Waits until an agent says that it listens, not the one of process `besides`. Throws UserError
  // with the end of its log when none does.
  protocol::os::awaitable<AgentAddress> wait(int besides);

 private:
  // At the last one's port where that is free: an ssh_config may name it.
  void launch();
  std::filesystem::path port_file() const { return paths_.agent() / "last-port"; }
  std::filesystem::path log() const { return paths_.agent() / "agent.log"; }
  const Environment& environment_;
  const Paths& paths_;
  protocol::os::executor executor_;
  std::uint16_t port_ = 0;            // that the agent we started was to take; 0: any
  bool any_port_ = false;             // the last one's port could not be had
  std::shared_ptr<int> exit_status_;  // of the agent that we started, once it has ended
};

}  // namespace cli
