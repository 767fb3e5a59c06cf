// One connection of the agent: executes the steps of its requests strictly in order, and answers
// what must not wait (signals, window sizes, input, status, hello) at once.
//
// When it ends without `hangup` the agent died: what runs goes on, nothing new begins, and the
// result is taken when the job has ended.
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/supervisor/job.h"
#include "protocol/os/frame_stream.h"
#include "protocol/os/wakeup.h"
#include "protocol/wire/messages.h"

namespace agent::supervisor {

class Supervisor;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  static constexpr std::size_t kMaxRequests = 65536;             // of one connection
  static constexpr std::size_t kMaxSteps = 256;                  // sent ahead
  static constexpr std::size_t kMaxBuffered = 16 * 1024 * 1024;  // pack and input, all requests

  Connection(Supervisor& supervisor, std::unique_ptr<protocol::os::ByteStream> stream);
  ~Connection();

  // Until the peer is gone and nothing of it runs any more. `supervisor` must live until then.
  awaitable<void> run();
  void close();
  // As if the agent had ended here: of what it said nothing begins any more, read or not.
  void cut() { on_end(); }
  // What it said about itself; all empty until then.
  const protocol::wire::Hello& client() const { return hello_; }
  // Writes what is queued, the answer to `shutdown` too, then closes.
  void finish();

 private:
  struct Request;
  struct Step {
    std::uint32_t request;
    protocol::wire::Message message;
  };

  // Reading: never waits for anything but the peer.
  void on_frame(protocol::wire::Frame frame);
  void on_bulk(protocol::wire::Frame frame);
  void on_message(std::uint32_t number, protocol::wire::Message message);
  void on_hello(const protocol::wire::Hello& hello);
  void on_signal(std::uint32_t number, const protocol::wire::Signal& signal);
  void on_hangup();
  void on_end();
  void queue(std::uint32_t number, protocol::wire::Message message);

  // Steps, one at a time.
  static awaitable<void> run_steps(std::shared_ptr<Connection> self);
  awaitable<void> run_step(Step step);
  awaitable<void> receive(std::uint32_t number, protocol::wire::SyncStart start);
  awaitable<result<protocol::os::Fd>> spool_pack(std::uint32_t number, std::uint64_t& size);
  awaitable<void> apply(std::uint32_t number);
  awaitable<void> exec(std::uint32_t number, protocol::wire::Exec exec);
  awaitable<void> take_result(std::uint32_t number);
  awaitable<void> pull(std::uint32_t number, protocol::wire::Pull pull);
  awaitable<void> merged(protocol::wire::Merged merged);
  // `result` and its pack, under that request.
  awaitable<void> send_result(std::uint32_t number, std::string_view step,
                              protocol::wire::Result result, std::string merged,
                              bool whole = false);
  awaitable<void> take_quietly();

  // Beside the steps.
  static awaitable<void> end_job(std::shared_ptr<Connection> self, std::uint32_t number,
                                 protocol::wire::EndJob end);
  static awaitable<void> watch_job(std::shared_ptr<Connection> self, std::uint32_t number,
                                   std::string id);
  void on_detach(std::uint32_t number);
  static awaitable<void> attach(std::shared_ptr<Connection> self, std::uint32_t number,
                                std::string id);
  static awaitable<void> dial(std::shared_ptr<Connection> self, std::uint32_t number,
                              std::uint16_t port);
  static awaitable<void> answer_status(std::shared_ptr<Connection> self, std::uint32_t number);
  static awaitable<void> answer_unpulled(std::shared_ptr<Connection> self, std::uint32_t number);
  static awaitable<void> shut_down(std::shared_ptr<Connection> self, std::uint32_t number);
  static awaitable<void> hang_up(std::shared_ptr<Connection> self);
  static awaitable<void> feed_input(std::shared_ptr<Connection> self, std::uint32_t number,
                                    std::shared_ptr<Job> job);

  static awaitable<void> feed_tunnel(std::shared_ptr<Connection> self, std::uint32_t number,
                                     std::shared_ptr<protocol::os::ByteStream> stream);

  // A job's output, its end and its status. Returns early when nobody is there any more.
  awaitable<void> stream(std::uint32_t number, JournalReader reader);

  Request* request(
      std::uint32_t number);  // null, and the connection closed, when there are too many
  // What comes of its pack and input is read and forgotten.
  void discard_streams(std::uint32_t number, Request& request);
  void fail(std::uint32_t number, std::string_view step, const protocol::wire::Failure& failure);
  void begin(awaitable<void> work, const char* name);
  static awaitable<void> counted(std::shared_ptr<Connection> self, awaitable<void> work);
  void stop_streams();
  bool over() const { return hung_up_ || ended_; }

  Supervisor& supervisor_;
  protocol::os::FrameStream frames_;
  protocol::os::Wakeup changed_;
  protocol::wire::Hello hello_;
  bool greeted_ = false;
  bool hung_up_ = false;  // the client is gone, says the agent
  bool ended_ = false;    // the agent is gone
  std::uint32_t hangup_request_ = 0;
  bool asked_shutdown_ = false;
  std::string merged_;  // the last result that this origin has
  std::map<std::uint32_t, std::unique_ptr<Request>> requests_;
  std::deque<Step> steps_;
  std::shared_ptr<Job> current_;                                  // of the exec step that runs
  std::vector<JournalReader*> readers_;                           // of streams that run
  std::vector<std::weak_ptr<protocol::os::ByteStream>> dialled_;  // tunnels
  std::list<std::function<void()>> dialling_;                     // what cuts them off before that
  std::size_t buffered_ = 0;
  int background_ = 0;
};

}  // namespace agent::supervisor
