// Byte streams over descriptors and sockets, and waiting on one thread.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/thread_pool.hpp>
#include <fstream>

#include "protocol/os/fd_stream.h"
#include "protocol/os/offload.h"
#include "protocol/os/pty.h"
#include "protocol/os/unix_socket.h"
#include "protocol/os/wakeup.h"
#include "tests/support/catch.h"
#include "tests/support/loop.h"
#include "tests/support/socket_pair.h"
#include "tests/support/temporary_directory.h"

using namespace protocol;
using namespace std::chrono_literals;
using os::awaitable;
using os::ByteStream;
using os::Fd;
using os::FdStream;
using os::result;
using wire::Errc;
using Sharing = os::FdStream::Sharing;

namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

awaitable<std::string> read_to_end(ByteStream& stream) {
  std::string all;
  std::array<std::byte, 8192> buffer;
  for (;;) {
    auto count = co_await stream.read_some(buffer);
    if (!count || *count == 0) co_return all;
    all.append(reinterpret_cast<const char*>(buffer.data()), *count);
  }
}

awaitable<void> write_and_end(ByteStream& stream, std::string bytes) {
  auto written = co_await stream.write(bytes_of(bytes));
  if (written) (void)co_await stream.shutdown_write();
}

template <class T>
awaitable<void> note(awaitable<T> work, std::optional<T>& into) {
  into.emplace(co_await std::move(work));
}

}  // namespace

TEST_CASE("bytes pass through pipes and sockets, and each direction ends by itself") {
  test::Loop loop;
  std::unique_ptr<ByteStream> a, b;
  SECTION("a socket") {
    auto ends = test::make_socket_pair();
    a = FdStream::both(loop.executor(), std::move(ends.first));
    b = FdStream::both(loop.executor(), std::move(ends.second));
  }
  SECTION("a pair of pipes") {
    auto there = os::make_pipe(), back = os::make_pipe();
    a = FdStream::pair(loop.executor(), std::move(back->read), std::move(there->write));
    b = FdStream::pair(loop.executor(), std::move(there->read), std::move(back->write));
  }
  SECTION("pipes whose flags are not ours") {
    auto there = os::make_pipe(), back = os::make_pipe();
    int fd = there->write.get();
    a = FdStream::pair(loop.executor(), std::move(back->read), std::move(there->write),
                       Sharing::shared);
    CHECK((::fcntl(fd, F_GETFL) & O_NONBLOCK) == 0);
    b = FdStream::pair(loop.executor(), std::move(there->read), std::move(back->write),
                       Sharing::shared);
  }
  std::string big(3 << 20, 'x');
  loop.start(write_and_end(*a, big));
  CHECK(loop.run(read_to_end(*b)) == big);
  loop.start(write_and_end(*b, "back"));
  CHECK(loop.run(read_to_end(*a)) == "back");
}

