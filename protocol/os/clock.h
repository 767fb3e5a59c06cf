// Time, behind two calls, so that a test can be the one who tells it; and times as text.
#pragma once

#include <chrono>
#include <string>

#include "protocol/wire/result.h"

namespace protocol::os {

class Clock {
 public:
  using steady = std::chrono::steady_clock::time_point;
  using system = std::chrono::system_clock::time_point;
  virtual ~Clock() = default;
  virtual steady now() const = 0;   // for durations and deadlines
  virtual system date() const = 0;  // for people and files
};

class SystemClock : public Clock {
 public:
  steady now() const override { return std::chrono::steady_clock::now(); }
  system date() const override { return std::chrono::system_clock::now(); }
};

// RFC 3339 in UTC, whole seconds: "2026-01-31T23:59:59Z".
std::string format_utc(Clock::system time);
// Of such a text, with or without a fraction of a second, and with any offset. Errc::bad_input.
wire::result<Clock::system> parse_utc(const std::string& text);

}  // namespace protocol::os
