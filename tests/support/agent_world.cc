#include "tests/support/agent_world.h"

#include "agent/authorized_keys.h"
#include "protocol/os/paths.h"
#include "tests/support/isolation.h"
#include "tests/support/places.h"

namespace test {

namespace os = protocol::os;
namespace wire = protocol::wire;
using os::awaitable;

namespace {

template <class T>
T must(wire::result<T> r) {
  if (!r) {
    throw std::runtime_error(std::string(wire::name(r.error().code)) + ": " + r.error().what);
  }
  if constexpr (!std::is_void_v<T>) {
    return std::move(*r);
  }
}

}  // namespace

// ---- AgentWorld ------------------------------------------------------------------------------

AgentWorld::AgentWorld(std::function<void(agent::AgentSettings&)> tune)
    : key_(must(protocol::ssh::PrivateKey::generate_ed25519())) {
  settings_.serve.state = state();
  settings_.serve.name = "local";
  settings_.serve.slots = 0;
  settings_.serve.trust_claimed_users = true;
  settings_.serve.isolation = agent::isolation_mode(isolation_under_test());
  settings_.program = std::filesystem::path(SANDBOX_BIN_DIR) / "sandbox-agent";
  settings_.stop_grace = std::chrono::milliseconds(200);
  if (tune) {
    tune(settings_);
  }
  must(os::make_private_directory(state()));
  must(agent::authorize_key(state() / "authorized_keys", key_.public_key().text(), "ann"));
}

AgentWorld::~AgentWorld() {
  try {
    stop();
  } catch (...) {
    // The test has failed already, or will by what it checks.
  }
}

void AgentWorld::until(const std::function<bool()>& condition) {
  loop.run([](AgentWorld& self, const std::function<bool()>& c) -> awaitable<void> {
    while (!c()) {
      co_await os::pause(self.loop.executor(), std::chrono::milliseconds(1));
    }
  }(*this, condition));
}

void AgentWorld::start() {
  ended_ = false;
  agent_ = std::make_unique<agent::Agent>(loop.executor(), settings_);
  loop.start([](AgentWorld& self) -> awaitable<void> {
    try {
      self.clean_ = co_await self.agent_->run();
    } catch (...) {
      self.failed_ = std::current_exception();
    }
    self.ended_ = true;
  }(*this));
  until([this] { return ended_ || !agent_->address().empty(); });
  if (failed_) {
    std::rethrow_exception(std::exchange(failed_, nullptr));
  }
}

bool AgentWorld::wait_for_end() {
  until([this] { return ended_; });
  loop.settle();
  agent_.reset();
  loop.settle();
  return clean_;
}

bool AgentWorld::stop() {
  if (!agent_) {
    return true;
  }
  agent_->stop();
  return wait_for_end();
}

std::uint16_t AgentWorld::port() const {
  const std::string& address = agent_->address();
  return static_cast<std::uint16_t>(std::stoul(address.substr(address.rfind(':') + 1)));
}

std::shared_ptr<protocol::ssh::ClientConnection> AgentWorld::connect(const std::string& user) {
  return connect_to_agent(loop, port(), key_, user);
}

SessionClient AgentWorld::session(const std::string& user) {
  return SessionClient(loop, connect(user));
}

// ---- SessionClient ---------------------------------------------------------------------------

std::shared_ptr<protocol::ssh::ClientConnection> connect_to_agent(
    Loop& loop, std::uint16_t port, const protocol::ssh::PrivateKey& key, const std::string& user) {
  protocol::ssh::ClientOptions options;
  options.host = "127.0.0.1";
  options.port = port;
  options.user = user;
  options.check_host_key = [](const auto&) { return true; };
  return must(loop.run(protocol::ssh::connect(loop.executor(), key, options)));
}

SessionClient::SessionClient(Loop& loop,
                             std::shared_ptr<protocol::ssh::ClientConnection> connection)
    : SessionClient(loop, connection,
                    must(loop.run(connection->exec("__rwx_sandbox_session__ {\"version\":1}")))) {}

SessionClient::SessionClient(Loop& loop,
                             std::shared_ptr<protocol::ssh::ClientConnection> connection,
                             std::unique_ptr<os::ByteStream> stream)
    : loop_(loop),
      connection_(std::move(connection)),
      frames_(std::make_unique<os::FrameStream>(loop.executor(), std::move(stream))) {}

void SessionClient::send(std::uint32_t request, const wire::Message& message) {
  frames_->send(request, message);
}

wire::Message SessionClient::next() {
  while (true) {
    auto frame = must(loop_.run(frames_->read()));
    if (!frame) {
      throw std::runtime_error("the session ended");
    }
    if (frame->kind == wire::FrameKind::control) {
      last_request = frame->request;
      return must(wire::decode(frame->payload));
    }
    bulk_[{frame->kind, frame->request}] += frame->payload;
    if (frame->payload.empty()) ended_.insert({frame->kind, frame->request});
    frames_->consumed(frame->kind, frame->request, frame->payload.size());
  }
}

void SessionClient::until_end() {
  while (true) {
    auto frame = loop_.run(frames_->read());
    if (!frame || !*frame) {
      return;
    }
  }
}

std::string SessionClient::bulk(wire::FrameKind kind, std::uint32_t request) {
  return bulk_[{kind, request}];
}

void SessionClient::vanish() {
  frames_->close();
  connection_->close();
}

void SessionClient::finish() {
  auto finished = loop_.run(frames_->finish());
  must(std::move(finished));
  until_end();
}

wire::Bound SessionClient::create(char digit, const std::string& user) {
  wire::Create create;
  create.sandbox = sandbox_id(digit);
  create.origin = std::string(32, 'e');
  create.user = user;
  create.project = "/home/ann/project";
  create.branch = "main";
  send(0, create);
  return expect<wire::Bound>(0);
}

SessionClient::Ran SessionClient::run(std::uint32_t request, const std::string& script) {
  send_command(request, script);
  Ran ran;
  while (true) {
    wire::Message message = next();
    if (last_request != request) {
      continue;
    }
    if (const auto* exited = std::get_if<wire::Exited>(&message)) {
      ran.status = exited->status;
      ran.signal = exited->signal;
    } else if (std::holds_alternative<wire::Released>(message)) {
      break;
    } else if (std::holds_alternative<wire::Failed>(message) ||
               std::holds_alternative<wire::Refused>(message) ||
               std::holds_alternative<wire::Queued>(message)) {
      throw std::runtime_error("not run: " + wire::encode(message));
    }
  }
  ran.out = bulk(wire::FrameKind::output, request);
  ran.err = bulk(wire::FrameKind::error, request);
  return ran;
}

void SessionClient::send_command(std::uint32_t request, const std::string& script) {
  wire::LockRequested lock;
  lock.verb = "exec";
  lock.command = script;
  wire::Exec exec;
  exec.script = script;
  send(request, lock);
  send(request, exec);
  send(request, wire::LockReleased{});
}

// ---- FakeSupervisor --------------------------------------------------------------------------

FakeSupervisor::FakeSupervisor(AgentWorld& world, std::filesystem::path sandbox,
                               std::vector<wire::JobInfo> jobs)
    : world_(world),
      jobs_(std::move(jobs)),
      listener_(
          must(os::UnixListener::listen(world.loop.executor(), sandbox / "supervisor.sock"))) {
  world.loop.start(accept(*this, alive_));
}

FakeSupervisor::~FakeSupervisor() {
  *alive_ = false;
  listener_.remove();
  listener_.close();
  for (const auto& connection : connections_) {
    connection->frames->close();
  }
}

awaitable<void> FakeSupervisor::accept(FakeSupervisor& self, std::shared_ptr<bool> alive) {
  while (true) {
    auto stream = co_await self.listener_.accept();
    if (!*alive || !stream) {
      co_return;
    }
    auto connection = std::make_shared<Connection>();
    connection->frames =
        std::make_unique<os::FrameStream>(self.world_.loop.executor(), std::move(*stream));
    self.world_.loop.start(read(self, alive, connection));
  }
}

awaitable<void> FakeSupervisor::read(FakeSupervisor& self, std::shared_ptr<bool> alive,
                                     std::shared_ptr<Connection> connection) {
  while (true) {
    while (*alive && !connection->reading) {
      co_await os::pause(self.world_.loop.executor(), std::chrono::milliseconds(1));
    }
    auto frame = co_await connection->frames->read();
    if (!*alive || !frame || !*frame) {
      break;
    }
    std::string entry = std::to_string((*frame)->request) + " ";
    if ((*frame)->kind == wire::FrameKind::control) {
      auto message = must(wire::decode((*frame)->payload));
      entry += wire::message_name(message);
      if (auto* hello = std::get_if<wire::Hello>(&message)) {
        connection->hello = *hello;
        wire::Hello answer;
        answer.pid = 4711;
        answer.jobs = self.jobs_;
        connection->frames->send(0, answer);
        self.connections_.push_back(connection);
        continue;
      }
    } else {
      entry += "bulk " + std::to_string(static_cast<int>((*frame)->kind));
      connection->frames->consumed((*frame)->kind, (*frame)->request, (*frame)->payload.size());
    }
    connection->log.push_back(entry);
    connection->came.push_back(std::move(**frame));
  }
  connection->gone = true;
}

FakeSupervisor::Connection& FakeSupervisor::connection(std::size_t n) {
  world_.until([&] { return connections_.size() > n; });
  return *connections_[n];
}

wire::Message FakeSupervisor::expect(std::size_t n, std::uint32_t request,
                                     const std::string& name) {
  Connection& from = connection(n);
  while (true) {
    world_.until([&] { return !from.came.empty() || from.gone; });
    if (from.came.empty()) {
      throw std::runtime_error("the agent hung up without " + name);
    }
    wire::Frame frame = std::move(from.came.front());
    from.came.pop_front();
    if (frame.kind != wire::FrameKind::control || frame.request != request) {
      continue;
    }
    auto message = must(wire::decode(frame.payload));
    if (wire::message_name(message) == name) {
      return message;
    }
  }
}

bool FakeSupervisor::has(std::size_t n, const std::string& entry) const {
  if (n >= connections_.size()) {
    return false;
  }
  const auto& log = connections_[n]->log;
  return std::find(log.begin(), log.end(), entry) != log.end();
}

Running::Running(AgentWorld& world) : client(world.session()) {
  client.create('a');
  supervisor = std::make_unique<FakeSupervisor>(world, world.sandbox('a'));
  client.send_command(1, "make");
  client.expect<wire::Granted>(1);
  supervisor->expect(0, 1, "exec");
  supervisor->send(0, 1, wire::Started{"job", 1});
  client.expect<wire::Started>(1);
}

}  // namespace test
