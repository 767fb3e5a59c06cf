#include "agent/plain_exec.h"

#include "agent/recovery.h"
#include "agent/relay.h"
#include "agent/sandboxes.h"
#include "agent/supervisors.h"
#include "protocol/os/paths.h"
#include "protocol/wire/limits.h"
#include "protocol/wire/quoting.h"

namespace agent {
namespace {

namespace os = protocol::os;
namespace wire = protocol::wire;
using os::awaitable;
using wire::Errc;
using wire::FrameKind;

constexpr std::uint32_t kRequest = 1;
constexpr int kNotRun = 255;  // as ssh says that it was not the command

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// One command. Kept by its coroutines: the one that reads the supervisor, and those that bring
// stdin and events.
class PlainExec : public std::enable_shared_from_this<PlainExec> {
 public:
  PlainExec(Services& services, std::shared_ptr<protocol::ssh::ServerChannel> channel,
            std::unique_ptr<os::FrameStream> frames)
      : services_(services), channel_(std::move(channel)), frames_(std::move(frames)) {}

  // False when the supervisor went without having said how the command ended.
  awaitable<bool> run(wire::Exec exec);
  const std::string& job() const { return job_; }  // empty: none was started

 private:
  static awaitable<void> bring_input(std::shared_ptr<PlainExec> self);
  static awaitable<void> bring_events(std::shared_ptr<PlainExec> self);
  static awaitable<void> watch_client(std::shared_ptr<PlainExec> self);
  awaitable<void> deliver(wire::Frame frame);
  awaitable<bool> on_message(const wire::Message& message);  // false: this was the last

