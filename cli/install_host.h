// A machine that gets our agent, or has it: what is there, and the steps that put it there
// (install_scripts.h), with what goes wrong in words for the user. Changes nothing on this machine.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/boxes.h"
#include "cli/install_service.h"
#include "cli/local_agent.h"
#include "cli/remote_shell.h"
#include "protocol/wire/messages.h"

namespace cli {

// This machine's own `sandbox-agent`.
struct AgentProgram {
  std::string bytes;
  std::string sum;  // as digest.h has it
};
// Throws UserError.
protocol::os::awaitable<AgentProgram> read_agent_program(Context& context);

struct HostFacts {
  std::string system;   // "Linux"
  std::string machine;  // "x86_64"
  std::string os;       // "Debian GNU/Linux 12 (bookworm)"; may be empty
  std::string git;      // its version line; empty: none
  std::string program;  // where the agent belongs there
  std::string state;    // where it keeps its state
  std::string sum;      // of the program there; empty: none
  std::optional<ServiceOptions> serving;
  std::optional<AgentAddress> agent;  // that runs
  std::string running;                // the sum of its program
  bool service = false;               // the service manager keeps it
};

struct HandedOver {
  AgentAddress agent;
  std::string why;  // the program that was put there did not come to listen: the one before runs
};

class InstallHost {
 public:
  InstallHost(Context& context, std::string host);

  const std::string& host() const { return shell_.host(); }
  protocol::os::awaitable<HostFacts> look();
  // Puts the program in its place. Throws UserError that says what is missing there, when it could
  // not run; then nothing was changed.
  protocol::os::awaitable<void> put(AgentProgram program, HostFacts facts);

  struct Started {
    AgentAddress agent;
    bool key_added = false;
    bool service = false;
    bool no_linger = false;  // there is a service manager, but it ends what a login leaves behind
  };
  // Lets the key in under this name, and starts the agent if none runs.
  protocol::os::awaitable<Started> start(HostFacts facts, std::string user, std::string key,
                                         ServiceOptions options);
  // Ends the agent of process `old` and starts the program that is in place, or, with `back`, the
  // one before. Throws UserError when no agent runs after it, or another one than `old` did before.
  protocol::os::awaitable<HandedOver> hand_over(int old, bool back);

  // The name or address that ssh connects to, from the user's ssh_config.
  protocol::os::awaitable<std::string> address();

 private:
  Context& context_;
  RemoteShell shell_;
};

// Asks a box who it is, in the way that every command goes there. Throws UserError.
protocol::os::awaitable<protocol::wire::Info> ask_info(Context& context, Box box);

// What a box's entry keeps of its installation (Box::more). std::nullopt: it was not installed from
// here.
std::optional<std::string> installed_host(const Box& box);
void set_installed_host(Box& box, const std::string& host);

}  // namespace cli
