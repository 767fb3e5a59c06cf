// A supervisor in this process, with real jobs and a fake workspace, and clients of its socket.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/supervisor/supervisor.h"
#include "protocol/os/frame_stream.h"
#include "protocol/wire/messages.h"
#include "tests/support/fake_workspace.h"
#include "tests/support/loop.h"
#include "tests/support/temporary_directory.h"

namespace test {

namespace wire = protocol::wire;

// One connection to the supervisor, read all the time.
class Client {
 public:
  explicit Client(Loop& loop, std::unique_ptr<protocol::os::ByteStream> stream);
  ~Client();

  void send(std::uint32_t request, const wire::Message& message) { frames->send(request, message); }
  void input(std::uint32_t request, std::string bytes);
  void end_input(std::uint32_t request) { frames->end_bulk(wire::FrameKind::input, request); }
  void pack(std::uint32_t request, std::string bytes);  // and its end
  void sync(std::uint32_t request, std::string snapshot, std::string pack_bytes,
            std::string base = {}, std::string merged = {});
  void exec(std::uint32_t request, std::string script);

  // The next control message, whatever its request.
  wire::Message next();
  // The next one of this type; others that come before are kept in `passed`.
  template <class M>
  M expect() {
    for (;;) {
      wire::Message message = next();
      if (auto* found = std::get_if<M>(&message)) return std::move(*found);
      passed.push_back(std::move(message));
    }
  }
  // Until that much output is there.
  void wait_output(std::uint32_t request, const std::string& text);
  bool gone();  // waits for the end of the connection

  std::string& output(std::uint32_t request) {
    return streams_[{request, wire::FrameKind::output}];
  }
  std::string& error(std::uint32_t request) { return streams_[{request, wire::FrameKind::error}]; }
  std::string& result_pack(std::uint32_t request) {
    return streams_[{request, wire::FrameKind::result_pack}];
  }

  Loop& loop;
  std::unique_ptr<protocol::os::FrameStream> frames;
  std::vector<wire::Message> passed;
  // What came, in order: "started", "output", "output end", "error end", "exited" ...
  std::vector<std::string> order;
  bool consuming = true;  // false: gives no credit
  std::size_t received = 0;

 private:
  static protocol::os::awaitable<void> read(Client& self, std::shared_ptr<bool> alive);
  void run_until(const std::function<bool()>& done, const char* what);

  std::map<std::pair<std::uint32_t, wire::FrameKind>, std::string> streams_;
  std::deque<wire::Message> messages_;
  protocol::os::Wakeup changed_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  bool ended_ = false;
};

class Supervised {
 public:
  Supervised();
  ~Supervised();  // shuts it down when the test did not

  // With hello said and answered.
  std::unique_ptr<Client> connect(std::string origin = "origin", std::string fence = "");
  std::unique_ptr<Client> connect_as(wire::Hello ours);
  std::unique_ptr<Client> connect_silent();
  // Until the supervisor has nothing left to run.
  void wait_stopped();
  bool stopped() const { return stopped_; }
  std::filesystem::path workspace() const { return directory / "sandbox/workspace"; }

  TemporaryDirectory directory;
  Loop loop;
  std::shared_ptr<WorkspaceScript> script = std::make_shared<WorkspaceScript>();
  agent::supervisor::Options options;
  std::unique_ptr<agent::supervisor::Supervisor> supervisor;
  wire::Hello hello;  // the last answer

  void start();

 private:
  static protocol::os::awaitable<void> run(Supervised& self);
  bool stopped_ = true;
};

}  // namespace test
