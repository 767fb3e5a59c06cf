#include "agent/tunnel.h"

#include "agent/sandboxes.h"
#include "agent/supervisors.h"
#include "protocol/wire/limits.h"

namespace agent {
namespace {

namespace os = protocol::os;
namespace wire = protocol::wire;
using os::awaitable;
using wire::FrameKind;

constexpr std::uint32_t kRequest = 1;

struct Tunnel {
  std::unique_ptr<os::FrameStream> frames;
  std::unique_ptr<os::ByteStream> client;
  bool cut = false;  // the sandbox or the client is gone
  bool input_ended = false;
  bool output_ended = false;

  // Each direction ends by itself; with the second of them the tunnel does.
  void close_when_both_ended() {
    if (input_ended && output_ended) {
      frames->close();
      client->close();
    }
  }
};

awaitable<void> bring_input(std::shared_ptr<Tunnel> tunnel) {
  std::vector<std::byte> buffer(wire::kMaxBulkBytes);
  while (true) {
    auto room = co_await tunnel->frames->sendable(FrameKind::input, kRequest);
    if (!room) {
      co_return;
    }
    auto count = co_await tunnel->client->read_some(buffer);
    if (!count) {
      tunnel->frames->close();  // the client is gone: so is the connection behind it
      co_return;
    }
    if (*count == 0) {
      break;
    }
    std::string_view bytes(reinterpret_cast<const char*>(buffer.data()), *count);
    auto sent = co_await tunnel->frames->send_bulk(FrameKind::input, kRequest, bytes);
    if (!sent) {
      co_return;
    }
  }
  tunnel->frames->end_bulk(FrameKind::input, kRequest);
  tunnel->input_ended = true;
  auto flushed = co_await tunnel->frames->flush();
  (void)flushed;  // gone is an end, too
  tunnel->close_when_both_ended();
}

awaitable<void> bring_output(std::shared_ptr<Tunnel> tunnel) {
  while (true) {
    auto frame = co_await tunnel->frames->read();
    if (!frame || !*frame) {
      break;
    }
    const wire::Frame& got = **frame;
    if (got.kind != FrameKind::output) {
      continue;
    }
    if (got.payload.empty()) {
      auto ended = co_await tunnel->client->shutdown_write();
      if (!ended) {
        break;
      }
      tunnel->output_ended = true;
      tunnel->close_when_both_ended();
      continue;
    }
    auto written = co_await tunnel->client->write(
        std::as_bytes(std::span(got.payload.data(), got.payload.size())));
    if (!written) {
      break;
    }
    tunnel->frames->consumed(FrameKind::output, kRequest, got.payload.size());
  }
  tunnel->frames->close();
  tunnel->client->close();
}

// Whether the supervisor could connect.
awaitable<bool> dialled(os::FrameStream& frames) {
  while (true) {
    auto frame = co_await frames.read();
    if (!frame || !*frame) {
      co_return false;
    }
    auto message = wire::decode((*frame)->payload);
    if (!message || std::holds_alternative<wire::Failed>(*message)) {
      co_return false;
    }
    if (std::holds_alternative<wire::Started>(*message)) {
      co_return true;
    }
  }
}

}  // namespace

bool is_loopback(const std::string& host) {
  return host == "127.0.0.1" || host == "localhost" || host == "::1";
}

os::awaitable<void> serve_tunnel(Services& services,
                                 std::unique_ptr<protocol::ssh::ForwardRequest> request,
                                 std::string sandbox, std::string user,
                                 std::function<void()>& cut) {
  if (!is_loopback(request->host())) {
    request->refuse();
    co_return;
  }
  auto tunnel = std::make_shared<Tunnel>();
  SandboxUse who;
  who.user = user;
  who.verb = "tunnel";
  who.command = "to port " + std::to_string(request->port());
  std::function<void()> close = [weak = std::weak_ptr<Tunnel>(tunnel)] {
    if (auto ending = weak.lock()) {
      ending->cut = true;
      if (ending->frames) {
        ending->frames->close();
      }
    }
  };
  cut = close;
  auto use = co_await services.sandboxes.use_when_decided(sandbox, who, close);
  if (!use) {
    request->refuse();
    co_return;
  }
  wire::Hello hello;
  hello.user = user;
  hello.version = services.info.version;
  auto connection = co_await services.supervisors.connect(services.sandboxes.directory(sandbox),
                                                          std::move(hello));
  if (!connection || tunnel->cut) {
    request->refuse();
    co_return;
  }
  tunnel->frames = std::move(connection->frames);
  tunnel->frames->send(kRequest, wire::Dial{request->port()});
  bool open = co_await dialled(*tunnel->frames);
  if (!open) {
    request->refuse();
    co_return;
  }
  tunnel->client = request->accept();
  os::spawn(services.executor, "tunnel input", bring_input(tunnel));
  co_await bring_output(tunnel);
}

}  // namespace agent
