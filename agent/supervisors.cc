#include "agent/supervisors.h"

#include <fcntl.h>

#include <boost/json.hpp>
#include <cerrno>
#include <fstream>

#include "agent/deadline.h"
#include "agent/log.h"
#include "protocol/os/fd_stream.h"
#include "protocol/os/paths.h"
#include "protocol/os/process.h"
#include "protocol/os/unix_socket.h"

namespace agent {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;

namespace {

// What the supervisor says on stdout when it listens.
constexpr std::string_view kReady = "ready\n";

awaitable<void> read_ready(os::FdStream& stream, std::string& said) {
  while (said.size() < kReady.size()) {
    std::byte buffer[16];
    auto count = co_await stream.read_some(buffer);
    if (!count || *count == 0) {
      co_return;
    }
    said.append(reinterpret_cast<const char*>(buffer), *count);
  }
}

awaitable<void> reap(os::executor ex, std::filesystem::path directory, os::Process process,
                     std::function<void(const std::string&)> ended) {
  auto exit = co_await process.wait(ex);
  ended(directory.filename().string());
  log::peer("supervisor_ended", {{"sandbox", directory.filename().string()},
                                 {"status", std::to_string(exit.status)},
                                 {"signal", std::to_string(exit.signal)}});
}

struct Greeting {
  result<std::optional<wire::Frame>> frame = std::optional<wire::Frame>();
};

awaitable<void> read_greeting(os::FrameStream& frames, std::shared_ptr<Greeting> greeting) {
  auto frame = co_await frames.read();
  greeting->frame = std::move(frame);
}

// Wakes who waits for this start, also when it failed.
struct Starting {
  std::map<std::filesystem::path, std::shared_ptr<os::Wakeup>>& starting;
  std::filesystem::path directory;
  ~Starting() {
    auto found = starting.find(directory);
    auto wakeup = std::move(found->second);
    starting.erase(found);
    wakeup->notify();
  }
};

}  // namespace

awaitable<result<void>> Supervisors::start(std::filesystem::path directory) {
  starting_[directory] = std::make_shared<os::Wakeup>(ex_);
  Starting guard{starting_, directory};
  auto command = launcher_(directory);
  if (!command) {
    co_return command.error();
  }
  auto pipe = os::make_pipe();
  auto outside_pid = os::make_pipe();
  if (!pipe || !outside_pid) {
    co_return pipe ? outside_pid.error() : pipe.error();
  }
  std::filesystem::path log_file = directory / "logs" / "supervisor.log";
  os::Fd log_fd(
      ::open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!log_fd) {
    co_return os::errno_failure(errno, log_file.string());
  }
  os::Spawn spawn;
  spawn.argv = std::move(*command);
  spawn.pass_fds = {outside_pid->write.get(), outside_pid->read.get()};
  spawn.stdout_fd = pipe->write.get();
  spawn.stderr_fd = log_fd.get();
  spawn.new_session = true;
  auto process = os::Process::start(spawn);
  if (!process) {
    co_return process.error();
  }
  pipe->write.reset();
  outside_pid->write.reset();
  outside_pid->read.reset();
  log::peer("supervisor_started",
            {{"sandbox", directory.filename().string()}, {"pid", std::to_string(process->pid())}});
  os::spawn(ex_, "supervisor reaper", reap(ex_, directory, std::move(*process), ended_));

  auto stdout_stream = os::FdStream::pair(ex_, std::move(pipe->read), os::Fd());
  std::string said;
  os::FdStream& stream = *stdout_stream;
  bool in_time =
      co_await within(ex_, kStartLimit, read_ready(stream, said), [&stream] { stream.close(); });
  if (said == kReady) {
    co_return result<void>();
  }
  if (!in_time) {
    co_return Failure(Errc::timed_out, "starting the sandbox's supervisor");
  }
  // It ended: perhaps because another one has the sandbox, which a connection shows.
  co_return Failure(Errc::gone,
                    "the sandbox's supervisor could not start; its log is " + log_file.string());
}

awaitable<result<SupervisorConnection>> Supervisors::greet(std::unique_ptr<os::ByteStream> stream,
                                                           wire::Hello hello) {
  auto frames = std::make_unique<os::FrameStream>(ex_, std::move(stream));
  hello.epoch = epoch_;
  frames->send(0, hello);
  auto greeting = std::make_shared<Greeting>();
  os::FrameStream& peer = *frames;
  bool in_time =
      co_await within(ex_, kHelloLimit, read_greeting(peer, greeting), [&peer] { peer.close(); });
  if (!in_time) {
    co_return Failure(Errc::timed_out, "the sandbox's supervisor does not answer");
  }
  if (!greeting->frame) {
    co_return greeting->frame.error();
  }
  if (!*greeting->frame) {
    co_return Failure(Errc::gone, "the sandbox's supervisor hung up");
  }
  auto message = wire::decode((*greeting->frame)->payload);
  if (message) {
    if (auto* answer = std::get_if<wire::Hello>(&*message)) {
      SupervisorConnection connection{std::move(frames), std::move(*answer)};
      co_return std::move(connection);
    }
    if (auto* failed = std::get_if<wire::Failed>(&*message)) {
      co_return Failure(wire::errc_from_name(failed->code), failed->message);
    }
  }
  co_return Failure(Errc::bad_input, "the sandbox's supervisor gave no hello");
}

awaitable<result<SupervisorConnection>> Supervisors::find(std::filesystem::path directory,
                                                          wire::Hello hello) {
  auto stream = co_await os::connect_unix(ex_, directory / "supervisor.sock");
  if (!stream) {
    auto code = stream.error().code;
    if (code == Errc::gone) {
      code = Errc::not_found;  // a socket without a listener
    }
    co_return Failure(code, stream.error().what);
  }
  auto connection = co_await greet(std::move(*stream), std::move(hello));
  co_return connection;
}

// One that ends by itself takes its record with it.
bool Supervisors::was_killed(const std::filesystem::path& directory) {
  std::ifstream file(directory / "supervisor.json");
  std::string text(std::istreambuf_iterator<char>(file), {});
  boost::system::error_code error;
  auto record = boost::json::parse(text, error);
  const auto* object = error ? nullptr : record.if_object();
  const auto* boot = object == nullptr ? nullptr : object->if_contains("boot_id");
  return boot != nullptr && boot->is_string() &&
         std::string_view(boot->get_string()) == os::boot_id();
}

awaitable<result<SupervisorConnection>> Supervisors::connect(std::filesystem::path directory,
                                                             wire::Hello hello) {
  // Twice: one that ended of idleness between our connect and its hello is started anew.
  for (int attempt = 0;; ++attempt) {
    auto running = co_await find(directory, hello);
    if (running) {
      co_return std::move(running);
    }
    auto code = running.error().code;
    if ((code != Errc::not_found && code != Errc::gone) || attempt == 2) {
      co_return running;
    }
    if (auto other = starting_.find(directory); other != starting_.end()) {
      auto wakeup = other->second;
      co_await wakeup->wait();
      continue;
    }
    auto started = co_await start(directory);
    if (!started && started.error().code != Errc::gone) {
      co_return started.error();
    }
    if (!started) {
      auto other = co_await find(directory, hello);
      if (other) {
        co_return std::move(other);
      }
      co_return started.error();
    }
  }
}

}  // namespace agent
