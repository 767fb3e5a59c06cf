#include "agent/bridge.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "agent/agent.h"
#include "protocol/os/fd_stream.h"
#include "protocol/os/unix_socket.h"
#include "protocol/wire/limits.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;

namespace {

constexpr int kCannot = 1;

// Until `from` has ended or `to` takes no more.
os::awaitable<void> copy(std::shared_ptr<os::ByteStream> from, std::shared_ptr<os::ByteStream> to) {
  std::array<std::byte, wire::kMaxBulkBytes> buffer;
  while (true) {
    auto count = co_await from->read_some(buffer);
    if (!count || *count == 0) {
      break;
    }
    auto written = co_await to->write(std::span(buffer).first(*count));
    if (!written) {
      break;
    }
  }
  auto ended = co_await to->shutdown_write();
  (void)ended;  // it may be gone
}

os::awaitable<void> join(os::executor ex, std::filesystem::path state) {
  auto agent = co_await os::connect_unix(ex, state / "agent.sock");
  if (!agent) {
    if (agent.error().code == wire::Errc::not_found || agent.error().code == wire::Errc::gone) {
      throw CannotRun(kCannot, "no agent runs with the state directory " + state.string() +
                                   "; start it on this box with `sandbox-agent serve --state " +
                                   state.string() + " --name NAME`");
    }
    throw CannotRun(kCannot, "cannot reach the agent: " + agent.error().what);
  }
  os::Fd in(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3));
  os::Fd out(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
  std::shared_ptr<os::ByteStream> client =
      os::FdStream::pair(ex, std::move(in), std::move(out), os::FdStream::Sharing::shared);
  std::shared_ptr<os::ByteStream> peer = std::move(*agent);
  // The client's end is passed on; the agent's is the end of it all.
  os::spawn(ex, "to the agent", copy(client, peer));
  co_await copy(peer, client);
  client->close();
  peer->close();
}

}  // namespace

int bridge(const std::filesystem::path& state) {
  boost::asio::io_context context(1);
  std::exception_ptr failed;
  auto work = join(context.get_executor(), std::filesystem::absolute(state));
  boost::asio::co_spawn(context, std::move(work), [&](std::exception_ptr escaped) {
    failed = std::move(escaped);
    context.stop();
  });
  context.run();
  if (failed) {
    std::rethrow_exception(failed);
  }
  return 0;
}

}  // namespace agent
