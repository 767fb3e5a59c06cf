// One connection from a session to its sandbox's supervisor. It opens in the background: frames
// that are given before it is open wait here, in order, so that the session's reader never has to.
// What the frames mean is the session's business.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "agent/supervisors.h"
#include "protocol/wire/frames.h"
#include "protocol/wire/limits.h"

namespace agent {

// What peers that keep to their credit never have queued: pack, input, output, error and result
// pack of one request in full.
inline constexpr std::size_t kMaxRelayBytes = 6 * std::size_t{protocol::wire::kFullCredit};
// Control that a client may have on its way to a supervisor. Less than what breaks the connection:
// there is always room to say that the client is gone.
inline constexpr std::size_t kMaxRelayControlBytes = protocol::wire::kMaxQueuedControlBytes / 4 * 3;

class Relay : public std::enable_shared_from_this<Relay> {
 public:
  // Frames from the supervisor, one at a time: the next is read when the coroutine has ended.
  using OnFrame = std::function<awaitable<void>(protocol::wire::Frame)>;
  // It could not be opened, or it broke. Not called after finish().
  using OnGone = std::function<void(protocol::wire::Failure)>;

  explicit Relay(protocol::os::executor ex);

  void start(Supervisors& supervisors, std::filesystem::path directory, protocol::wire::Hello hello,
             OnFrame on_frame, OnGone on_gone);

  void send(std::uint32_t request, const protocol::wire::Message& message);
  void forward(protocol::wire::Frame frame);
  // Whether a client's frame may be forwarded. One that may not is of a client that sends more than
  // it has credit for, or control that nobody reads so fast: hang up on it.
  bool has_room(const protocol::wire::Frame& frame) const;

  // Tells the supervisor that the client is gone. True when its job is reaped (`ended`), false when
  // the supervisor is gone.
  awaitable<bool> hang_up();
  // Whether there ever was a supervisor.
  bool was_open() const { return frames_ != nullptr; }
  // The supervisor's answer to hang_up, as the session reads it.
  void ended();
  // Writes what is queued, then closes.
  awaitable<void> finish();

 private:
  awaitable<void> run(Supervisors& supervisors, std::filesystem::path directory,
                      protocol::wire::Hello hello);
  static awaitable<void> flush(std::shared_ptr<Relay> self);
  enum class State { opening, open, gone };

  protocol::os::Wakeup changed_;
  State state_ = State::opening;
  bool hung_up_ = false;
  bool ended_ = false;
  bool finishing_ = false;
  std::unique_ptr<protocol::os::FrameStream> frames_;
  std::deque<protocol::wire::Frame> early_;
  std::size_t early_bytes_ = 0, early_control_bytes_ = 0;
  protocol::os::executor ex_;
  OnFrame on_frame_;
  OnGone on_gone_;
};

}  // namespace agent
