// The way to a sandbox's supervisor: its unix socket, and the program that listens there, started
// on demand. A supervisor outlives the agent that started it; this knows one by its socket, and by
// nothing that could be out of date.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "protocol/os/async.h"
#include "protocol/os/frame_stream.h"
#include "protocol/os/wakeup.h"
#include "protocol/wire/messages.h"

namespace agent {

using protocol::os::awaitable;
using protocol::wire::result;

struct SupervisorConnection {
  std::unique_ptr<protocol::os::FrameStream> frames;
  protocol::wire::Hello hello;  // what it answered
};

class Supervisors {
 public:
  static constexpr std::chrono::seconds kStartLimit{15};
  static constexpr std::chrono::seconds kHelloLimit{10};

  // Says how the supervisor of the sandbox in this directory is started: its command line. Of what
  // it is given, 3 and 4 are the ends of a pipe, to write and to read (isolation.h).
  using Launcher =
      std::function<result<std::vector<std::string>>(const std::filesystem::path& directory)>;

  // `epoch` is said in each hello: supervisors refuse what an earlier agent has left on its way.
  // `ended` is called with the id of a sandbox whose supervisor, of those started here, has ended.
  Supervisors(protocol::os::executor ex, std::int64_t epoch, Launcher launcher,
              std::function<void(const std::string& sandbox)> ended)
      : ex_(std::move(ex)),
        epoch_(epoch),
        launcher_(std::move(launcher)),
        ended_(std::move(ended)) {}

  // A new connection to the supervisor of the sandbox in `directory`, which is started when none
  // listens there. Of several that ask at once one starts it. The launcher's error, or
  // Errc::timed_out, denied, no_space, io ... that name what could not be started.
  awaitable<result<SupervisorConnection>> connect(std::filesystem::path directory,
                                                  protocol::wire::Hello hello);
  // The same, but Errc::not_found when none runs.
  awaitable<result<SupervisorConnection>> find(std::filesystem::path directory,
                                               protocol::wire::Hello hello);
  // Whether the last one there was killed since this machine was booted: what it ran may run still.
  // Only where none runs.
  static bool was_killed(const std::filesystem::path& directory);

 private:
  awaitable<result<void>> start(std::filesystem::path directory);
  awaitable<result<SupervisorConnection>> greet(std::unique_ptr<protocol::os::ByteStream> stream,
                                                protocol::wire::Hello hello);

  protocol::os::executor ex_;
  std::int64_t epoch_;
  Launcher launcher_;
  std::function<void(const std::string&)> ended_;
  std::map<std::filesystem::path, std::shared_ptr<protocol::os::Wakeup>> starting_;
};

}  // namespace agent
