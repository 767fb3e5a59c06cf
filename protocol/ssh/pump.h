// One libssh session on one Asio thread: waits for its socket, lets libssh work, and ends it
// safely. Base of the server's and the client's end. What libssh demands of its callers is kept
// here and in channel.h:
//
// - libssh is called only from the loop or from coroutines, never from inside one of its callbacks.
// Callbacks
//   copy and set flags; stepped() acts on them afterwards.
// - Every call that writes also polls, and may so run callbacks of any channel: kick() after each,
// and look
//   again at what was known before.
// - The descriptor that Asio watches is a duplicate: libssh closes its own inside callbacks.
// - Nothing of libssh is freed before a posted handler runs, when no frame of libssh can be on the
// stack.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "protocol/os/async.h"
#include "protocol/os/wakeup.h"
#include "protocol/ssh/handles.h"

namespace protocol::ssh {

using os::awaitable;
using wire::Failure;
using wire::result;

class Channel;

class Pump : public std::enable_shared_from_this<Pump> {
 public:
  using Clock = std::chrono::steady_clock;

  Pump(const Pump&) = delete;
  Pump& operator=(const Pump&) = delete;
  virtual ~Pump();

  // Ends the session, its channels and everybody who waits for them. Idempotent. Nothing is sent.
  void end(Failure why);
  bool ended() const { return ended_; }
  const Failure& why() const { return why_; }  // requires ended()

  // Null once ended, so that nobody talks to a session that is going away.
  ssh_session session() const { return ended_ ? nullptr : session_.get(); }
  // libssh may still be called: it has not closed its socket under us.
  bool alive() const;
  // And it has passed everything on to the system: the one public way to bound what it buffers.
  bool can_write();
  // A call into libssh was made outside the loop: let the loop look at what it did.
  void kick();
  // Returns when bytes went in or out, or the session ended.
  awaitable<void> progress() { return progress_.wait(); }

  void add(std::shared_ptr<Channel> channel) { channels_.push_back(std::move(channel)); }
  std::shared_ptr<Channel> find(ssh_channel handle) const;

  Clock::time_point last_activity() const { return last_activity_; }
  const os::executor& executor() const { return ex_; }

 protected:
  explicit Pump(const os::executor& ex);

  // Takes a session that has made its first key exchange call (libssh has no poll context before),
  // and a descriptor of its socket, which is duplicated.
  result<void> start(SessionHandle session, int fd);
  // Asks a silent peer for a sign of life, and ends the session after so long without any.
  void watch_silence(std::chrono::milliseconds limit);
  // Tells the peer why, waits (bounded) until it has taken it and hung up, then ends.
  awaitable<void> part(Failure why);

  // Bytes went in or out. Called from the loop, outside libssh; the session is alive. Takes every
  // message that libssh has kept: it keeps them without bound.
  virtual void stepped() = 0;
  // The session is over: let go of every message and wake everybody.
  virtual void over() = 0;

  const std::vector<std::shared_ptr<Channel>>& channels() const { return channels_; }
  // Packets libssh has decoded and encoded.
  std::uint64_t packets_in() const { return packets_.in_packets; }
  std::uint64_t packets_out() const { return packets_.out_packets; }
  // libssh's words about the last error.
  std::string error_text() const;

 private:
  void step();
  void pump_once();
  bool moved() const;
  void settle();
  bool answers_unread();
  void arm();
  void wait_for(boost::asio::posix::descriptor_base::wait_type what, bool& waiting);
  void detach(Failure why);
  void let_go() noexcept;
  std::chrono::milliseconds keepalive_interval() const;
  void arm_silence_timer();
  void check_silence();

  os::executor ex_;
  boost::asio::posix::stream_descriptor descriptor_;
  os::Wakeup progress_;
  boost::asio::steady_timer silence_timer_;
  std::chrono::milliseconds silence_limit_{0};
  std::optional<Clock::time_point> keepalive_sent_;  // and nothing heard since
  Clock::time_point last_activity_ = Clock::now();

  std::vector<std::shared_ptr<Channel>> channels_;
  std::size_t turn_ = 0;  // which of them goes first
  bool posted_ = false;   // a step is on its way
  bool reading_ = false, writing_ = false;
  bool ended_ = false;
  Failure why_;

  ssh_counter_struct socket_bytes_{};
  ssh_counter_struct packets_{};
  std::uint64_t seen_in_ = 0, seen_out_ = 0;
  std::uint64_t packets_taken_ = 0;  // of those encoded, when the system last had all of them
  SessionHandle session_;            // uses the counters
  EventHandle event_;                // uses the session
};

}  // namespace protocol::ssh
