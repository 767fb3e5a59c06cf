#include "cli/result_receiver.h"

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <utility>

#include "protocol/os/offload.h"
#include "protocol/os/wakeup.h"
#include "protocol/wire/limits.h"

namespace cli {
namespace asio = boost::asio;
namespace os = protocol::os;
namespace wire = protocol::wire;
using protocol::sync::Origin;

namespace {

// The store's end of the pipe, on a pool thread.
struct PackReader {
  explicit PackReader(os::executor executor) : ended(executor) {}
  bool done = false;
  wire::result<void> outcome;
  os::Wakeup ended;
};

os::awaitable<void> read_pack(asio::thread_pool* pool, std::shared_ptr<Origin> origin, os::Fd in,
                              std::vector<std::string> shallow,
                              std::shared_ptr<PackReader> reader) {
  auto work = [origin, in = std::move(in), shallow = std::move(shallow)]() mutable {
    return origin->read_pack(std::move(in), wire::kMaxPackBytes, shallow);
  };
  std::string escaped;
  try {
    reader->outcome = co_await os::offload(*pool, std::move(work));
  } catch (const std::exception& error) {
    escaped = error.what();
  }
  if (!escaped.empty()) {
    reader->outcome = wire::Failure(wire::Errc::io, escaped);
  }
  reader->done = true;
  reader->ended.notify();
}

}  // namespace

os::awaitable<Received> receive_result(os::executor executor, asio::thread_pool& pool,
                                       std::shared_ptr<Session> session, std::uint32_t request,
                                       std::shared_ptr<Origin> origin, std::string sandbox,
                                       wire::Result result) {
  auto queue = session->bulk(wire::FrameKind::result_pack, request);
  auto pipe = os::make_pipe();
  if (!pipe) {
    co_return pipe.error();
  }
  auto reader = std::make_shared<PackReader>(executor);
  os::spawn(executor, "result pack",
            read_pack(&pool, origin, std::move(pipe->read), result.shallow, reader));
  {
    asio::posix::stream_descriptor writer(executor, pipe->write.release());
    bool open = true;
    for (;;) {
      std::optional<std::string> bytes = co_await queue->next();
      if (!bytes) {
        break;
      }
      if (open) {
        boost::system::error_code error;
        co_await asio::async_write(writer, asio::buffer(*bytes),
                                   asio::redirect_error(asio::use_awaitable, error));
        open = !error;
      }
      session->frames().consumed(wire::FrameKind::result_pack, request, bytes->size());
    }
  }
  while (!reader->done) {
    co_await reader->ended.wait();
  }
  if (queue->broken()) {
    co_return wire::Failure(wire::Errc::gone, *queue->broken());
  }
  if (!reader->outcome) {
    co_return reader->outcome.error();
  }
  auto merge = [origin, sandbox, result] { return origin->merge(sandbox, result); };
  Received report = co_await os::offload(pool, std::move(merge));
  co_return report;
}

}  // namespace cli