  Services& services_;
  std::shared_ptr<protocol::ssh::ServerChannel> channel_;
  std::unique_ptr<os::FrameStream> frames_;
  std::string job_;
  bool over_ = false;      // the command has ended, or never began
  bool vanished_ = false;  // the client has
};

awaitable<bool> PlainExec::run(wire::Exec exec) {
  auto self = shared_from_this();
  frames_->send(kRequest, exec);
  os::spawn(services_.executor, "exec input", bring_input(self));
  os::spawn(services_.executor, "exec events", bring_events(self));
  os::spawn(services_.executor, "exec client", watch_client(self));
  bool more = true;
  while (more) {
    auto frame = co_await frames_->read();
    if (!frame || !*frame) {
      break;
    }
    if ((*frame)->kind != FrameKind::control) {
      co_await deliver(std::move(**frame));
      continue;
    }
    auto message = wire::decode((*frame)->payload);
    if (!message) {
      break;
    }
    more = co_await on_message(*message);
  }
  if (!over_ && !vanished_) {
    over_ = true;
    co_await refuse_exec(channel_, "sandbox: the sandbox's supervisor ended", kNotRun);
  }
  over_ = true;
  frames_->close();
  channel_->close();
  co_return !more;
}

awaitable<void> PlainExec::deliver(wire::Frame frame) {
  if (frame.request != kRequest || frame.payload.empty()) {
    co_return;
  }
  if (!vanished_) {
    auto bytes = bytes_of(frame.payload);
    if (frame.kind == FrameKind::output) {
      auto written = co_await channel_->write(bytes);
      (void)written;  // a closed channel is seen by watch_client
    } else if (frame.kind == FrameKind::error) {
      auto written = co_await channel_->write_error(bytes);
      (void)written;
    }
  }
  frames_->consumed(frame.kind, kRequest, frame.payload.size());
}

awaitable<bool> PlainExec::on_message(const wire::Message& message) {
  if (std::holds_alternative<wire::Ended>(message)) {
    co_return false;
  }
  if (const auto* started = std::get_if<wire::Started>(&message)) {
    job_ = started->job;
    co_return true;
  }
  if (const auto* exited = std::get_if<wire::Exited>(&message)) {
    over_ = true;
    if (vanished_) {
      co_return true;  // `ended` is still to come
    }
    for (const std::string& name : exited->leftovers) {
      std::string line =
          "sandbox: ended, because the command left it behind: " + wire::printable(name, 200) +
          "\r\n";
      auto written = co_await channel_->write_error(bytes_of(line));
      (void)written;  // a closed channel is seen by watch_client
    }
    if (exited->signal.empty()) {
      auto told = co_await channel_->exit_status(exited->status);
      (void)told;
    } else {
      auto told = co_await channel_->exit_signal(exited->signal, exited->core_dumped);
      (void)told;
    }
    co_return false;
  }
  if (const auto* failed = std::get_if<wire::Failed>(&message)) {
    over_ = true;
    int status = wire::errc_from_name(failed->code) == Errc::not_found ? 127 : kNotRun;
    if (!vanished_) {
      co_await refuse_exec(channel_, "sandbox: " + failed->message, status);
    }
    co_return vanished_;
  }
  if (const auto* notice = std::get_if<wire::Notice>(&message); notice != nullptr && !vanished_) {
    std::string line = "sandbox: " + wire::printable(notice->text) + "\r\n";
    auto written = co_await channel_->write_error(bytes_of(line));
    (void)written;
  }
  co_return true;
}

awaitable<void> PlainExec::bring_input(std::shared_ptr<PlainExec> self) {
  std::vector<std::byte> buffer(wire::kMaxBulkBytes);
  while (!self->over_) {
    // Nothing is taken from the client that the command has no room for.
    auto room = co_await self->frames_->sendable(FrameKind::input, kRequest);
    if (!room) {
      co_return;
    }
    auto count = co_await self->channel_->read_some(buffer);
    if (!count || *count == 0) {
      break;
    }
    std::string_view bytes(reinterpret_cast<const char*>(buffer.data()), *count);
    auto sent = co_await self->frames_->send_bulk(FrameKind::input, kRequest, bytes);
    if (!sent) {
      co_return;
    }
  }
  self->frames_->end_bulk(FrameKind::input, kRequest);
}

awaitable<void> PlainExec::bring_events(std::shared_ptr<PlainExec> self) {
  while (!self->over_) {
    auto event = co_await self->channel_->next_event();
    if (!event) {
      co_return;
    }
    if (self->frames_->queued_control_bytes() > kMaxRelayControlBytes) {
      self->channel_->close();  // it sends them faster than the sandbox takes them
      co_return;
    }
    if (const auto* window = std::get_if<protocol::ssh::WindowChange>(&*event)) {
      self->frames_->send(kRequest, wire::Window{window->rows, window->columns});
    } else if (const auto* signal = std::get_if<protocol::ssh::SignalRequest>(&*event)) {
      self->frames_->send(kRequest, wire::Signal{signal->name});
    }
  }
}

awaitable<void> PlainExec::watch_client(std::shared_ptr<PlainExec> self) {
  co_await self->channel_->closed();
  if (!self->over_) {
    self->vanished_ = true;
    self->frames_->send(0, wire::Hangup{});
  }
}

}  // namespace

os::awaitable<void> refuse_exec(std::shared_ptr<protocol::ssh::ServerChannel> channel,
                                std::string text, int status) {
  text += "\r\n";
  auto written = co_await channel->write_error(bytes_of(text));
  (void)written;
  auto ended = co_await channel->exit_status(status);
  (void)ended;
}

os::awaitable<void> serve_plain_exec(Services& services,
                                     std::shared_ptr<protocol::ssh::ServerChannel> channel,
                                     protocol::ssh::ExecRequest request, std::string sandbox,
                                     std::string user) {
  channel->accept();
  SandboxUse who;
  who.user = user;
  who.verb = request.command.empty() ? "shell" : "exec";
  who.command = request.command;
  std::function<void()> on_end = [channel] { channel->close(); };
  auto use = co_await services.sandboxes.use_when_decided(sandbox, who, on_end);
  if (!use) {
    co_await refuse_exec(channel, "sandbox: " + use.error().what, kNotRun);
    co_return;
  }
  wire::Hello hello;
  hello.user = user;
  hello.version = services.info.version;
  hello.connection = os::random_hex(16);
  std::string name = hello.connection;
  auto connection = co_await services.supervisors.connect(services.sandboxes.directory(sandbox),
                                                          std::move(hello));
  if (!connection) {
    co_await refuse_exec(channel, "sandbox: " + connection.error().what, kNotRun);
    co_return;
  }
  wire::Exec exec;
  exec.script = std::move(request.command);
  exec.env = std::move(request.env);
  exec.terminal = request.terminal;
  auto run = std::make_shared<PlainExec>(services, channel, std::move(connection->frames));
  bool ended = co_await run->run(std::move(exec));
  if (!ended) {
    // Until what it ran has ended this connection has its lock.
    co_await recover(services, sandbox, user, name, run->job());
  }
}

}  // namespace agent
