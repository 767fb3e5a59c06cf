#include "cli/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include "protocol/os/fd.h"
#include "tests/support/catch.h"
#include "tests/support/loop.h"

namespace os = protocol::os;

namespace {

bool blocks(const os::Fd& fd) { return (::fcntl(fd.get(), F_GETFL) & O_NONBLOCK) == 0; }

os::awaitable<void> read_into(cli::StandardStreams& streams, std::optional<std::string>& read) {
  read = co_await streams.read_input();
}

}  // namespace

TEST_CASE("who shares our standard streams does not find them changed") {
  test::Loop loop;
  auto in = os::make_pipe();
  auto out = os::make_pipe();
  REQUIRE(in);
  REQUIRE(out);
  cli::Output output({});
  cli::StandardStreams streams(
      loop.executor(), output,
      {.raw = false, .input = in->read.get(), .output = out->write.get(), .error = -1});
  streams.begin();
  std::optional<std::string> read;
  loop.start(read_into(streams, read));
  loop.settle();  // it waits for input now
  CHECK(blocks(in->read));
  REQUIRE(os::write_all(in->write.get(), "typed"));
  while (!read) {
    loop.settle();
  }
  CHECK(*read == "typed");
  REQUIRE(loop.run(streams.write(protocol::wire::FrameKind::output, std::string(4096, 'x'))));
  CHECK(blocks(out->write));
  streams.end();
  CHECK(blocks(in->read));
}