TEST_CASE("files and /dev/null, which epoll refuses, are streams too") {
  test::Loop loop;
  test::TemporaryDirectory directory;
  std::ofstream(directory / "in") << std::string(100000, 'y');
  Sharing sharing = GENERATE(Sharing::own, Sharing::shared);
  auto file = FdStream::pair(
      loop.executor(), Fd(::open((directory / "in").c_str(), O_RDONLY | O_CLOEXEC)),
      Fd(::open((directory / "out").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), sharing);
  CHECK(loop.run(read_to_end(*file)) == std::string(100000, 'y'));
  CHECK(loop.run(file->write(bytes_of(std::string(300000, 'z')))));
  CHECK(std::filesystem::file_size(directory / "out") == 300000);
  auto null = FdStream::both(loop.executor(), Fd(::open("/dev/null", O_RDWR | O_CLOEXEC)), sharing);
  CHECK(loop.run(read_to_end(*null)).empty());
  CHECK(loop.run(null->write(bytes_of("gone"))));
}

TEST_CASE("the end of a terminal is the end of its stream") {
  test::Loop loop;
  auto pty = os::open_pty({});
  auto stream = FdStream::both(loop.executor(), std::move(pty->master));
  REQUIRE(::write(pty->slave.get(), "hi", 2) == 2);
  pty->slave.reset();
  CHECK(loop.run(read_to_end(*stream)) == "hi");
}

TEST_CASE("writing to a pipe that nobody reads is an error, not a signal") {
  test::Loop loop;
  auto pipe = os::make_pipe();
  auto stream = FdStream::pair(loop.executor(), Fd(), std::move(pipe->write));
  pipe->read.reset();
  CHECK(loop.run(stream->write(bytes_of("x"))).error().code == Errc::gone);
}

TEST_CASE("closing a stream ends the calls that wait on it") {
  test::Loop loop;
  auto ends = test::make_socket_pair();
  auto stream = FdStream::both(loop.executor(), std::move(ends.first));
  std::optional<result<std::size_t>> read;
  std::optional<result<void>> written;
  std::array<std::byte, 10> buffer;
  std::string big(10 << 20, 'x');
  loop.start(note(stream->read_some(buffer), read));
  loop.start(note(stream->write(bytes_of(big)), written));
  loop.settle();
  CHECK_FALSE(read);
  CHECK_FALSE(written);
  SECTION("by close") { stream->close(); }
  SECTION("by the destructor") { stream.reset(); }
  SECTION("by the peer") { ends.second.reset(); }
  loop.settle();
  REQUIRE(read);
  if (stream && *read)
    CHECK(**read == 0);
  else
    CHECK(read->error().code == Errc::gone);
  REQUIRE(written);
  CHECK(written->error().code == Errc::gone);
}

TEST_CASE("what can be read at once is read at once") {
  test::Loop loop;
  auto pipe = os::make_pipe();
  auto stream = FdStream::pair(loop.executor(), std::move(pipe->read), Fd());
  std::array<std::byte, 10> buffer;
  CHECK(stream->read_now(buffer).error().code == Errc::busy);
  REQUIRE(::write(pipe->write.get(), "abc", 3) == 3);
  loop.run(stream->readable());
  CHECK(*stream->read_now(buffer) == 3);
  pipe->write.reset();
  CHECK(*stream->read_now(buffer) == 0);
}

TEST_CASE("a unix socket is private, reached at any path length, and carries bytes") {
  test::Loop loop;
  test::TemporaryDirectory directory;
  auto deep = directory.path();
  bool is_long = GENERATE(false, true);
  if (is_long) deep /= std::string(100, 'd') + "/" + std::string(100, 'e');
  std::filesystem::create_directories(deep);
  auto path = deep / "agent.sock";
  mode_t before = ::umask(0);
  auto listener = os::UnixListener::listen(loop.executor(), path);
  ::umask(before);
  REQUIRE(listener);
  struct stat status = {};
  REQUIRE(::lstat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);

  std::optional<result<std::unique_ptr<ByteStream>>> accepted;
  loop.start(note(listener->accept(), accepted));
  auto client = loop.run(os::connect_unix(loop.executor(), path));
  REQUIRE(client);
  loop.settle();
  REQUIRE(accepted);
  REQUIRE(*accepted);
  loop.start(write_and_end(**client, "hello"));
  CHECK(loop.run(read_to_end(***accepted)) == "hello");

  CHECK(os::UnixListener::listen(loop.executor(), path).error().code == Errc::exists);
  listener->close();
  CHECK(loop.run(listener->accept()).error().code == Errc::gone);
  auto refused = loop.run(os::connect_unix(loop.executor(), path));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Errc::gone);
  // What a dead process left is replaced.
  CHECK(os::UnixListener::listen(loop.executor(), path));
  auto missing = loop.run(os::connect_unix(loop.executor(), deep / "none"));
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == Errc::not_found);
}

TEST_CASE("the peer of a socket is known") {
  auto ends = test::make_socket_pair();
  auto peer = os::peer_of(ends.first.get());
  REQUIRE(peer);
  CHECK(peer->uid == ::geteuid());
  CHECK(peer->pid == ::getpid());
}

TEST_CASE("a notify wakes all that wait, and a deadline those that waited too long") {
  test::Loop loop;
  os::Wakeup wakeup(loop.executor());
  int woken = 0;
  auto waiter = [](os::Wakeup& w, int& n) -> awaitable<void> {
    co_await w.wait();
    ++n;
  };
  loop.start(waiter(wakeup, woken));
  loop.start(waiter(wakeup, woken));
  loop.settle();
  CHECK(woken == 0);
  wakeup.notify();
  CHECK(woken == 0);  // never within notify
  loop.settle();
  CHECK(woken == 2);
  CHECK_FALSE(loop.run(wakeup.wait_until(std::chrono::steady_clock::now() + 1ms)));
}

TEST_CASE("an exception that escapes a coroutine reaches the handler with its name") {
  test::Loop loop;
  std::string heard;
  os::set_escape_handler([&](const std::string& name, std::exception_ptr) { heard = name; });
  os::spawn(loop.executor(), "the one", []() -> awaitable<void> {
    throw std::runtime_error("oops");
    co_return;
  }());
  loop.settle();
  os::set_escape_handler(nullptr);
  CHECK(heard == "the one");
}

TEST_CASE("offloaded work runs on the pool and its value comes back to the loop") {
  test::Loop loop;
  boost::asio::thread_pool pool(1);
  auto here = std::this_thread::get_id();
  auto work =
      [](boost::asio::thread_pool& p) -> awaitable<std::pair<std::thread::id, std::thread::id>> {
    auto there = co_await os::offload(p, [] { return std::this_thread::get_id(); });
    co_return std::pair(there, std::this_thread::get_id());
  };
  auto [there, back] = loop.run(work(pool));
  CHECK((there != here));
  CHECK((back == here));
}
