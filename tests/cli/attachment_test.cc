// Watching a detached job, against an agent that follows a script, over a stream in memory.
#include "cli/attachment.h"

#include <functional>

#include "cli/error.h"
#include "tests/support/catch.h"
#include "tests/support/loop.h"
#include "tests/support/memory_stream.h"

namespace {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::FrameKind;

class Streams : public cli::CommandStreams {
 public:
  void begin() override { began = true; }
  void end() override { ended = true; }
  os::awaitable<wire::result<void>> write(FrameKind stream, std::string bytes) override {
    wire::result<void> written;
    if (closed) {
      written = wire::Failure(wire::Errc::gone, "closed");
    } else {
      (stream == FrameKind::output ? out : error) += bytes;
    }
    co_return written;
  }
  os::awaitable<std::optional<std::string>> read_input() override {
    std::optional<std::string> none;
    co_return none;
  }
  std::string out, error;
  bool began = false, ended = false, closed = false;
};

struct World {
  World() {
    auto [mine, theirs] = test::MemoryStream::pair(loop.executor());
    agent = std::make_unique<os::FrameStream>(loop.executor(), std::move(theirs));
    session = std::make_shared<cli::Session>(loop.executor(), std::move(mine), trace, "the box");
    watch = std::make_unique<cli::Attachment>(loop.executor(), session, streams, output);
  }
  ~World() {
    session->close();
    agent->close();
    loop.settle();
  }
  cli::Attachment::Outcome run(std::function<os::awaitable<void>(World&)> script) {
    loop.start(play(std::move(script)));
    return loop.run(watch->run("abcd", "me"));
  }
  os::awaitable<void> play(std::function<os::awaitable<void>(World&)> script) {
    auto frame = co_await agent->read();
    REQUIRE((frame && *frame));
    auto message = wire::decode((*frame)->payload);
    REQUIRE(message);
    const auto* attach = std::get_if<wire::Attach>(&*message);
    REQUIRE(attach != nullptr);
    CHECK(attach->job == "abcd");
    CHECK(attach->user == "me");
    request = (*frame)->request;
    CHECK(request > 0);
    co_await script(*this);
  }
  void say(const wire::Message& message) { agent->send(request, message); }
  os::awaitable<void> print(FrameKind kind, std::string bytes, bool last) {
    auto sent = co_await agent->send_bulk(kind, request, bytes);
    CHECK(sent);
    if (last) {
      agent->end_bulk(kind, request);
    }
  }

  test::Loop loop;
  cli::OutputOptions options = [] {
    cli::OutputOptions quiet;
    quiet.json = true;
    return quiet;
  }();
  cli::Output output{options};
  cli::Trace trace{output, false};
  Streams streams;
  std::unique_ptr<os::FrameStream> agent;
  std::shared_ptr<cli::Session> session;
  std::unique_ptr<cli::Attachment> watch;
  std::uint32_t request = 0;
};

}  // namespace

TEST_CASE("whoever attaches sees all output, then the end") {
  World world;
  auto outcome = world.run([](World& agent) -> os::awaitable<void> {
    agent.say(wire::Started{"abcd", 7});
    co_await agent.print(FrameKind::output, "one\n", false);
    co_await agent.print(FrameKind::output, "two\n", true);
    co_await agent.print(FrameKind::error, "oops\n", true);
    wire::Exited exited;
    exited.status = 3;
    agent.say(exited);
  });
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->status == 3);
  CHECK(world.streams.out == "one\ntwo\n");
  CHECK(world.streams.error == "oops\n");
  CHECK(world.streams.began);
  CHECK(world.streams.ended);
}

TEST_CASE("a job that is not there is refused, and nothing began") {
  World world;
  auto outcome = world.run([](World& agent) -> os::awaitable<void> {
    agent.say(wire::Failed{"attach", "not_found", "no job abcd"});
    co_return;
  });
  REQUIRE(outcome.failed);
  CHECK(outcome.failed->code == "not_found");
  CHECK_FALSE(world.streams.began);
}

TEST_CASE("whoever leaves does not wait for the job") {
  World world;
  auto outcome = world.run([](World& agent) -> os::awaitable<void> {
    agent.say(wire::Started{"abcd", 7});
    co_await agent.print(FrameKind::output, "one\n", false);
    while (agent.streams.out.empty()) {
      co_await boost::asio::post(agent.loop.executor(), boost::asio::use_awaitable);
    }
    agent.watch->leave();
  });
  CHECK_FALSE(outcome.exited);
  CHECK_FALSE(outcome.failed);
  CHECK(world.watch->left());
  CHECK(world.streams.out == "one\n");
}

TEST_CASE("nobody who reads the output means leaving, and never a signal to the job") {
  World world;
  world.streams.closed = true;
  bool heard = false;
  auto outcome = world.run([&heard](World& agent) -> os::awaitable<void> {
    agent.say(wire::Started{"abcd", 7});
    co_await agent.print(FrameKind::output, "one\n", false);
    for (;;) {
      auto frame = co_await agent.agent->read();
      if (!frame || !*frame) {
        break;
      }
      heard = heard || (*frame)->kind == FrameKind::control;
    }
  });
  CHECK_FALSE(outcome.exited);
  CHECK(world.watch->left());
  world.loop.settle();
  CHECK_FALSE(heard);
}

TEST_CASE("a connection that is lost is said, and is not the job's end") {
  World world;
  CHECK_THROWS_AS(world.run([](World& agent) -> os::awaitable<void> {
    agent.say(wire::Started{"abcd", 7});
    auto flushed = co_await agent.agent->flush();
    CHECK(flushed);
    agent.agent->close();
  }),
                  cli::UserError);
  CHECK(world.streams.ended);
}
