// An agent in this process, with a state directory of its own, and clients of it: session channels
// as our CLI opens them. Where a test wants to be the supervisor, it is a FakeSupervisor; else it
// is the real program.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "agent/agent.h"
#include "protocol/os/frame_stream.h"
#include "protocol/os/unix_socket.h"
#include "protocol/os/wakeup.h"
#include "protocol/ssh/client.h"
#include "protocol/wire/messages.h"
#include "tests/support/loop.h"
#include "tests/support/temporary_directory.h"

namespace test {

inline std::string sandbox_id(char digit) { return std::string(32, digit); }

class AgentWorld;

// Throws when it is not let in.
std::shared_ptr<protocol::ssh::ClientConnection> connect_to_agent(
    Loop& loop, std::uint16_t port, const protocol::ssh::PrivateKey& key, const std::string& user);

// One session channel.
class SessionClient {
 public:
  SessionClient(Loop& loop, std::shared_ptr<protocol::ssh::ClientConnection> connection);
  SessionClient(Loop& loop, std::shared_ptr<protocol::ssh::ClientConnection> connection,
                std::unique_ptr<protocol::os::ByteStream> stream);

  void send(std::uint32_t request, const protocol::wire::Message& message);
  // The next control frame, of any request. Throws at the end of the session. Bulk that comes
  // before it is kept.
  protocol::wire::Message next();
  // The next control frame, which has to be a T of this request. Throws otherwise, naming what
  // came.
  template <class T>
  T expect(std::uint32_t request);
  // Runs to the end of the session.
  void until_end();
  std::string bulk(protocol::wire::FrameKind kind, std::uint32_t request);
  bool bulk_ended(protocol::wire::FrameKind kind, std::uint32_t request) const {
    return ended_.count({kind, request}) > 0;
  }
  protocol::os::FrameStream& frames() { return *frames_; }
  // As a client that is killed: nothing is said.
  void vanish();
  // As a client that has what it wanted.
  void finish();

  // Makes the sandbox and binds.
  protocol::wire::Bound create(char digit, const std::string& user = "");
  struct Ran {
    int status = -1;
    std::string signal, out, err;
  };
  // The command under the lock, to its end: granted, exited, released.
  Ran run(std::uint32_t request, const std::string& script);
  // A chain sent ahead, without a sync: lock, command, release.
  void send_command(std::uint32_t request, const std::string& script);

  std::uint32_t last_request = 0;  // of what next() returned

 private:
  Loop& loop_;
  std::shared_ptr<protocol::ssh::ClientConnection> connection_;
  std::unique_ptr<protocol::os::FrameStream> frames_;
  std::map<std::pair<protocol::wire::FrameKind, std::uint32_t>, std::string> bulk_;
  std::set<std::pair<protocol::wire::FrameKind, std::uint32_t>> ended_;
};

class AgentWorld {
 public:
  explicit AgentWorld(std::function<void(agent::AgentSettings&)> tune = {});
  ~AgentWorld();

  // Until it listens. Throws what the agent threw.
  void start();
  // Tells it to stop and waits. What run() returned.
  bool stop();
  bool running() const { return agent_ != nullptr && !ended_; }
  // Until the agent has ended by itself.
  bool wait_for_end();

  SessionClient session(const std::string& user = "sandbox");
  std::shared_ptr<protocol::ssh::ClientConnection> connect(const std::string& user = "sandbox");
  protocol::ssh::PrivateKey& key() { return key_; }
  std::uint16_t port() const;
  std::filesystem::path state() const { return directory_ / "state"; }
  std::filesystem::path sandbox(char digit) const {
    return state() / "sandboxes" / sandbox_id(digit);
  }
  agent::Agent& agent() { return *agent_; }
  // Turns the loop until this is true.
  void until(const std::function<bool()>& condition);

  Loop loop;

 private:
  TemporaryDirectory directory_;
  agent::AgentSettings settings_;
  protocol::ssh::PrivateKey key_;
  std::unique_ptr<agent::Agent> agent_;
  bool ended_ = false;
  bool clean_ = false;
  std::exception_ptr failed_;
};

// Listens where a sandbox's supervisor would, and answers hello; the rest is the test's.
class FakeSupervisor {
 public:
  struct Connection {
    std::unique_ptr<protocol::os::FrameStream> frames;
    protocol::wire::Hello hello;
    std::deque<protocol::wire::Frame> came;  // not yet looked at
    std::vector<std::string> log;            // "1 exec", "1 pack", "0 hangup" ...
    bool reading = true;
    bool gone = false;
  };

  FakeSupervisor(AgentWorld& world, std::filesystem::path sandbox,
                 std::vector<protocol::wire::JobInfo> jobs = {});
  ~FakeSupervisor();

  // The n-th connection that said hello, once there is one.
  Connection& connection(std::size_t n);
  // Waits until this connection was told `name` for this request; what came before is forgotten.
  protocol::wire::Message expect(std::size_t n, std::uint32_t request, const std::string& name);
  bool has(std::size_t n, const std::string& entry) const;  // so far
  void send(std::size_t n, std::uint32_t request, const protocol::wire::Message& message) {
    connection(n).frames->send(request, message);
  }
  std::size_t connections() const { return connections_.size(); }
  Connection& connection_now(std::size_t n) { return *connections_.at(n); }

 private:
  static protocol::os::awaitable<void> accept(FakeSupervisor& self, std::shared_ptr<bool> alive);
  static protocol::os::awaitable<void> read(FakeSupervisor& self, std::shared_ptr<bool> alive,
                                            std::shared_ptr<Connection> connection);

  AgentWorld& world_;
  std::vector<protocol::wire::JobInfo> jobs_;
  protocol::os::UnixListener listener_;
  std::vector<std::shared_ptr<Connection>> connections_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// A client that holds the lock of sandbox 'a' with its chain at the supervisor.
struct Running {
  explicit Running(AgentWorld& world);
  SessionClient client;
  std::unique_ptr<FakeSupervisor> supervisor;
};

template <class T>
T SessionClient::expect(std::uint32_t request) {
  protocol::wire::Message message = next();
  T* wanted = std::get_if<T>(&message);
  if (wanted == nullptr || last_request != request) {
    throw std::runtime_error("expected " + std::string(protocol::wire::message_name(T{})) + " of " +
                             std::to_string(request) + ", got " + std::to_string(last_request) +
                             " " + protocol::wire::encode(message));
  }
  return std::move(*wanted);
}

}  // namespace test
