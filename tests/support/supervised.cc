#include "tests/support/supervised.h"

#include <stdexcept>

#include "protocol/os/unix_socket.h"

namespace test {

namespace os = protocol::os;
using wire::FrameKind;

Client::Client(Loop& l, std::unique_ptr<os::ByteStream> stream)
    : loop(l),
      frames(std::make_unique<os::FrameStream>(l.executor(), std::move(stream))),
      changed_(l.executor()) {
  loop.start(read(*this, alive_));
}

Client::~Client() {
  *alive_ = false;
  frames.reset();
  loop.settle();
}

os::awaitable<void> Client::read(Client& self, std::shared_ptr<bool> alive) {
  for (;;) {
    auto frame = co_await self.frames->read();
    if (!*alive) co_return;
    if (!frame || !*frame) break;
    wire::Frame& got = **frame;
    if (got.kind == FrameKind::control) {
      auto message = wire::decode(got.payload);
      if (!message) throw std::runtime_error("the supervisor sent nonsense: " + got.payload);
      self.order.emplace_back(wire::message_name(*message));
      self.messages_.push_back(std::move(*message));
    } else {
      std::string name = got.kind == FrameKind::output  ? "output"
                         : got.kind == FrameKind::error ? "error"
                                                        : "result_pack";
      if (got.payload.empty()) name += " end";
      if (self.order.empty() || self.order.back() != name) self.order.push_back(name);
      self.received += got.payload.size();
      if (self.consuming) {
        self.streams_[{got.request, got.kind}] += got.payload;
        self.frames->consumed(got.kind, got.request, got.payload.size());
      }
    }
    self.changed_.notify();
  }
  self.ended_ = true;
  self.changed_.notify();
}

void Client::run_until(const std::function<bool()>& done, const char* what) {
  auto wait = [](Client& self, const std::function<bool()>& condition) -> os::awaitable<bool> {
    auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    bool woken = true;
    while (woken && !condition() && !self.ended_)
      woken = co_await self.changed_.wait_until(deadline);
    co_return condition();
  };
  if (!loop.run(wait(*this, done)))
    throw std::runtime_error(std::string("never came: ") + what + (ended_ ? " (hung up)" : ""));
}

void Client::input(std::uint32_t request, std::string bytes) {
  loop.start([](Client& self, std::uint32_t number, std::string all) -> os::awaitable<void> {
    auto sent = co_await self.frames->send_bulk(FrameKind::input, number, all);
    (void)sent;
  }(*this, request, std::move(bytes)));
}

void Client::pack(std::uint32_t request, std::string bytes) {
  loop.start([](Client& self, std::shared_ptr<bool> alive, std::uint32_t number,
                std::string all) -> os::awaitable<void> {
    auto sent = co_await self.frames->send_bulk(FrameKind::pack, number, all);
    if (sent && *alive) self.frames->end_bulk(FrameKind::pack, number);
  }(*this, alive_, request, std::move(bytes)));
}

void Client::sync(std::uint32_t request, std::string snapshot, std::string pack_bytes,
                  std::string base, std::string merged) {
  wire::SyncStart start;
  start.snapshot = std::move(snapshot);
  start.base = std::move(base);
  start.merged = std::move(merged);
  send(request, start);
  pack(request, std::move(pack_bytes));
  send(request, wire::SyncEnd{});
}

void Client::exec(std::uint32_t request, std::string script) {
  wire::Exec exec;
  exec.script = std::move(script);
  send(request, exec);
}

wire::Message Client::next() {
  run_until([this] { return !messages_.empty(); }, "a message");
  wire::Message message = std::move(messages_.front());
  messages_.pop_front();
  return message;
}

void Client::wait_output(std::uint32_t request, const std::string& text) {
  run_until([&] { return output(request).find(text) != std::string::npos; }, text.c_str());
}

bool Client::gone() {
  run_until([this] { return ended_; }, "the end");
  return ended_;
}

Supervised::Supervised() {
  options.directory = directory / "sandbox";
  options.environment = os::environment();
  options.version = "test";
  options.end_times.interrupt = std::chrono::milliseconds(1500);
  options.end_times.terminate = std::chrono::milliseconds(1000);
  std::filesystem::create_directories(workspace());
}

void Supervised::start() {
  auto opened = agent::supervisor::Supervisor::open(
      loop.executor(), options,
      [this]() -> wire::result<std::unique_ptr<protocol::sync::Workspace>> {
        return std::unique_ptr<protocol::sync::Workspace>(new FakeWorkspace(script));
      });
  if (!opened) throw std::runtime_error("the supervisor did not open: " + opened.error().what);
  supervisor = std::move(*opened);
  stopped_ = false;
  loop.start(run(*this));
}

os::awaitable<void> Supervised::run(Supervised& self) {
  co_await self.supervisor->run();
  self.stopped_ = true;
}

void Supervised::wait_stopped() {
  loop.run([](Supervised& self) -> os::awaitable<void> {
    auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!self.stopped_) {
      if (std::chrono::steady_clock::now() > deadline)
        throw std::runtime_error("the supervisor did not stop");
      co_await os::pause(self.loop.executor(), std::chrono::milliseconds(5));
    }
  }(*this));
}

Supervised::~Supervised() {
  if (!supervisor || stopped_) return;
  script->release();
  supervisor->shutdown();
  try {
    wait_stopped();
  } catch (const std::exception&) {
    std::abort();  // it would run on in freed memory
  }
}

std::unique_ptr<Client> Supervised::connect_silent() {
  auto stream = loop.run(os::connect_unix(loop.executor(), options.directory / "supervisor.sock"));
  if (!stream) throw std::runtime_error("cannot connect: " + stream.error().what);
  return std::make_unique<Client>(loop, std::move(*stream));
}

std::unique_ptr<Client> Supervised::connect(std::string origin, std::string fence) {
  wire::Hello ours;
  ours.origin = std::move(origin);
  ours.user = "me";
  ours.fence = std::move(fence);
  return connect_as(std::move(ours));
}

std::unique_ptr<Client> Supervised::connect_as(wire::Hello ours) {
  if (!supervisor) start();
  auto client = connect_silent();
  client->send(0, ours);
  hello = client->expect<wire::Hello>();
  return client;
}

}  // namespace test
