#include "cli/bridge_connection.h"

#include <signal.h>

#include "cli/context.h"
#include "cli/error.h"
#include "protocol/os/fd.h"
#include "protocol/os/fd_stream.h"
#include "protocol/os/process.h"
#include "protocol/os/wakeup.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

// Ctrl+C and a closing terminal are for us, who tell the box; an ssh that dies of them could not.
constexpr const char* kShielded =
    "command -v \"$0\" >/dev/null || exit 71; trap '' INT QUIT HUP TSTP; exec \"$0\" \"$@\"";
constexpr int kNoSsh = 71;
constexpr std::chrono::seconds kAskTime{120};  // for somebody who types a passphrase
constexpr std::chrono::seconds kExitTime{2};   // from the end of its output to its exit status
constexpr int kSshFailed = 255;
constexpr int kNoSuchProgram = 127;
constexpr int kNotExecutable = 126;

// The ssh of one session. Reaped in the background; ends by itself once the session has closed.
struct Ssh {
  explicit Ssh(os::executor executor) : ended(executor) {}
  std::optional<os::Process> process;
  std::optional<int> status;
  os::Wakeup ended;

  static os::awaitable<void> reap(os::executor executor, std::shared_ptr<Ssh> self) {
    os::ExitStatus exit = co_await self->process->wait(executor);
    self->status = exit.signal != 0 ? 128 + exit.signal : exit.status;
    self->ended.notify();
  }
  void give_up() {
    if (!status) {
      static_cast<void>(process->kill(SIGTERM));
    }
  }
};

std::string shown(const Box& box) { return "the box " + box.name + " (" + box.place() + ")"; }

UserError ssh_ended(const Box& box, int status, const std::string& why) {
  std::string by_hand = "`ssh " + wire::shell_quote(box.via_ssh) + " true`";
  std::string program = box.agent.empty() ? kAgentProgram : box.agent;
  if (status == kNoSsh) {
    return UserError(
        "box", "cannot reach " + shown(box) + ": there is no ssh to run",
        "Install an OpenSSH client, or name one with SANDBOX_SSH. Nothing was changed.");
  }
  if (status == kSshFailed) {
    return UserError("box", "cannot reach " + shown(box) + ": ssh failed, see above",
                     by_hand + " has to work by itself. Nothing was changed.");
  }
  if (status == kNoSuchProgram || status == kNotExecutable) {
    return UserError("agent", "there is no " + wire::printable(program, 200) + " on " + shown(box),
                     "Install it there, or say where it is: sandbox boxes edit --name " +
                         wire::shell_quote(box.name) + " --agent PROGRAM. Nothing was changed.");
  }
  if (status != 0) {
    return UserError("agent",
                     "no agent can be reached on " + shown(box) + ": " +
                         wire::printable(program, 200) + " ended with status " +
                         std::to_string(status) + ", see above",
                     "Does one run there, with the state directory " +
                         wire::printable(box.state.empty() ? kAgentState : box.state, 200) +
                         "? Nothing was changed.");
  }
  return UserError("agent", "what answers on " + shown(box) + " is no agent: " + why,
                   "Does the login shell there print something? " + by_hand +
                       " has to print nothing. Nothing was changed.");
}

UserError other_protocol(const Box& box, const wire::Info& info) {
  bool older = info.protocol < wire::kProtocolVersion;
  return UserError("agent",
                   "the agent on " + shown(box) + " speaks protocol " +
                       std::to_string(info.protocol) + ", this CLI " +
                       std::to_string(wire::kProtocolVersion),
                   (older ? "Update the agent there: sandbox update --box " +
                                wire::shell_quote(box.name) + " --force-command"
                          : std::string("Update sandbox here")) +
                       ". Nothing was changed.");
}

struct Opened {
  std::shared_ptr<Ssh> ssh;
  std::unique_ptr<Session> session;
};

Opened start(Context& context, const Box& box, const std::vector<std::string>& argv) {
  auto to_ssh = os::make_pipe();
  auto from_ssh = os::make_pipe();
  if (!to_ssh || !from_ssh) {
    throw UserError("box", "cannot make a pipe: " + (to_ssh ? from_ssh : to_ssh).error().what);
  }
  os::Spawn spawn;
  spawn.argv = argv;
  spawn.env = context.environment.variables;
  spawn.stdin_fd = to_ssh->read.get();
  spawn.stdout_fd = from_ssh->write.get();
  context.trace.event(wire::shell_join(argv));
  auto process = os::Process::start(spawn);
  if (!process) {
    throw UserError("box", "cannot run ssh: " + process.error().what, "Install an OpenSSH client.");
  }
  Opened opened;
  opened.ssh = std::make_shared<Ssh>(context.executor);
  opened.ssh->process = std::move(*process);
  os::spawn(context.executor, "ssh", Ssh::reap(context.executor, opened.ssh));
  auto stream =
      os::FdStream::pair(context.executor, std::move(from_ssh->read), std::move(to_ssh->write));
  opened.session = std::make_unique<Session>(context.executor, std::move(stream), context.trace,
                                             "the box " + box.name);
  return opened;
}

// Says which protocol we speak, and waits for the agent to say who it is.
os::awaitable<std::unique_ptr<Session>> open(Context& context, Box box,
                                             std::chrono::milliseconds time, bool may_ask) {
  auto connect_time =
      std::max(std::chrono::duration_cast<std::chrono::seconds>(time), std::chrono::seconds(1));
  Opened opened =
      start(context, box, bridge_command(box, context.environment, connect_time, may_ask));
  opened.session->send(0, wire::SessionStart{wire::kProtocolVersion});
  auto deadline =
      std::chrono::steady_clock::now() + (may_ask ? std::chrono::milliseconds(kAskTime) : time);
  std::optional<Session::Incoming> answer;
  std::string broken;
  try {
    answer = co_await opened.session->next_until(deadline);
  } catch (const UserError& error) {
    broken = error.what();
  }
  if (!broken.empty()) {
    auto exit_deadline = std::chrono::steady_clock::now() + kExitTime;
    while (!opened.ssh->status && std::chrono::steady_clock::now() < exit_deadline) {
      co_await opened.ssh->ended.wait_until(exit_deadline);
    }
    opened.ssh->give_up();
    throw ssh_ended(box, opened.ssh->status.value_or(0), broken);
  }
  if (!answer) {
    opened.ssh->give_up();
    throw UserError("box", shown(box) + " does not answer in time",
                    "Is it on, and does `ssh " + wire::shell_quote(box.via_ssh) +
                        " true` work by itself? Nothing was changed.");
  }
  if (const auto* failed = std::get_if<wire::Failed>(&answer->message)) {
    throw UserError("agent",
                    "the agent on " + shown(box) +
                        " opens no session: " + wire::printable(failed->message, 400),
                    "Are both programs of the same version? Nothing was changed.");
  }
  const auto* info = std::get_if<wire::Info>(&answer->message);
  if (info == nullptr) {
    throw ssh_ended(box, 0, "it does not say who it is");
  }
  if (info->protocol != wire::kProtocolVersion) {
    throw other_protocol(box, *info);
  }
  co_return std::move(opened.session);
}

class BridgeConnection : public Connection {
 public:
  BridgeConnection(Context& context, Box box, std::chrono::milliseconds time, bool may_ask,
                   std::unique_ptr<Session> first)
      : Connection(std::move(box)),
        context_(context),
        time_(time),
        may_ask_(may_ask),
        spare_(std::move(first)) {}

  os::awaitable<std::unique_ptr<Session>> open_session(Trace&) override {
    std::unique_ptr<Session> session = std::move(spare_);
    if (!session || !session->is_open()) {
      session = co_await open(context_, box(), time_, may_ask_);
    }
    co_return session;
  }

 private:
  Context& context_;
  std::chrono::milliseconds time_;
  bool may_ask_;
  std::unique_ptr<Session> spare_;  // opened to see whether the box answers
};

}  // namespace

std::vector<std::string> bridge_command(const Box& box, const Environment& environment,
                                        std::chrono::seconds connect_time, bool may_ask) {
  std::string ssh = environment.get("SANDBOX_SSH");
  std::vector<std::string> argv = {"/bin/sh",
                                   "-c",
                                   kShielded,
                                   ssh.empty() ? "ssh" : ssh,
                                   "-T",
                                   "-o",
                                   "RemoteCommand=none",
                                   "-o",
                                   "ClearAllForwardings=yes",
                                   "-o",
                                   "ConnectTimeout=" + std::to_string(connect_time.count())};
  if (!may_ask) {
    argv.insert(argv.end(), {"-o", "BatchMode=yes"});
  }
  argv.insert(argv.end(), {"--", box.via_ssh,
                           wire::shell_quote(box.agent.empty() ? kAgentProgram : box.agent) +
                               " bridge --state " +
                               wire::shell_quote(box.state.empty() ? kAgentState : box.state)});
  return argv;
}

os::awaitable<std::shared_ptr<Connection>> connect_bridge(Context& context, Box box,
                                                          std::chrono::milliseconds time,
                                                          bool may_ask) {
  std::unique_ptr<Session> first = co_await open(context, box, time, may_ask);
  auto connection =
      std::make_shared<BridgeConnection>(context, std::move(box), time, may_ask, std::move(first));
  co_return connection;
}

}  // namespace cli
